"""The step ``propose``: photos -> shards of proposals, on all cores and machines.

    grounding step=propose images=FOLDER
    torchrun --nproc-per-node 4 -m grounding step=propose images=FOLDER     # or srun: the ranks share the shards

Each input shard becomes one output shard, whole or not at all, so that a run that is stopped goes on where it was when
it is started again. Of a photo only its bytes' place travels to a worker and only its proposals come back: memory does
not grow with their number.
"""

import json
import logging
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from glob import escape
from hashlib import sha256
from io import BytesIO
from pathlib import Path

from tqdm import tqdm

from grounding.images import read_image
from grounding.photos import PhotoFile, PhotoShard, photo_shards
from grounding.runtime.artefacts import atomic_path
from grounding.runtime.ranks import cores, rank_of
from grounding.runtime.version import VERSION
from grounding.runtime.workers import in_order, worker_pool
from proposals import InputError, Proposer
from proposals.provenance import settings_of
from proposals.shards import ABOUT, SUFFIX, encode, read_about, write_shard

log = logging.getLogger(__name__)

SKIPPED = "skipped.jsonl"
AHEAD = 4  # photos handed out before they are wanted, for each worker


@dataclass
class Tally:
    """What became of the photos: how many, their shards' bytes, and why some were skipped."""

    photos: int = 0
    bytes: int = 0
    done_before: int = 0
    skipped: list[dict[str, str]] = field(default_factory=list)


def propose(
    source: str,
    proposer: Proposer,
    output: str,
    split: str | None = None,
    photos: int = 1000,
    workers: int | None = None,
) -> dict:
    """Writes the proposals of all photos, ``SHARD.tar`` a shard, for ``proposals=shards`` to read.

    The last file of a shard is ``skipped.jsonl``, the photos that could not be read and why.

    Args:
        source, split, photos: see ``grounding.photos.photo_shards``.
        output: the folder that is written to; workers: processes; None for as many as there are cores.

    Returns:
        Of this rank: photos, skipped, bytes, and shards that were there before.

    Raises:
        InputError: no photos; ``output`` has shards of other photos or settings, or is where the photos are; a worker
            was killed.
    """
    rank, world = rank_of()
    folder = Path(source).resolve()
    if Path(output).resolve() == (folder.parent if folder.is_file() else folder):
        raise InputError(f"output={output} is where the photos are: their shards need a folder of their own")
    mine = photo_shards(source, split, photos)[rank::world]
    workers = cores() if workers is None else workers
    if workers < 1:
        raise InputError(f"workers={workers} must be 1 or more")
    tally, start = Tally(), time.perf_counter()
    with worker_pool(workers, _begin, proposer) as pool, tqdm(unit="photo", disable=None) as bar:
        for i, shard in enumerate(mine):
            bar.set_description(f"shard {i + 1} of {len(mine)}")
            _propose_shard(shard, proposer, Path(output, f"{shard.name}.tar"), pool, workers, tally, bar)
    return _report(tally, time.perf_counter() - start)


def _report(tally: Tally, seconds: float) -> dict:
    if tally.done_before:
        log.info("%d shards were there before", tally.done_before)
    if tally.photos:
        each = f"{seconds / tally.photos:.3g} s and {tally.bytes / tally.photos / 1000:.3g} KB a photo"
        print(f"{tally.photos} photos, {len(tally.skipped)} skipped, {tally.bytes / 1e6:.3g} MB, {each}")
    return {
        "photos": tally.photos,
        "skipped": tally.skipped,
        "bytes": tally.bytes,
        "shards_before": tally.done_before,
    }


def _propose_shard(
    shard: PhotoShard, proposer: Proposer, path: Path, pool: ProcessPoolExecutor, workers: int, tally: Tally, bar: tqdm
) -> None:
    about = _about(shard, proposer)
    if path.exists():
        if read_about(path) != about:
            raise InputError(f"{path} is of other photos or settings: choose another folder, or remove it")
        tally.done_before += 1
        return
    for left in path.parent.glob(f".{escape(path.name)}.*.part"):  # of a run that was killed
        left.unlink(missing_ok=True)
    with atomic_path(path) as aside:
        write_shard(aside, _files(about, in_order(pool, _work, shard.photos(), workers * AHEAD), tally, bar))
        tally.bytes += aside.stat().st_size


def _about(shard: PhotoShard, proposer: Proposer) -> dict:
    """What a shard follows from, but for the photos' pixels."""
    names = [photo.name for photo in shard.photos()]
    if not names:
        raise InputError(f"{shard.tar} holds no photo: take it out of the folder, or name a folder of photos alone")
    return {
        "grounding": VERSION,
        "proposer": settings_of(proposer),
        "photos": len(names),
        "names": sha256("\n".join(names).encode("utf-8", "surrogateescape")).hexdigest(),
    }


def _files(
    about: dict, done: Iterable[tuple[PhotoFile, bytes | str]], tally: Tally, bar: tqdm
) -> Iterator[tuple[str, bytes]]:
    """The files of a shard; a photo that came back as a reason is skipped."""
    yield ABOUT, json.dumps(about, sort_keys=True).encode()
    skipped = []
    for photo, found in done:
        tally.photos += 1
        bar.update()
        if isinstance(found, bytes):
            yield photo.name + SUFFIX, found
        else:
            log.warning("skipped %s: %s", photo, found)
            skipped.append({"photo": photo.name, "reason": found})
    tally.skipped += skipped
    yield SKIPPED, "".join(json.dumps(line) + "\n" for line in skipped).encode()


def _begin(proposer: Proposer) -> None:
    """A worker's start."""
    global _proposer
    _proposer = proposer
    for part in (proposer, getattr(proposer, "segments", None)):
        if hasattr(part, "threads"):
            part.threads = 1  # each core has a worker of its own


def _work(photo: PhotoFile) -> bytes | str:
    """A photo's proposals, encoded, or why there are none."""
    try:
        image = read_image(BytesIO(photo.read()), max_aspect=None)
        return encode(_proposer(image, photo.name))
    except InputError as error:
        return str(error)
