"""Shards: photos and their tags, as a training reads them.

A folder of

- ``vocabulary.txt``: ``tag<TAB>photos`` a line, the most frequent first;
- ``train-000000.tar``: WebDataset, ``KEY.jpg`` and ``KEY.json``, and ``train-000000.npz``, its index: where each
  photo's bytes lie, and the rows of its tags, so that a training draws photos at random and parses no JSON;
- ``val-000000.tar`` and ``.npz``: the photos that are held out;
- ``skipped.jsonl``: what was left out, and why;
- ``shards.json``: what made the folder, and what is in it. It is written last: with it the folder is whole.

Nothing is unpickled, and what is read may be hostile.
"""

import json
import re
import tarfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from io import BytesIO
from math import prod
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import ZIP_STORED, ZipFile

import numpy as np

from grounding.runtime.artefacts import atomic_path
from grounding.text.vocabulary import Vocabulary
from proposals.errors import InputError
from training.text import FIRST
from training.thumbnails import Thumbnail

FORMAT = "grounding-shards-1"
SHARDS, VOCABULARY, SKIPPED = "shards.json", "vocabulary.txt", "skipped.jsonl"
NAME = re.compile(r"(?:train|val)-[0-9]{6,12}\.tar")
BLOCK = 512  # of a tar file
MAX_KEY = 80
ARRAYS = {"offsets": np.int64, "sizes": np.int32, "starts": np.int64, "tags": np.int32, "agree": np.uint8}
AGAIN = "run grounding step=shards again, it makes only what is missing"


class Shard(NamedTuple):
    """A tar of photos: its name, how many it has, and its bytes."""

    name: str
    photos: int
    bytes: int


@dataclass(frozen=True)
class Index:
    """Where the photos of a tar lie, and their tags.

    Attributes:
        offsets: (n,) int64, where each JPEG begins in the tar; sizes: (n,) int32, its bytes.
        starts: (n + 1,) int64: the tags of photo i are ``tags[starts[i]:starts[i + 1]]``.
        tags: (T,) int32, rows of the vocabulary, the first of a photo the most certain.
        agree: (T,) uint8, in how many of the photo's captions the tag stands; 1 for lists of tags.
    """

    offsets: np.ndarray
    sizes: np.ndarray
    starts: np.ndarray
    tags: np.ndarray
    agree: np.ndarray

    def __len__(self) -> int:
        return len(self.offsets)


class Shards:
    """What ``grounding step=shards`` made, opened for reading.

    Args:
        root: its folder; keep: photos whose indices are held in memory, those used last.

    Attributes:
        train, val: the shards, in the order of their names; settings, stats: as ``shards.json`` has them.

    Raises:
        InputError: the folder is none or is not whole, a tar is missing or has another size, or the vocabulary is not
            the one that the shards were made with.
    """

    def __init__(self, root: str | Path, keep: int = 1 << 17):
        self.root, self._keep = Path(root), keep
        self._indices: OrderedDict[str, Index] = OrderedDict()
        about = _read_about(self.root / SHARDS)
        self.train, self.val = _shards(about, "train", self.root), _shards(about, "val", self.root)
        self.settings: dict[str, Any] = about.get("settings", {})
        self.stats: dict[str, Any] = about.get("stats", {})
        self._pairs = read_vocabulary(self.root / VOCABULARY, about.get("vocabulary"))
        self._named = {shard.name: shard for shard in (*self.train, *self.val)}
        for shard in self._named.values():
            _check_size(self.root / shard.name, shard.bytes)

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """The tags, the most frequent first.

        Raises:
            InputError: a line is no tag.
        """
        return Vocabulary(tuple(tag for tag, _ in self._pairs))

    @property
    def counts(self) -> np.ndarray:
        """(tags,) int64: in how many photos for training each tag occurs.

        They were counted in the texts as they are written, before a photo was opened: the sums over the indices differ
        a little, by photos that are broken and by tags whose parts stand apart (``snow covered``).
        """
        return np.array([count for _, count in self._pairs], np.int64)

    def index(self, name: str) -> Index:
        """The index of a shard, kept in memory while it is among those used last.

        Raises:
            InputError: there is no such shard, or its index is missing or damaged.
        """
        if name in self._indices:
            self._indices.move_to_end(name)
            return self._indices[name]
        if name not in self._named:
            raise InputError(f"{self.root} has no shard {name}")
        self._indices[name] = read_index(index_path(self.root / name), self._named[name], len(self._pairs))
        while len(self._indices) > 1 and sum(map(len, self._indices.values())) > self._keep:
            self._indices.popitem(last=False)
        return self._indices[name]


def read(root: str | Path, name: str, index: Index, row: int) -> bytes:
    """The JPEG of a photo.

    Args:
        name: of the shard; index: the shard's; row: which photo of it.

    Raises:
        InputError: the tar is gone, or was cut.
    """
    path = Path(root, name)
    try:
        with path.open("rb", buffering=0) as file:
            file.seek(int(index.offsets[row]))
            data = file.read(int(index.sizes[row]))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
    if len(data) < index.sizes[row]:
        raise InputError(f"{path} is truncated: {AGAIN}")
    return data


def index_path(tar: Path) -> Path:
    """Where the index of a tar is."""
    return tar.with_suffix(".npz")


def read_vocabulary(path: Path, digest: str | None) -> list[tuple[str, int]]:
    """The tags and their counts.

    Args:
        digest: what SHA-256 gives of the file, in hexadecimal.

    Raises:
        InputError: the file is missing, has another digest, or is no vocabulary.
    """
    try:
        data = path.read_bytes()
        if sha256(data).hexdigest() != digest:
            raise InputError(f"{path} is not the one that the shards were made with: remove it and {AGAIN}")
        pairs = [line.split("\t") for line in data.decode("utf-8").split("\n")[:-1]]
        return [(tag, int(count)) for tag, count in pairs]
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror or error}): {AGAIN}") from error
    except InputError:
        raise
    except ValueError as error:
        raise InputError(f"{path} is no vocabulary ({error}): make the shards anew") from error


def vocabulary_text(pairs: Sequence[tuple[str, int]]) -> tuple[bytes, str]:
    """The file of tags and their counts, and its SHA-256 in hexadecimal."""
    data = "".join(f"{tag}\t{count}\n" for tag, count in pairs).encode("utf-8")
    return data, sha256(data).hexdigest()


class ShardWriter:
    """Writes photos into a tar, and gathers its index."""

    def __init__(self, tar: tarfile.TarFile):
        self._tar, self.bytes = tar, 0
        self._columns: dict[str, list[int]] = {name: [] for name in ARRAYS}
        self._columns["starts"].append(0)

    def __len__(self) -> int:
        return len(self._columns["offsets"])

    def add(self, key: str, photo: Thumbnail, rows: Sequence[int], agree: Sequence[int], names: Sequence[str]) -> None:
        """Adds a photo.

        Args:
            key: of the sample, made plain by ``member_key``; rows, agree, names: of its tags, see :class:`Index`.
        """
        about = {"tags": list(names), "agree": list(agree), "first": list(names[:FIRST])}
        about |= {"width": photo.width, "height": photo.height}
        self._columns["offsets"].append(self._file(f"{member_key(key)}.jpg", photo.data))
        self._columns["sizes"].append(len(photo.data))
        self._file(f"{member_key(key)}.json", json.dumps(about).encode())
        self._columns["tags"] += rows
        self._columns["agree"] += agree
        self._columns["starts"].append(len(self._columns["tags"]))

    def arrays(self) -> dict[str, np.ndarray]:
        """The index, see :class:`Index`."""
        return {name: np.array(self._columns[name], dtype) for name, dtype in ARRAYS.items()}

    def _file(self, name: str, data: bytes) -> int:
        member = tarfile.TarInfo(name)
        member.size = len(data)
        self._tar.addfile(member, BytesIO(data))
        self._tar.members.clear()  # else they fill the memory
        return self._tar.offset - -(-len(data) // BLOCK) * BLOCK


@contextmanager
def write_shard(path: Path) -> Iterator[ShardWriter]:
    """Writes a tar aside; afterwards ``bytes`` of the writer is its size. The index is left to ``write_index``.

    Raises:
        InputError: it cannot be written.
    """
    with atomic_path(path) as aside:
        with tarfile.open(aside, "w") as tar:
            writer = ShardWriter(tar)
            yield writer
        writer.bytes = aside.stat().st_size


def write_index(path: Path, writer: ShardWriter, about: Mapping[str, Any]) -> None:
    """Writes the index of a tar, and as its ``about``, JSON in bytes, what else is to be known of it.

    Raises:
        InputError: it cannot be written.
    """
    text = np.frombuffer(json.dumps(about, sort_keys=True).encode(), np.uint8)
    with atomic_path(path) as aside, aside.open("wb") as file:
        np.savez(file, about=text, **writer.arrays())


def member_key(key: str) -> str:
    """A sample's key as WebDataset can group by it: letters, digits, - and _, every other byte as %XX.

    Distinct keys stay distinct; of a long one the end is a digest.
    """
    data = key.encode("utf-8", "surrogatepass")
    plain = re.sub(rb"[^A-Za-z0-9_-]", lambda found: b"%%%02X" % found[0][0], data).decode()
    return plain if len(plain) <= MAX_KEY else f"{plain[: MAX_KEY - 33]}%-{sha256(data).hexdigest()[:31]}"


def read_index(path: Path, shard: Shard, tags: int) -> Index:
    """The index of a shard.

    Args:
        tags: how many the vocabulary has.

    Raises:
        InputError: it is missing or damaged, or points outside the tar or the vocabulary.
    """
    try:
        arrays = _load(path, tuple(ARRAYS))
        for name, dtype in ARRAYS.items():
            if arrays[name].dtype != dtype or arrays[name].ndim != 1:
                raise ValueError(f"{name} is {arrays[name].shape} {arrays[name].dtype}")
        index = Index(**arrays)
        _check_index(index, shard, tags)
        return index
    except Exception as error:  # a hostile file may raise anything in zipfile and NumPy
        raise InputError(f"{path} is no index of {shard.name} ({error}): remove it and {AGAIN}") from error


def read_about(path: Path) -> dict[str, Any]:
    """What an index tells beside its arrays.

    Raises:
        InputError: there is no such index, or it is damaged.
    """
    try:
        return json.loads(_load(path, ("about",))["about"].tobytes())
    except Exception as error:  # as above
        raise InputError(f"{path} is no index of a shard ({error})") from error


def _check_index(index: Index, shard: Shard, tags: int) -> None:
    if not shard.photos == len(index) == len(index.sizes) == len(index.starts) - 1:
        raise ValueError(f"{len(index)} offsets, {len(index.sizes)} sizes for {shard.photos} photos")
    # taken apart, for hostile numbers wrap around when they are added
    free = shard.bytes - index.offsets
    if (index.offsets < 0).any() or (index.sizes < 0).any() or (free < index.sizes).any():
        raise ValueError(f"a photo lies outside the {shard.bytes} bytes")
    if index.starts[0] != 0 or index.starts[-1] != len(index.tags) or (np.diff(index.starts) < 0).any():
        raise ValueError("the tags are not in stretches that follow one another")
    if len(index.agree) != len(index.tags):
        raise ValueError(f"{len(index.tags)} tags, {len(index.agree)} counts of captions")
    if len(index.tags) and (index.tags.min() < 0 or index.tags.max() >= tags):
        raise ValueError(f"a tag is not among the {tags} of the vocabulary")


def _load(path: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Arrays of an npz that is not packed, so that none is larger than the file."""
    with ZipFile(path) as archive:
        entries = [archive.getinfo(f"{name}.npy") for name in names]
        if any(entry.compress_type != ZIP_STORED or entry.file_size > path.stat().st_size for entry in entries):
            raise ValueError("an array is packed")
        return {name: _to_array(archive.read(entry)) for name, entry in zip(names, entries, strict=True)}


def _to_array(data: bytes) -> np.ndarray:
    header = BytesIO(data)
    if np.lib.format.read_magic(header) != (1, 0):
        raise ValueError("an array has a header of another version")
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(header)
    # what is no number, as pickled objects are, has no kind here
    if fortran or dtype.kind not in "iu" or prod(shape) * dtype.itemsize != len(data) - header.tell():
        raise ValueError(f"an array of {shape} {dtype} in {len(data) - header.tell()} bytes")
    return np.frombuffer(data, dtype, offset=header.tell()).reshape(shape)


def _read_about(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise InputError(f"{path.parent} holds no whole shards, for {SHARDS} is missing: {AGAIN}")
    try:
        about = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be read ({error}): remove it and {AGAIN}") from error
    if not isinstance(about, dict) or about.get("format") != FORMAT:
        raise InputError(f"{path} is not of the format {FORMAT}: make the shards anew, in another folder")
    return about


def _shards(about: Mapping[str, Any], kind: str, root: Path) -> list[Shard]:
    try:
        shards = [Shard(entry["name"], entry["photos"], entry["bytes"]) for entry in about[kind]]
        for shard in shards:
            sound = all(type(n) is int and n >= 0 for n in shard[1:]) and shard.photos * BLOCK <= shard.bytes
            if not NAME.fullmatch(shard.name) or not sound:
                raise ValueError(f"a shard {shard}")
        return shards
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{root / SHARDS} lists no {kind} shards ({error}): remove it and {AGAIN}") from error


def _check_size(path: Path, size: int) -> None:
    try:
        found = path.stat().st_size
    except OSError as error:
        raise InputError(f"{path} is missing: {AGAIN}") from error
    if found != size:
        raise InputError(f"{path} is truncated, {found} bytes of {size}: {AGAIN}")
