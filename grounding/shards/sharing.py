"""Shares shards among processes: each takes a shard that is free, works on it, and takes the next one."""

import json
import logging
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile

from grounding.runtime.artefacts import write_json
from grounding.runtime.ranks import rank_of
from grounding.shards.addresses import InputShard
from grounding.shards.leases import LeaseFolder, LostLeaseError
from proposals.errors import InputError

log = logging.getLogger(__name__)

Work = Callable[[InputShard, Callable[[], None]], None]


class UnreadableShardError(InputError):
    """A shard cannot be fetched or read. The others are not affected."""


@dataclass(frozen=True)
class ShardProgress:
    """What became of the shards.

    Attributes:
        done: the names of those whose results exist.
        failed: the names of those that could not be read, with the reason. The next run tries them again.
    """

    done: list[str]
    failed: dict[str, str]


def share_shards(
    shards: Sequence[InputShard],
    folder: Path,
    lease: float,
    done: Callable[[str], bool],
    work: Work,
    tidy: Callable[[InputShard], object] = lambda _: None,
) -> ShardProgress:
    """Works on shards until the results of all exist, or could not be computed.

    Any number of processes may call it for the same folder, on any machine that sees it, at any time. If all shards
    that are left are held by others, it waits for them, and takes over the shards of those that die.

    Args:
        shards: all shards.
        folder: the output folder; the leases are in its subfolder ``leases``.
        lease: seconds after which the shard of a process that has died is taken over.
        done: whether the results of a shard exist.
        work: computes the results of a shard. It is called with the shard, and with a function that raises
            ``LostLeaseError`` if another process has taken over. With an ``UnreadableShardError`` the shard has failed.
        tidy: removes the temporary files of a shard whose results exist. It is called if a process was killed after it
            had written the results.

    Returns:
        What became of the shards.

    Raises:
        InputError: the folder cannot be written.
    """
    leases = LeaseFolder(folder / "leases", lease)
    start = _file_time(leases.folder)
    left = leases.names()
    for shard in shards:
        if shard.name in left and done(shard.name) and (expired := leases.claim(shard.name)):
            tidy(shard)
            expired.release()
    failed: dict[str, str] = {}
    rank, world = rank_of()
    first = rank * len(shards) // world  # ranks begin at different shards, so that they seldom want the same one
    waiting = [*shards[first:], *shards[:first]]
    while waiting:
        before = len(waiting)
        waiting = [shard for shard in waiting if not _try(shard, leases, start, failed, done, work)]
        if waiting and len(waiting) == before:
            time.sleep(min(lease / 4, 10))
    return ShardProgress([shard.name for shard in shards if shard.name not in failed], failed)


def _try(
    shard: InputShard,
    leases: LeaseFolder,
    start: float,
    failed: dict[str, str],
    done: Callable[[str], bool],
    work: Work,
) -> bool:
    """Works on a shard if it is free; returns whether nothing is left to do for it."""
    note = leases.folder / f"{shard.name}.failed.json"
    if done(shard.name):
        return True
    if reason := _failure(note, start):
        failed[shard.name] = reason
        return True
    lease = leases.claim(shard.name)
    if lease is None:
        return False
    try:
        if not done(shard.name):
            work(shard, lease.check)
        note.unlink(missing_ok=True)
    except LostLeaseError:
        log.warning("%s was taken over by another process, because this one was stopped for too long", shard.name)
        return False
    except UnreadableShardError as error:
        log.warning("%s failed: %s", shard.name, error)
        failed[shard.name] = str(error)
        write_json(note, {"shard": shard.address, "reason": str(error)})
    finally:
        lease.release()
    return True


def _file_time(folder: Path) -> float:
    """The time that a file has which is written to a folder now. Another machine's clock may differ from this one's."""
    try:
        with TemporaryFile(dir=folder) as file:
            return os.fstat(file.fileno()).st_mtime
    except OSError as error:
        raise InputError(f"{folder} cannot be written ({error.strerror or error})") from error


def _failure(note: Path, start: float) -> str:
    """Why a shard failed since this process began; "" if it did not."""
    try:
        if note.stat().st_mtime < start:  # of an earlier run
            return ""
        return str(json.loads(note.read_bytes())["reason"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""
