"""Finds the tar shards that ``image=`` names: paths, patterns, URLs, commands, and lists of them."""

import csv
import glob
import json
import re
import shlex
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from grounding.photos import SUFFIXES
from grounding.runtime.hidden import visible
from grounding.runtime.ledger import show_names
from grounding.shards.fetching import MISSING, PIPE, WEB, file_system, is_remote
from proposals.errors import InputError

TAR = ".tar"
LISTS = (".txt", ".csv", ".tsv", ".jsonl")
COLUMNS = ("path", "url", "shard", "tar")  # of a table; the first that it has is used
BRACES = re.compile(r"\{[^{}]*(,|\.\.)[^{}]*\}")
RANGE = re.compile(r"\{(-?\d+)\.\.(-?\d+)(?:\.\.(-?\d+))?\}")
MAX_DIGITS = 18  # of a number in braces
MAX_TARS = 1_000_000  # of one text with braces


class InputShard(NamedTuple):
    """A tar of photos.

    Attributes:
        name: the name of its output; no other shard has it.
        address: a path, a URL, or ``pipe:`` and a command that writes the tar to its standard output.
    """

    name: str
    address: str

    @property
    def remote(self) -> bool:
        """Whether the tar must be fetched before it can be read."""
        return is_remote(self.address)


def find_shards(source: str | Sequence[str]) -> list[InputShard] | None:
    """Lists the tar shards that a source names.

    Args:
        source: a tar file; a folder with tar files and without photos; a pattern (``crawl/*.tar``) or braces
            (``crawl/{00000..00127}.tar``); a URL, also with braces, or, except for http, with a pattern; ``pipe:`` and
            a command; a table of such addresses: a text file with one on each line, or CSV, TSV or JSON lines with a
            column in ``COLUMNS``; or a list of all of these.

    Returns:
        The shards, in the order of the source; None if the source does not name tar shards.

    Raises:
        InputError: a pattern matches nothing, a table or address cannot be read, or an address occurs twice.
    """
    if not isinstance(source, str):
        given = [str(part) for part in source]
        found = [_expand(part) for part in given]
        if not any(addresses is not None for addresses in found):
            return None
        other = [part for part, addresses in zip(given, found, strict=True) if addresses is None]
        if other:
            raise InputError(f"{other[0]} names no tar file, but other parts of image= do: ground them separately")
        return _named([address for addresses in found for address in addresses or ()])
    addresses = _expand(source)
    return None if addresses is None else _named(addresses)


def _expand(source: str) -> list[str] | None:
    """The addresses that one text names; None if it names no tars."""
    if is_remote(source):
        return [match for part in _braces(source) for match in _remote(part)] if _is_tar(source) else None
    try:
        path = Path(source)
        folder, exists = path.is_dir(), path.exists()
    except OSError:  # too long for a path
        return None
    if folder:
        return _folder(path)
    if exists and path.suffix.lower() in LISTS:
        return _table(path)
    if not source.lower().endswith(TAR):
        return None
    return [source] if exists else [match for part in _braces(source) for match in _local(part)]


def _is_tar(source: str) -> bool:
    return source.startswith(PIPE) or urlsplit(source).path.lower().endswith((TAR, ".tar}")) or "{" in source


def _braces(source: str) -> Iterable[str]:
    if not BRACES.search(source):
        return [source]
    try:
        from braceexpand import braceexpand  # comes with webdataset
    except ImportError as error:
        raise InputError(MISSING) from error
    too_many = InputError(f"{source[:200]} names more than {MAX_TARS:,} tars: write a shorter range")
    if any(map(_is_long, RANGE.finditer(source))):
        raise too_many
    try:
        expanded = list(islice(braceexpand(source), MAX_TARS + 1))
    except (ValueError, RecursionError) as error:  # a brace is not closed
        cure = "write braces as in {00000..00127} or {a,b}"
        raise InputError(f"{source[:200]} cannot be read ({str(error)[:200]}): {cure}") from error
    if len(expanded) > MAX_TARS:
        raise too_many
    return expanded


def _is_long(found: re.Match[str]) -> bool:
    """Whether a range in braces has too many numbers: braceexpand makes a list of each range."""
    numbers = [number or "1" for number in found.groups()]
    if max(map(len, numbers)) > MAX_DIGITS:
        return True
    first, last, step = map(int, numbers)
    return abs(last - first) // max(abs(step), 1) >= MAX_TARS


def _local(pattern: str) -> list[str]:
    if not glob.has_magic(pattern) or Path(pattern).exists():
        return [pattern]
    matches = sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207  Path.glob accepts no absolute pattern
    if not matches:
        raise InputError(f"{pattern}: no tar file matches this pattern")
    return matches


def _remote(address: str) -> list[str]:
    if address.startswith((PIPE, *WEB)) or "*" not in address:
        return [address]
    system = file_system(address)
    scheme = address.partition("://")[0]
    try:
        matches = sorted(str(match) for match in system.glob(address))
    except Exception as error:  # each storage raises exceptions of its own
        raise InputError(f"{address} cannot be listed: {str(error) or type(error).__name__}") from error
    if not matches:
        raise InputError(f"{address}: no tar file matches this pattern")
    return [f"{scheme}://{match.lstrip('/')}" for match in matches]


def _folder(folder: Path) -> list[str] | None:
    """The tars of a folder; None if it has none, or photos beside them, which are the photos of an album then."""
    if any(path.suffix.lower() in SUFFIXES for path in folder.iterdir()):
        return None
    return [str(path) for path in visible(folder.glob(f"*{TAR}"))] or None


def _table(path: Path) -> list[str] | None:
    """The addresses that a table lists; None if it does not look like a table of tars."""
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read ({error}): list one tar file on each line, in UTF-8") from error
    listed = [text for text in _column(path, lines) if text.strip()]
    if not listed:
        raise InputError(f"{path} lists no tar file: give one on each line, or a column {', '.join(COLUMNS)}")
    addresses = [text if is_remote(text) else str(path.parent / text) for text in listed]
    found = [(text, _expand(text)) for text in addresses]
    if wrong := [text for text, tars in found if tars is None]:
        raise InputError(
            f"{path}: {show_names(wrong[:1])} is no tar file: list tar files, or give "
            "a photo first and then the file of phrases"
        )
    return [address for _, tars in found for address in tars or ()]


def _column(path: Path, lines: list[str]) -> list[str]:
    suffix = path.suffix.lower()
    if suffix == ".txt":
        return [line.strip() for line in lines if not line.startswith("#")]
    if suffix == ".jsonl":
        try:
            rows = [json.loads(line) for line in lines if line.strip()]
        except (ValueError, RecursionError) as error:
            raise InputError(f"{path} is not JSON lines ({error})") from error
    else:
        rows = list(csv.DictReader(lines, delimiter="\t" if suffix == ".tsv" else ","))
    first = rows[0] if rows and isinstance(rows[0], dict) else {}
    column = next((name for name in COLUMNS if name in first), None)
    return [] if column is None else [str(row.get(column) or "") for row in rows if isinstance(row, dict)]


def _named(addresses: list[str]) -> list[InputShard]:
    """Gives each shard the shortest end of its path that no other shard has."""
    repeated = [address for address, count in Counter(addresses).items() if count > 1]
    if repeated:
        raise InputError(f"{repeated[0]} is given twice: its photos would be answered twice")
    parts = [_parts(address, number) for number, address in enumerate(addresses)]
    for length in range(1, max(map(len, parts), default=1) + 1):
        names = ["-".join(part[-length:]) for part in parts]
        if len(set(names)) == len(names):
            return [InputShard(name, address) for name, address in zip(names, addresses, strict=True)]
    names = [f"{number:06d}-{part[-1]}" for number, part in enumerate(parts)]
    return [InputShard(name, address) for name, address in zip(names, addresses, strict=True)]


def _parts(address: str, number: int) -> list[str]:
    """The parts of an address from which a name is made."""
    path = _tar_of_command(address, number) if address.startswith(PIPE) else address
    path = urlsplit(path).netloc + urlsplit(path).path if "://" in path else path
    path = path[: -len(TAR)] if path.lower().endswith(TAR) else path
    safe = [re.sub(r"[^\w.=-]+", "_", part).lstrip(".") for part in path.split("/")]
    return [part for part in safe if part] or [f"shard-{number:06d}"]


def _tar_of_command(command: str, number: int) -> str:
    try:
        words = shlex.split(command.removeprefix(PIPE))
    except ValueError:
        words = []
    return next((word for word in words if word.lower().endswith(TAR)), f"shard-{number:06d}")
