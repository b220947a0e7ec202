"""The step ``propose``: computes the proposals of photos, on all cores and machines, and writes them as tar shards.

    grounding step=propose images=FOLDER
    torchrun --nproc-per-node 4 -m grounding step=propose images=FOLDER     # or srun: the ranks share the shards

Each input shard becomes one output shard, which appears complete or not at all. So a run that was stopped continues
where it was when it is started again. A worker receives the path of a photo and returns its proposals, so that memory
does not grow with the number of photos.
"""

import json
import logging
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from glob import escape
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any

from tqdm import tqdm

from grounding.images import read_image
from grounding.photos import CURE, PhotoFile, PhotoShard, photo_shards
from grounding.runtime.artefacts import atomic_path
from grounding.runtime.ledger import SKIPPED, Ledger, Skipped
from grounding.runtime.ranks import cores, rank_of
from grounding.runtime.version import VERSION
from grounding.runtime.workers import in_order, worker_pool
from proposals import InputError, Proposer
from proposals.provenance import settings_of
from proposals.shards import ABOUT, SUFFIX, encode, members, read_about, write_shard

log = logging.getLogger(__name__)

UNREADABLE = "unreadable"
AHEAD = 4  # photos in the queue of each worker


@dataclass
class Tally:
    """Counts over the photos of this rank.

    Attributes:
        ledger: counts the files, including those in the shards of an earlier run.
        photos: the number of photos that this run computed or could not read.
        bytes: the size of the shards that this run wrote.
        done_before: the number of shards that an earlier run wrote.
    """

    ledger: Ledger
    photos: int = 0
    bytes: int = 0
    done_before: int = 0


def propose(
    source: str,
    proposer: Proposer,
    output: str,
    split: str | None = None,
    photos: int = 1000,
    workers: int | None = None,
) -> dict[str, Any]:
    """Writes the proposals of all photos as shards ``NAME.tar``, which ``proposals=shards`` reads.

    The last file of a shard is ``skipped.jsonl``, the photos that could not be read and the reasons. The file of this
    name in ``output`` (with several ranks, ``skipped-RANK.jsonl``) lists these photos of all shards, and the files that
    are hidden or no photos.

    Args:
        source: see ``grounding.photos.photo_shards``.
        proposer: computes the proposals.
        output: the folder to write to.
        split: see ``grounding.photos.photo_shards``.
        photos: see ``grounding.photos.photo_shards``.
        workers: the number of processes; None for the number of cores.

    Returns:
        The counts of this rank: ``photos`` and ``bytes`` of this run, ``shards_before``, the shards of an earlier run,
        and ``skipped``, a list of :class:`grounding.runtime.ledger.Skipped` as dicts.

    Raises:
        InputError: there are no photos or none can be read, ``output`` contains shards of other photos or settings,
            ``output`` is the folder of the photos, or a worker was killed.
    """
    rank, world = rank_of()
    folder = Path(source).resolve()
    if Path(output).resolve() == (folder.parent if folder.is_file() else folder):
        raise InputError(f"output={output} is the folder of the photos: choose another folder for the shards")
    workers = cores() if workers is None else workers
    if workers < 1:
        raise InputError(f"workers={workers} must be 1 or more")
    tally, start = Tally(Ledger("files", source, CURE)), time.perf_counter()
    # the files that are left out of a folder are counted once, by the first rank
    shards = photo_shards(source, split, photos, None if rank else tally.ledger)[rank::world]
    with worker_pool(workers, _begin, proposer) as pool, tqdm(unit="photo", disable=None) as bar:
        for i, shard in enumerate(shards):
            bar.set_description(f"shard {i + 1} of {len(shards)}")
            _propose_shard(shard, proposer, Path(output, f"{shard.name}.tar"), pool, workers, tally, bar)
    if shards:  # with more ranks than shards, some have none
        tally.ledger.finish(output, SKIPPED if world == 1 else f"skipped-{rank}.jsonl")
    return _report(tally, time.perf_counter() - start)


def _report(tally: Tally, seconds: float) -> dict[str, Any]:
    if tally.done_before:
        log.info("%d shards exist from an earlier run", tally.done_before)
    if tally.photos:
        each = f"{seconds / tally.photos:.3g} s and {tally.bytes / tally.photos / 1000:.3g} KB a photo"
        print(f"{tally.ledger.line()}; {tally.bytes / 1e6:.3g} MB, {each}")
    return {
        "photos": tally.photos,
        "skipped": [skipped._asdict() for skipped in tally.ledger.skipped],
        "bytes": tally.bytes,
        "shards_before": tally.done_before,
    }


def _propose_shard(
    shard: PhotoShard,
    proposer: Proposer,
    path: Path,
    pool: ProcessPoolExecutor | None,
    workers: int,
    tally: Tally,
    bar: tqdm,
) -> None:
    about = _about(shard, proposer)
    if path.exists():
        if read_about(path) != about:
            raise InputError(f"{path} belongs to other photos or settings: choose another folder, or remove it")
        tally.done_before += 1
        _add_earlier(path, about["photos"], tally.ledger)
        return
    for left in path.parent.glob(f".{escape(path.name)}.*.part"):  # the rest of a run that was killed
        left.unlink(missing_ok=True)
    with atomic_path(path) as temporary:
        write_shard(
            temporary, _files(about, in_order(pool, _work, shard.photos(tally.ledger), workers * AHEAD), tally, bar)
        )
        tally.bytes += temporary.stat().st_size


def _add_earlier(path: Path, photos: int, ledger: Ledger) -> None:
    """Counts the photos in a shard of an earlier run."""
    listed = next((member for member in members(path) if member.name == SKIPPED), None)
    text = b"" if listed is None else PhotoFile(SKIPPED, str(path), listed.offset_data, listed.size).read()
    shard = Ledger("photos")
    shard.came = photos
    for line in map(json.loads, text.splitlines()):
        shard.skip(line["name"], line["reason"], line["detail"], line["where"])
    shard.kept = photos - shard.reasons.total()
    ledger.merge(shard)


def _about(shard: PhotoShard, proposer: Proposer) -> dict[str, Any]:
    """Returns what determines the content of a shard, except for the pixels of the photos."""
    names = [photo.name for photo in shard.photos()]
    if not names:
        raise InputError(f"{shard.tar} contains no photo: move it out of the folder")
    return {
        "grounding": VERSION,
        "proposer": settings_of(proposer),
        "photos": len(names),
        "names": sha256("\n".join(names).encode("utf-8", "surrogateescape")).hexdigest(),
    }


def _files(
    about: dict[str, Any], done: Iterable[tuple[PhotoFile, bytes | str]], tally: Tally, bar: tqdm
) -> Iterator[tuple[str, bytes]]:
    """Yields the files of a shard; the result of a photo that cannot be read is the reason."""
    yield ABOUT, json.dumps(about, sort_keys=True).encode()
    skipped: list[Skipped] = []
    for photo, found in done:
        tally.photos += 1
        tally.ledger.came_in(photo)
        bar.update()
        if isinstance(found, bytes):
            tally.ledger.keep()
            yield photo.name + SUFFIX, found
        else:
            log.warning("skipped %s: %s", photo, found)
            # without folders, so that the bytes are the same on every machine
            skipped.append(Skipped(photo.name, UNREADABLE, found, Path(photo.path).name))
            tally.ledger.skip(*skipped[-1])
    yield SKIPPED, "".join(json.dumps(line._asdict()) + "\n" for line in skipped).encode()


_proposer: Proposer  # of a worker process


def _begin(proposer: Proposer) -> None:
    """Runs at the start of a worker."""
    global _proposer
    _proposer = proposer
    part: Any
    for part in (proposer, getattr(proposer, "segments", None)):
        if hasattr(part, "threads"):
            part.threads = 1  # because each core has its own worker


def _work(photo: PhotoFile) -> bytes | str:
    """Returns the encoded proposals of a photo, or the reason if it cannot be read."""
    try:
        image = read_image(BytesIO(photo.read()), max_aspect=None)
        return encode(_proposer(image, photo.name))
    except InputError as error:
        return str(error)
