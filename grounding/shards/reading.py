"""Reads the photos of a WebDataset tar, through the package ``webdataset``.

Every photo of the tar comes out once, or is named with the reason why it does not.
"""

import json
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from grounding.photos import MAX_BYTES, SUFFIXES
from grounding.runtime.hidden import is_hidden
from grounding.runtime.ledger import Skipped
from grounding.shards.fetching import MISSING
from grounding.text.chunks import noun_phrases
from proposals.errors import InputError
from proposals.shards import members

DAMAGED = "in the damaged part of a tar"
REPEATED = "of a key that repeats"
HIDDEN = "hidden"
LINKED = "links or sparse files"
LARGE = "too large"
WITHOUT_PHRASES = "without phrases"
TEXTS = frozenset({".json", ".txt"})
MAX_TEXT = 1 << 20  # bytes of the JSON or text of a photo
CAPTION = "caption"


class ShardPhoto(NamedTuple):
    """A photo of a tar, and the texts beside it.

    Attributes:
        name: the key of its sample; with several photos in the sample, the key and the photo's field, as ``1.left``.
        data: the encoded photo.
        texts: the contents of the sample's ``json`` and ``txt``.
    """

    name: str
    data: bytes
    texts: dict[str, bytes]

    def phrases(self, field: str) -> list[str]:
        """The photo's own phrases.

        Args:
            field: a field of the sample's JSON: a list of phrases, or a sentence, whose noun phrases are used. If there
                is no field ``caption``, the text file of the sample is the caption.

        Returns:
            The phrases without those that are blank, each once.

        Raises:
            InputError: the JSON is broken, or there is no phrase.
        """
        value = self._value(field)
        found = noun_phrases(value) if isinstance(value, str) else value
        if not isinstance(found, list):
            raise InputError(f"has no text or list {field!r} in its JSON")
        phrases = list(dict.fromkeys(text for text in found if isinstance(text, str) and text.strip()))
        if not phrases:
            raise InputError(f"its {field!r} has no phrase")
        return phrases

    def _value(self, field: str) -> Any:
        values: Any = {}
        if "json" in self.texts:
            try:
                values = json.loads(self.texts["json"])
            except (ValueError, RecursionError) as error:
                raise InputError(f"its JSON is broken: {error}") from error
        value = values.get(field) if isinstance(values, dict) else None
        if value is None and field == CAPTION and "txt" in self.texts:
            return self.texts["txt"].decode("utf-8-sig", "replace")
        return value


def check_installed() -> None:
    """Checks that webdataset is installed.

    Raises:
        InputError: it is not.
    """
    if find_spec("webdataset") is None:
        raise InputError(MISSING)


class _Listed(NamedTuple):
    """A photo in the headers of a tar.

    Attributes:
        name: its path in the tar.
        reason: why it cannot be read; "" if it can.
    """

    name: str
    reason: str


def read_shard(path: str | Path, where: str = "") -> Iterator[ShardPhoto | Skipped]:
    """Reads the photos of a tar, one sample in memory at a time.

    Args:
        path: an uncompressed tar file.
        where: the name of the tar in the list of what is skipped; by default the path.

    Yields:
        The photos in the order of the tar, then what is skipped: photos that webdataset leaves out, and a damaged end.

    Raises:
        InputError: the tar is damaged before its first photo.
    """
    where = where or str(path)
    waiting, unread, damage = _headers(path)
    names = set[str]()
    for sample in _samples(path, unread):
        for photo in _photos(sample, waiting):
            distinct = photo if photo.name not in names else photo._replace(name=f"{photo.name} ({len(names)})")
            names.add(distinct.name)
            yield distinct
    for listed in waiting.values():
        hidden = is_hidden(PurePosixPath(listed.name)) or not damage  # webdataset leaves out names without a key
        yield Skipped(listed.name, listed.reason or (HIDDEN if hidden else DAMAGED), "", where)
    if damage:
        yield Skipped(where, DAMAGED, f"{damage}; the photos before it are kept", where)


def _headers(path: str | Path) -> tuple[dict[str, _Listed], set[str], str]:
    """The photos of a tar by key and field, the files that are not read, and the damage; "" if there is none."""
    photos: dict[str, _Listed] = {}
    unread: set[str] = set()
    try:
        for member in members(path, links=True):
            suffix = PurePosixPath(member.name).suffix.lower()
            if suffix in SUFFIXES:
                linked = not member.isreg() or member.issparse()
                reason = LINKED if linked else LARGE if member.size > MAX_BYTES else ""
                place = _place(member.name)
                reason = REPEATED if place in photos else reason
                photos[f"{place} {len(photos)}" if place in photos else place] = _Listed(member.name, reason)
            if member.size > (MAX_BYTES if suffix in SUFFIXES else MAX_TEXT) or suffix not in SUFFIXES | TEXTS:
                unread.add(member.name)
    except InputError as error:
        if not photos:
            raise
        return photos, unread, str(error).removeprefix(f"{path} is ")
    return photos, unread, ""


def _place(name: str) -> str:
    """The key and the field of a file, as webdataset makes them: the field in lower case."""
    folder, slash, file = name.rpartition("/")
    key, dot, field = file.partition(".")
    return f"{folder}{slash}{key}{dot}{field.lower()}"


def _samples(path: str | Path, unread: set[str]) -> Iterator[dict[str, Any]]:
    """The samples of a tar, without the files that are not read."""
    from webdataset import tariterators

    def go_on(_: Exception) -> bool:
        return True  # photos that are missing at the end are named

    with Path(path).open("rb") as stream:
        source = [{"url": str(path), "stream": stream}]
        files = tariterators.tar_file_expander(source, go_on, select_files=lambda name: name not in unread)
        yield from tariterators.group_by_keys(files, handler=go_on)


def _photos(sample: dict[str, Any], waiting: dict[str, _Listed]) -> Iterator[ShardPhoto]:
    """The photos of a sample; they are removed from those that are waited for."""
    texts = {kind[1:]: sample[kind[1:]] for kind in sorted(TEXTS) if kind[1:] in sample}
    for field in [field for field in sample if f".{field.rpartition('.')[2]}" in SUFFIXES]:
        place = f"{sample['__key__']}.{field}"
        if place not in waiting or waiting[place].reason:  # a key that came before
            continue
        del waiting[place]
        part = field.rpartition(".")[0]
        yield ShardPhoto(f"{sample['__key__']}.{part}" if part else sample["__key__"], sample[field], texts)
