"""Joins items with the same key, wherever they stand, in bounded memory."""

import heapq
import json
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from itertools import chain, count
from tempfile import TemporaryFile
from typing import IO, Any
from zlib import crc32

from proposals.errors import InputError

IN_MEMORY = 1 << 28  # bytes, estimated
EACH = 300  # bytes of an item in addition to its JSON
PARTS = 128  # temporary files; each is read into memory alone

_Group = tuple[int, str, list[Any]]  # number of its first item, its key, its values


def grouped(items: Iterable[tuple[str, Any]], in_memory: int | None = None) -> Iterator[tuple[str, list[Any]]]:
    """Groups items by key.

    Many items go through temporary files (in ``TMPDIR``): each key belongs to one of ``PARTS`` files, each file is
    grouped alone, and the results are merged.

    Args:
        items: pairs of key and value; the values must be JSON values.
        in_memory: bytes of items that are kept in memory, estimated. None: ``IN_MEMORY``.

    Yields:
        Each key once, in the order of their first items, with its values in order.

    Raises:
        InputError: the temporary files cannot be written.
    """
    groups: dict[str, list[Any]] = {}
    rest, size, limit = iter(items), 0, IN_MEMORY if in_memory is None else in_memory
    for key, value in rest:
        groups.setdefault(key, []).append(value)
        size += EACH + len(key) + _length(value)
        if size > limit:
            yield from _with_files(chain(_flat(groups), rest))
            return
    yield from groups.items()


def _length(value: Any) -> int:
    if isinstance(value, str):
        return len(value)
    return sum(map(_length, value)) if isinstance(value, list | tuple) else 8


def _flat(groups: dict[str, list[Any]]) -> Iterator[tuple[str, Any]]:
    """The items of groups; a group is removed when it is read, to free its memory."""
    while groups:
        key = next(iter(groups))
        yield from ((key, value) for value in groups.pop(key))


def _with_files(items: Iterator[tuple[str, Any]]) -> Iterator[tuple[str, list[Any]]]:
    with ExitStack() as stack:
        try:
            files = [stack.enter_context(TemporaryFile()) for _ in range(PARTS)]
            number = count()
            for key, value in items:
                at = crc32(key.encode("utf-8", "surrogatepass")) % PARTS
                files[at].write(json.dumps([next(number), key, value]).encode() + b"\n")
            merged = [_group_file(file) for file in files]
            yield from ((key, values) for _, key, values in heapq.merge(*merged, key=lambda group: group[0]))
        except OSError as error:
            reason = error.strerror or error
            raise InputError(f"a temporary file cannot be written ({reason}): set TMPDIR to a larger disk") from error


def _group_file(file: IO[bytes]) -> Iterator[_Group]:
    """Groups the items of a file, in place, and reads the groups."""
    groups: dict[str, _Group] = {}
    file.seek(0)
    for line in file:
        number, key, value = json.loads(line)
        groups.setdefault(key, (number, key, []))[2].append(value)
    file.seek(0)
    file.truncate()
    file.writelines(json.dumps(group).encode() + b"\n" for group in groups.values())
    del groups
    file.seek(0)
    return map(json.loads, file)
