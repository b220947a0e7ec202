"""Shares the photos of a data set among processes, by the leases of shards: a part is some consecutive photos.

Each photo has a record, and the records of a part are a file. So a process that dies costs no photo that it has
answered, and the records are the same, whichever process computed them.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

from tqdm import tqdm

from grounding.runtime.artefacts import write_json_lines
from grounding.shards.addresses import InputShard
from grounding.shards.parts import OutputFolder, PhotoResult, Record
from grounding.shards.sharing import share_shards
from proposals.errors import InputError

SIZE = 20  # photos of a part: a process that waits for the last one waits for seconds
LEASE = 120.0  # seconds
DIGITS = 12  # of a digest, in the name of a folder

Photo = TypeVar("Photo")


def parts_of(photos: Sequence[Photo], size: int = SIZE) -> dict[str, Sequence[Photo]]:
    """Divides photos into parts.

    Args:
        photos: all photos.
        size: the number of photos of a part; the last one may have fewer.

    Returns:
        The photos of each part by its name, in order.
    """
    return {f"{first // size:06d}": photos[first : first + size] for first in range(0, len(photos), size)}


def parts_folder(folder: str | Path, identity: Record) -> Path:
    """The subfolder for the parts of a step with these settings; other settings have another one.

    Args:
        folder: the folder that all processes see.
        identity: what the records depend on: values that ``json`` can encode.
    """
    digest = sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    return Path(folder, f"parts-{digest[:DIGITS]}")


def share_photos(
    photos: Sequence[Photo],
    answer: Callable[[Photo], Record],
    folder: str | Path,
    identity: dict[str, Any],
    lease: float = LEASE,
) -> Iterator[Record]:
    """Answers photos together with all other processes that call this with the same arguments.

    What an earlier run has answered is not computed again. Any number of processes may call this at any time, on any
    machine that sees the folder; see :func:`grounding.shards.sharing.share_shards`.

    Args:
        photos: the same photos in all processes.
        answer: computes the record of a photo, values that ``json`` can encode.
        folder: the output folder. The records are in its subfolder :func:`parts_folder`.
        identity: what the records depend on, photos included.
        lease: seconds after which the part of a process that has died is taken over.

    Returns:
        The record of each photo, in order, when all are there.

    Raises:
        InputError: the folder cannot be written, or a file in it is damaged.
    """
    parts = parts_of(photos)
    records = OutputFolder(parts_folder(folder, identity), "records", ".jsonl", identity)
    shards = [InputShard(name, name) for name in parts]
    with tqdm(total=len(photos), desc="photos", unit="photo", disable=None) as bar:

        def work(shard: InputShard, check: Callable[[], None]) -> None:
            with closing(records.part(shard.name, shard.address)) as part:
                for photo in parts[shard.name][part.done :]:
                    record = answer(photo)
                    check()
                    part.add(PhotoResult(record))
                    bar.update()
                records.finish(part, write_json_lines)

        def tidy(shard: InputShard) -> None:
            records.part(shard.name, shard.address).remove()

        share_shards(shards, records.folder, lease, records.done, work, tidy)
    return _records(records, parts)


def _records(folder: OutputFolder, parts: dict[str, Sequence[Photo]]) -> Iterator[Record]:
    for name, photos in parts.items():
        path = folder.path(name)
        try:
            found = [json.loads(line) for line in path.read_bytes().splitlines()]
        except (OSError, ValueError, RecursionError) as error:
            raise InputError(f"{path} cannot be read ({error}): remove it and start again") from error
        if len(found) != len(photos):
            raise InputError(f"{path} has {len(found)} records instead of {len(photos)}: remove it and start again")
        yield from found
