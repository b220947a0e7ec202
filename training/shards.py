"""Shards: the format of the training data, and its reader.

A folder contains

- ``vocabulary.txt``: a line ``tag<TAB>photos`` for each tag, the most frequent first;
- ``train-000000.tar``: the photos as WebDataset, ``KEY.jpg`` and ``KEY.json``;
- ``train-000000.npz``: the index of this tar: where the bytes of each photo are, and its tags, so that a training can
  read photos in any order and parses no JSON;
- ``val-000000.tar`` and ``val-000000.npz``: the photos for validation;
- ``skipped.jsonl``: the samples that were skipped, and why;
- ``shards.json``: the settings, the list of shards and the statistics. It is written last, so a folder with it is
  complete.

Nothing is unpickled. The reader checks everything, because a folder may be damaged or hostile.
"""

import json
import re
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from io import BytesIO
from math import prod
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import ZIP_STORED, ZipFile

import numpy as np

from grounding.text.vocabulary import Vocabulary
from proposals.errors import InputError

FORMAT = "grounding-shards-1"
SHARDS, VOCABULARY = "shards.json", "vocabulary.txt"
NAME = re.compile(r"(?:train|val)-[0-9]{6,12}\.tar")
BLOCK = 512  # bytes, of a tar file
ARRAYS = {"offsets": np.int64, "sizes": np.int32, "starts": np.int64, "tags": np.int32, "agree": np.uint8}
PLACES = {"places": np.uint16}  # missing in shards of earlier versions
RUN_AGAIN = "run grounding step=shards again, it makes only what is missing"


class Shard(NamedTuple):
    """A tar of photos.

    Attributes:
        name: name of the tar.
        photos: number of photos.
        bytes: size of the tar.
    """

    name: str
    photos: int
    bytes: int


@dataclass(frozen=True)
class ShardIndex:
    """Where the photos of a tar are, and their tags.

    Attributes:
        offsets: ``(n,)`` int64, where each JPEG begins in the tar.
        sizes: ``(n,)`` int32, bytes of each JPEG.
        starts: ``(n + 1,)`` int64; the tags of photo i are ``tags[starts[i]:starts[i + 1]]``.
        tags: ``(T,)`` int32, indices in the vocabulary; the most certain tag of a photo comes first.
        agree: ``(T,)`` uint8, number of the photo's captions that contain the tag; 1 for lists of tags.
        places: ``(T,)`` uint16, the tag's place in the photo's list of tags from 0, tags outside the vocabulary
            included; for captions its place among the photo's tags here. None in shards of earlier versions.
    """

    offsets: np.ndarray
    sizes: np.ndarray
    starts: np.ndarray
    tags: np.ndarray
    agree: np.ndarray
    places: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.offsets)

    def order(self, count_unknown: bool = False) -> np.ndarray:
        """The place of each tag among the tags of its photo, from 0, so that "< N" selects the first N.

        Args:
            count_unknown: whether tags outside the vocabulary count, too.

        Returns:
            ``(T,)`` integers.

        Raises:
            InputError: the shards do not say where tags outside the vocabulary were.
        """
        if not count_unknown:
            return self._ranks
        if self.places is None:
            cure = "make them again in another folder, or set step.count_unknown_tags=false"
            raise InputError(f"the shards are of an earlier version and do not say where a tag was written: {cure}")
        return self.places

    @cached_property
    def _ranks(self) -> np.ndarray:
        return np.arange(len(self.tags)) - np.repeat(self.starts[:-1], np.diff(self.starts))


class Shards:
    """A folder that ``grounding step=shards`` wrote, opened for reading.

    Args:
        root: the folder.
        keep: number of photos whose indices are kept in memory; the indices used last are kept.

    Attributes:
        train: the shards for training, in the order of their names.
        val: the shards for validation, in the order of their names.
        settings: ``settings`` of ``shards.json``.
        stats: ``stats`` of ``shards.json``.

    Raises:
        InputError: the folder does not exist or is incomplete, a tar is missing or has another size, or the vocabulary
            is not the one that the shards were made with.
    """

    def __init__(self, root: str | Path, keep: int = 1 << 17):
        self.root, self._keep = Path(root), keep
        self._indices: OrderedDict[str, ShardIndex] = OrderedDict()
        about = read_folder(self.root / SHARDS)
        self.train, self.val = list_shards(about, "train", self.root), list_shards(about, "val", self.root)
        self.settings: dict[str, Any] = about.get("settings", {})
        self.stats: dict[str, Any] = about.get("stats", {})
        self._pairs = read_vocabulary(self.root / VOCABULARY, about.get("vocabulary"))
        self._by_name = {shard.name: shard for shard in (*self.train, *self.val)}
        for shard in self._by_name.values():
            _check_size(self.root / shard.name, shard.bytes)

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """The tags, the most frequent first.

        Raises:
            InputError: a line is not a tag.
        """
        return Vocabulary(tuple(tag for tag, _ in self._pairs))

    @property
    def counts(self) -> np.ndarray:
        """``(tags,)`` int64, number of training photos with each tag.

        The tags were counted in the texts before the photos were opened. So the counts differ a little from the sums
        over the indices: by photos that are broken, and by tags whose words are apart in a caption (``snow covered``).
        """
        return np.array([count for _, count in self._pairs], np.int64)

    def used_counts(self, first: int | None = None, count_unknown: bool = False) -> np.ndarray:
        """``(tags,)`` int64, number of training photos for which a training uses each tag.

        Args:
            first: use only the first tags of each photo. None: all; the counts are those of the vocabulary's file.
            count_unknown: see :meth:`ShardIndex.order`.

        Raises:
            InputError: an index is damaged, or does not have the places of the tags.
        """
        if first is None:
            return self.counts
        total = np.zeros(len(self._pairs), np.int64)
        for shard in self.train:
            index = read_index(index_path(self.root / shard.name), shard, len(total))
            total += np.bincount(index.tags[index.order(count_unknown) < first], minlength=len(total))
        return total

    def index(self, name: str) -> ShardIndex:
        """The index of a shard, from memory if it was used lately.

        Args:
            name: name of the shard.

        Returns:
            The index.

        Raises:
            InputError: there is no such shard, or its index is missing or damaged.
        """
        if name in self._indices:
            self._indices.move_to_end(name)
            return self._indices[name]
        if name not in self._by_name:
            raise InputError(f"{self.root} has no shard {name}")
        self._indices[name] = read_index(index_path(self.root / name), self._by_name[name], len(self._pairs))
        while len(self._indices) > 1 and sum(map(len, self._indices.values())) > self._keep:
            self._indices.popitem(last=False)
        return self._indices[name]

    def read(self, name: str, row: int) -> bytes:
        """Reads the JPEG of a photo.

        Args:
            name: name of the shard.
            row: row of the photo in the shard, from 0.

        Returns:
            The bytes of the JPEG.

        Raises:
            InputError: the tar is missing or truncated.
        """
        return read_photo_bytes(self.root, name, self.index(name), row)


def read_photo_bytes(root: str | Path, name: str, index: ShardIndex, row: int) -> bytes:
    """Reads the JPEG of a photo.

    Args:
        root: the folder.
        name: name of the shard.
        index: index of the shard.
        row: row of the photo in the shard, from 0.

    Returns:
        The bytes of the JPEG.

    Raises:
        InputError: the tar is missing or truncated.
    """
    path = Path(root, name)
    try:
        with path.open("rb", buffering=0) as file:
            file.seek(int(index.offsets[row]))
            data = file.read(int(index.sizes[row]))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
    if len(data) < index.sizes[row]:
        raise InputError(f"{path} is truncated: {RUN_AGAIN}")
    return data


def index_path(tar: Path) -> Path:
    """The path of the index of a tar."""
    return tar.with_suffix(".npz")


def read_vocabulary(path: Path, digest: str | None) -> list[tuple[str, int]]:
    """Reads the tags and their counts.

    Args:
        path: ``vocabulary.txt``.
        digest: SHA-256 that the file must have, in hexadecimal.

    Returns:
        Pairs of tag and count.

    Raises:
        InputError: the file is missing, has another digest, or is not a vocabulary.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror or error}): {RUN_AGAIN}") from error
    if sha256(data).hexdigest() != digest:
        raise InputError(f"{path} is not the vocabulary that the shards were made with: remove it and {RUN_AGAIN}")
    try:
        pairs = [line.split("\t") for line in data.decode("utf-8").split("\n")[:-1]]
        return [(tag, int(count)) for tag, count in pairs]
    except ValueError as error:
        raise InputError(f"{path} is not a vocabulary ({error}): make the shards again") from error


def read_index(path: Path, shard: Shard, tags: int) -> ShardIndex:
    """Reads the index of a shard.

    Args:
        path: the index.
        shard: its shard, as ``shards.json`` lists it.
        tags: size of the vocabulary.

    Returns:
        The index; all offsets are inside the tar and all tags in the vocabulary.

    Raises:
        InputError: the index is missing or damaged.
    """
    try:
        arrays = _load(path, tuple(ARRAYS), tuple(PLACES))
        for name, array in arrays.items():
            if array.dtype != (ARRAYS | PLACES)[name] or array.ndim != 1:
                raise ValueError(f"{name} has shape {array.shape} and type {array.dtype}")
        index = ShardIndex(**arrays)
        _check_index(index, shard, tags)
        return index
    except Exception as error:  # zipfile and NumPy may raise any exception on a hostile file
        raise InputError(f"{path} is not an index of {shard.name} ({error}): remove it and {RUN_AGAIN}") from error


def read_about(path: Path) -> dict[str, Any]:
    """Reads the JSON values that an index holds in addition to its arrays.

    Args:
        path: the index.

    Returns:
        The values.

    Raises:
        InputError: the index is missing or damaged.
    """
    try:
        return json.loads(_load(path, ("about",))["about"].tobytes())
    except Exception as error:  # as above
        raise InputError(f"{path} is not an index of a shard ({error})") from error


def _check_index(index: ShardIndex, shard: Shard, tags: int) -> None:
    if not shard.photos == len(index) == len(index.sizes) == len(index.starts) - 1:
        raise ValueError(f"{len(index)} offsets, {len(index.sizes)} sizes for {shard.photos} photos")
    # subtracted, because a sum of hostile numbers may overflow
    free = shard.bytes - index.offsets
    if (index.offsets < 0).any() or (index.sizes < 0).any() or (free < index.sizes).any():
        raise ValueError(f"a photo is outside the {shard.bytes} bytes")
    if index.starts[0] != 0 or index.starts[-1] != len(index.tags) or (np.diff(index.starts) < 0).any():
        raise ValueError("starts does not divide the tags")
    if len(index.agree) != len(index.tags):
        raise ValueError(f"{len(index.tags)} tags, {len(index.agree)} counts of captions")
    if index.places is not None and len(index.places) != len(index.tags):
        raise ValueError(f"{len(index.tags)} tags, {len(index.places)} places")
    if len(index.tags) and (index.tags.min() < 0 or index.tags.max() >= tags):
        raise ValueError(f"a tag is not in the vocabulary of {tags}")


def _load(path: Path, names: Sequence[str], optional: Sequence[str] = ()) -> dict[str, np.ndarray]:
    """Arrays of an uncompressed npz; so no array is larger than the file."""
    with ZipFile(path) as archive:
        names = [*names, *(name for name in optional if f"{name}.npy" in archive.namelist())]
        entries = [archive.getinfo(f"{name}.npy") for name in names]
        if any(entry.compress_type != ZIP_STORED or entry.file_size > path.stat().st_size for entry in entries):
            raise ValueError("an array is compressed")
        return {name: _to_array(archive.read(entry)) for name, entry in zip(names, entries, strict=True)}


def _to_array(data: bytes) -> np.ndarray:
    header = BytesIO(data)
    if np.lib.format.read_magic(header) != (1, 0):
        raise ValueError("an array has a header of another version")
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(header)
    # integers only: this excludes pickled objects
    if fortran or dtype.kind not in "iu" or prod(shape) * dtype.itemsize != len(data) - header.tell():
        raise ValueError(f"an array of {shape} {dtype} in {len(data) - header.tell()} bytes")
    return np.frombuffer(data, dtype, offset=header.tell()).reshape(shape)


def read_folder(path: Path) -> dict[str, Any]:
    """Reads ``shards.json``, at a path; an ``InputError`` says that it is missing, damaged or of another format."""
    if not path.is_file():
        raise InputError(f"{path.parent} has no complete shards, because {SHARDS} is missing: {RUN_AGAIN}")
    try:
        about = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be read ({error}): remove it and {RUN_AGAIN}") from error
    if not isinstance(about, dict) or about.get("format") != FORMAT:
        raise InputError(f"{path} does not have the format {FORMAT}: make the shards again, in another folder")
    return about


def list_shards(about: Mapping[str, Any], kind: str, root: Path) -> list[Shard]:
    """The shards that ``shards.json`` lists as ``"train"`` or ``"val"``; ``root`` is the folder, for messages."""
    try:
        shards = [Shard(entry["name"], entry["photos"], entry["bytes"]) for entry in about[kind]]
        for shard in shards:
            valid = all(type(n) is int and n >= 0 for n in shard[1:]) and shard.photos * BLOCK <= shard.bytes
            if not NAME.fullmatch(shard.name) or not valid:
                raise ValueError(f"a shard {shard}")
        return shards
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{root / SHARDS} has no list of {kind} shards ({error}): remove it and {RUN_AGAIN}"
        ) from error


def _check_size(path: Path, size: int) -> None:
    try:
        found = path.stat().st_size
    except OSError as error:
        raise InputError(f"{path} is missing: {RUN_AGAIN}") from error
    if found != size:
        raise InputError(f"{path} is truncated, {found} bytes of {size}: {RUN_AGAIN}")
