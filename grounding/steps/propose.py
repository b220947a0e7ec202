"""The step ``propose``: computes the proposals of photos, on all cores and machines, and writes them as tar shards.

    grounding step=propose images=FOLDER
    torchrun --nproc-per-node 4 -m grounding step=propose images=FOLDER     # or srun: the ranks share the shards

Each input shard becomes one output shard, which appears complete or not at all. So a run that was stopped continues
where it was when it is started again. Any number of processes may run the same command: each takes a shard that is
free, by a lease that expires if the process dies (``grounding.shards.leases``). A worker receives the path of a photo
and returns its proposals, so that memory does not grow with the number of photos.
"""

import json
import logging
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from glob import escape
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from grounding.images import read_image
from grounding.photos import CURE, PhotoFile, PhotoShard, photo_shards
from grounding.runtime.artefacts import atomic_path
from grounding.runtime.ledger import SKIPPED, Ledger, Skipped
from grounding.runtime.ranks import cores, rank_of
from grounding.runtime.version import VERSION
from grounding.runtime.workers import in_order, worker_pool
from grounding.shards.addresses import InputShard
from grounding.shards.parts import claim_folder
from grounding.shards.sharing import share_shards
from proposals import InputError, Proposer
from proposals.provenance import settings_of
from proposals.shards import ABOUT, SUFFIX, encode, members, read_about, write_shard

log = logging.getLogger(__name__)

UNREADABLE = "unreadable"
AHEAD = 4  # photos in the queue of each worker


@dataclass
class Tally:
    """Counts of a run.

    Attributes:
        ledger: counts the files of all shards; only on the first rank.
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
    lease: float = 120,
) -> dict[str, Any]:
    """Writes the proposals of all photos as shards ``NAME.tar``, which ``proposals=shards`` reads.

    The last file of a shard is ``skipped.jsonl``, the photos that could not be read and the reasons. The file of this
    name in ``output``, which the first rank writes, lists these photos of all shards, and the files that are hidden or
    no photos.

    Args:
        source: see ``grounding.photos.photo_shards``.
        proposer: computes the proposals.
        output: the folder to write to.
        split: see ``grounding.photos.photo_shards``.
        photos: see ``grounding.photos.photo_shards``.
        workers: the number of processes; None for the number of cores.
        lease: seconds after which the shard of a process that has died is taken over.

    Returns:
        ``photos`` and ``bytes`` of this run on this rank, ``shards_before``, the shards of an earlier run, and
        ``skipped``, a list of :class:`grounding.runtime.ledger.Skipped` as dicts, which only the first rank has.

    Raises:
        InputError: there are no photos or none can be read, ``output`` contains shards of other photos or settings,
            ``output`` is the folder of the photos, or a worker was killed.
    """
    rank = rank_of()[0]
    folder = Path(source).resolve()
    if Path(output).resolve() == (folder.parent if folder.is_file() else folder):
        raise InputError(f"output={output} is the folder of the photos: choose another folder for the shards")
    workers = cores() if workers is None else workers
    if workers < 1:
        raise InputError(f"workers={workers} must be 1 or more")
    tally, start = Tally(Ledger("files", source, CURE)), time.perf_counter()
    shards = photo_shards(source, split, photos, None if rank else tally.ledger)
    paths = {shard.name: Path(output, f"{shard.name}.tar") for shard in shards}
    by_name = {shard.name: shard for shard in shards}
    checked: set[str] = set()

    def done(name: str) -> bool:
        if name not in checked and _exists(by_name[name], proposer, paths[name]):
            checked.add(name)
        return name in checked

    tally.done_before = sum(done(shard.name) for shard in shards)
    claim_folder(output, "proposals", {"grounding": VERSION, "proposer": settings_of(proposer)})
    with (
        worker_pool(workers, _begin, proposer, rehearse=partial(_rehearse, proposer)) as pool,
        tqdm(unit="photo", disable=None) as bar,
    ):

        def work(shard: InputShard, check: Callable[[], None]) -> None:
            bar.set_description(shard.name)
            results = partial(_results, by_name[shard.name], pool, workers * AHEAD, check)
            _propose_shard(by_name[shard.name], proposer, paths[shard.name], results, tally, bar)

        listed = [InputShard(name, str(path)) for name, path in paths.items()]
        share_shards(listed, Path(output), lease, done, work)
    if not rank:
        for shard in shards:
            _count(paths[shard.name], shard, tally.ledger)
        tally.ledger.finish(output, SKIPPED)
    return _report(tally, time.perf_counter() - start)


def _exists(shard: PhotoShard, proposer: Proposer, path: Path) -> bool:
    """Whether the proposals of a shard exist; those of other photos or settings are refused."""
    if not path.exists():
        return False
    if read_about(path) != _about(shard, proposer):
        raise InputError(f"{path} belongs to other photos or settings: choose another folder, or remove it")
    return True


def _report(tally: Tally, seconds: float) -> dict[str, Any]:
    if tally.done_before:
        log.info("%d shards exist from an earlier run", tally.done_before)
    if tally.photos:
        each = f"{seconds / tally.photos:.3g} s and {tally.bytes / tally.photos / 1000:.3g} KB a photo"
        counts = f"{tally.photos:,} by this rank" if rank_of()[0] else tally.ledger.line()
        print(f"{counts}; {tally.bytes / 1e6:.3g} MB, {each}")
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
    done: Callable[[], Iterator[tuple[PhotoFile, bytes | str]]],
    tally: Tally,
    bar: tqdm,
) -> None:
    about = _about(shard, proposer)
    for left in path.parent.glob(f".{escape(path.name)}.*.part"):  # the rest of a run that was killed
        left.unlink(missing_ok=True)
    with atomic_path(path) as temporary:
        write_shard(temporary, _files(about, done(), tally, bar))
        tally.bytes += temporary.stat().st_size


def _results(
    shard: PhotoShard, pool: ProcessPoolExecutor | None, ahead: int, check: Callable[[], None]
) -> Iterator[tuple[PhotoFile, bytes | str]]:
    """The result of each photo, as long as no other process has taken over the shard."""
    for result in in_order(pool, _work, shard.photos(), ahead):
        check()
        yield result


def _count(path: Path, shard: PhotoShard, ledger: Ledger) -> None:
    """Counts the photos of a shard that is done, and the hidden files of its tar."""
    photos = sum(1 for _ in shard.photos(ledger))
    listed = next((member for member in members(path) if member.name == SKIPPED), None)
    text = b"" if listed is None else PhotoFile(SKIPPED, str(path), listed.offset_data, listed.size).read()
    own = Ledger("photos")
    own.came = photos
    for line in map(json.loads, text.splitlines()):
        own.skip(line["name"], line["reason"], line["detail"], line["where"])
    own.kept = photos - own.reasons.total()
    ledger.merge(own)


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
        bar.update()
        if isinstance(found, bytes):
            yield photo.name + SUFFIX, found
        else:
            log.warning("skipped %s: %s", photo, found)
            # without folders, so that the bytes are the same on every machine
            skipped.append(Skipped(photo.name, UNREADABLE, found, Path(photo.path).name))
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


def _rehearse(proposer: Proposer) -> None:
    """Loads the compiled kernels."""
    with suppress(InputError):  # proposals that are stored
        proposer(np.zeros((96, 128, 3), np.uint8), "")


def _work(photo: PhotoFile) -> bytes | str:
    """Returns the encoded proposals of a photo, or the reason if it cannot be read."""
    try:
        image = read_image(BytesIO(photo.read()), max_aspect=None)
        return encode(_proposer(image, photo.name))
    except InputError as error:
        return str(error)
