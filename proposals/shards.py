"""Shards of stored proposals: tar files with one ``NAME.npz`` per image.

The first member of a shard, ``propose.json``, describes how it was computed. The arrays are encoded before Deflate
compresses them: labels as differences between neighbours, and regions as one bit per superpixel. The bytes of a shard
depend only on the proposals and on the version of zlib.
"""

import json
import tarfile
from collections.abc import Iterable, Iterator
from functools import cached_property
from io import BytesIO
from math import prod
from pathlib import Path
from typing import Any
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipFile

import numpy as np

from proposals.boxes import Boxes
from proposals.errors import InputError
from proposals.proposals import Proposals, check_image
from proposals.segments import Segments

ABOUT = "propose.json"
SUFFIX = ".npz"
# Limits for shards from untrusted sources. Typical are 50 KB per file, and a few hundred KB for the largest array.
MAX_FILE = 1 << 24  # bytes of an image's file, and of ``propose.json``
MAX_ARRAYS = 1 << 28  # bytes of an image's unpacked arrays
MAX_CELLS = 1 << 24  # cells of a working grid
# The arrays of each kind of proposals: allowed kinds of dtype, and the number of dimensions.
KINDS = {
    Segments: {
        "grid": ("i", 1),  # (4,): h and w of the working grid, height and width of the image
        "labels": ("iu", 2),  # (h, w): the superpixel of each cell, minus that of its left neighbour
        "regions": ("u", 2),  # (N, ceil(S / 8)): one bit for each region and superpixel
        "scores": ("f", 1),
    },
    Boxes: {"grid": ("i", 1), "boxes": ("f", 2), "scores": ("f", 1)},
}


class ShardProposals:
    """Reads the proposals that ``grounding step=propose`` stored, by the name of the image.

    The index of the shards is read once, with the first image, and takes about 300 bytes of memory per image.

    Args:
        root: the folder of the shards.

    Raises:
        InputError: If the folder contains no shards.
    """

    def __init__(self, root: str | Path):
        self.root = str(root)
        self.shards = sorted(Path(root).glob("*.tar"))
        if not self.shards:
            raise InputError(f"{root} contains no .tar shards of proposals: compute them with grounding step=propose")

    def __call__(self, image: np.ndarray, name: str | None = None) -> Proposals:
        """Reads the proposals of one image.

        Args:
            image: ``(H, W, 3)`` uint8 RGB.
            name: file name of the image without its suffix.

        Raises:
            InputError: If the image has another shape or type or no name, if no proposals are stored under its name or
                they belong to an image of another size, if two images have the same name, or if a shard is damaged.
        """
        check_image(image)
        if name is None:
            raise InputError("stored proposals are looked up by the image's name: pass its path, or compute them again")
        if name not in self._places:
            raise InputError(f"{self.root} has no proposals of {name}: compute them with grounding step=propose")
        proposals = self._read(name)
        if proposals.size != image.shape[:2]:
            sizes = f"{proposals.size[1]}x{proposals.size[0]}, but the image is {image.shape[1]}x{image.shape[0]}"
            raise InputError(f"the proposals of {name} in {self.root} are for {sizes}: compute them again")
        return proposals

    def __len__(self) -> int:
        return len(self._places)

    def _read(self, name: str) -> Proposals:
        shard, offset, size = self._places[name]
        try:
            with self.shards[shard].open("rb") as file:
                file.seek(offset)
                return decode(file.read(min(size, MAX_FILE + 1)))
        except (InputError, OSError) as error:
            raise InputError(f"{self.shards[shard]}: {name}{SUFFIX} {error}; compute the shard again") from error

    @cached_property
    def _places(self) -> dict[str, tuple[int, int, int]]:
        """For each name: the number of its shard, and the offset and length of its file in bytes."""
        places: dict[str, tuple[int, int, int]] = {}
        for number, path in enumerate(self.shards):
            read_about(path)
            for member in members(path):
                name = member.name.removesuffix(SUFFIX)
                if name in places:
                    both = f"{self.shards[places[name][0]]} and {path}"
                    raise InputError(f"{both} both contain {name}: keep photos of the same name in separate folders")
                if name != member.name:
                    places[name] = number, member.offset_data, member.size
        return places


def write_shard(path: str | Path, files: Iterable[tuple[str, bytes]]) -> None:
    """Writes a shard; the same files give the same bytes.

    Args:
        path: the tar file to write.
        files: name and content of each member; the first is ``ABOUT``, a JSON object that describes how the proposals
            were computed.
    """
    with tarfile.open(path, "w", encoding="utf-8") as tar:
        for name, data in files:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, BytesIO(data))


def read_about(path: str | Path) -> dict[str, Any]:
    """Reads the description of how a shard's proposals were computed.

    Args:
        path: the shard.

    Returns:
        The content of its ``propose.json``.

    Raises:
        InputError: If the file is not a shard of proposals.
    """
    try:
        first = next(members(path), None)
        if first is None or first.name != ABOUT or first.size > MAX_FILE:
            raise ValueError(f"its first member is not {ABOUT}")
        with Path(path).open("rb") as file:
            file.seek(first.offset_data)
            about = json.loads(file.read(first.size))
        if not isinstance(about, dict):
            raise ValueError(f"{ABOUT} is not a JSON object")  # noqa: TRY004, because the file's content is wrong
        return about
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} is not a shard of proposals ({error}): remove it, or use another folder") from error


def members(path: str | Path, links: bool = False) -> Iterator[tarfile.TarInfo]:
    """Iterates over the regular files of a tar file, in constant memory.

    Args:
        path: an uncompressed tar file.
        links: whether to yield links and sparse files as well; their bytes are not, or not as such, in the tar file.

    Yields:
        The header of each regular file, in the order of the tar file.

    Raises:
        InputError: If the file is compressed, truncated, or not a tar file.
    """
    try:
        with tarfile.open(path, "r:", encoding="utf-8") as tar:
            while (member := tar.next()) is not None:
                tar.members.clear()  # type: ignore[attr-defined]
                if member.size < 0:
                    raise tarfile.TarError(f"{member.name} has a negative size")
                if (member.isreg() and (links or not member.issparse())) or (
                    links and (member.islnk() or member.issym())
                ):
                    yield member
            # tarfile stops at an invalid header as if it were the end; the true end is two blocks of zeros
            tar.fileobj.seek(tar.offset)
            if tar.fileobj.read(1024) != bytes(1024):
                raise tarfile.TarError(f"its end is missing, or byte {tar.offset} is damaged")
    except (tarfile.TarError, OSError, EOFError, ValueError, OverflowError) as error:
        raise InputError(f"{path} is truncated or not a tar file ({error}); unpack it if it is compressed") from error


def encode(proposals: Proposals) -> bytes:
    """Encodes proposals as the bytes of an npz file. The order of a region's superpixels is not stored.

    Args:
        proposals: ``Segments`` or ``Boxes``, but not a subclass.

    Returns:
        The content of the file.

    Raises:
        InputError: If the proposals are of another class.
    """
    if type(proposals) not in KINDS:
        kinds = ", ".join(kind.__name__ for kind in KINDS)
        raise InputError(f"proposals of class {type(proposals).__name__} cannot be stored; use one of {kinds}")
    arrays = {"grid": np.array(proposals.shape + proposals.size, np.int32), "scores": proposals.scores}
    if isinstance(proposals, Segments):
        arrays["labels"] = _smallest_type(np.diff(proposals.labels, axis=1, prepend=0))
        arrays["regions"] = _to_bits(proposals)
    else:
        arrays["boxes"] = proposals.boxes
    buffer = BytesIO()
    contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    np.savez_compressed(buffer, **contiguous)  # type: ignore[arg-type]
    return buffer.getvalue()


def decode(data: bytes) -> Proposals:
    """Decodes proposals. Whatever the bytes are, this takes at most a few times ``MAX_ARRAYS`` bytes of memory.

    Args:
        data: the result of ``encode``; its source need not be trusted.

    Returns:
        The proposals, with the superpixels of each region in ascending order.

    Raises:
        InputError: If the bytes are anything else.
    """
    try:
        arrays = _load(data)
        kind = next((kind for kind, names in KINDS.items() if names.keys() == arrays.keys()), None)
        if kind is None:
            raise ValueError(f"its arrays {', '.join(arrays)} belong to no known class of proposals")
        for name, (types, dimensions) in KINDS[kind].items():
            if arrays[name].dtype.kind not in types or arrays[name].ndim != dimensions:
                raise ValueError(f"{name} is a wrong array: {arrays[name].shape} {arrays[name].dtype}")
        h, w, height, width = map(int, arrays["grid"])
        if min(h, w, height, width) < 1 or h * w > MAX_CELLS:
            raise ValueError(f"a grid of {h} x {w} cells or an image of {height} x {width} pixels is not allowed")
        read = _to_boxes if kind is Boxes else _to_segments
        return read(arrays, (height, width), (h, w))
    except Exception as error:  # a malicious file may raise any type of exception in zipfile and NumPy
        raise InputError(f"contains no proposals ({error})") from error


def _load(data: bytes) -> dict[str, np.ndarray]:
    """Reads the arrays of an npz file; their sizes are checked before memory is allocated."""
    if len(data) > MAX_FILE:
        raise ValueError(f"it has more than {MAX_FILE} bytes")
    with ZipFile(BytesIO(data)) as archive:
        entries = archive.infolist()
        if sum(entry.file_size for entry in entries) > MAX_ARRAYS:
            raise ValueError(f"its arrays have more than {MAX_ARRAYS} bytes")
        if not all(entry.compress_type in (ZIP_STORED, ZIP_DEFLATED) for entry in entries):
            raise ValueError("it is compressed with another method than Deflate")
        return {entry.filename.removesuffix(".npy"): _to_array(archive.read(entry)) for entry in entries}


def _to_array(data: bytes) -> np.ndarray:
    """Reads one array of an npz file."""
    header = BytesIO(data)
    if np.lib.format.read_magic(header) != (1, 0):
        raise ValueError("an array has an unknown version of the npy format")
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(header)
    start = header.tell()
    # only numbers are allowed: arrays of objects would be pickles
    if fortran or dtype.kind not in "iuf" or prod(shape) * dtype.itemsize != len(data) - start:
        raise ValueError(f"an array of {shape} {dtype} in {len(data) - start} bytes")
    return np.frombuffer(data, dtype, offset=start).reshape(shape)


def _to_boxes(arrays: dict[str, np.ndarray], size: tuple[int, int], shape: tuple[int, int]) -> Boxes:
    return Boxes(arrays["boxes"], arrays["scores"], size, shape)


def _to_segments(arrays: dict[str, np.ndarray], size: tuple[int, int], shape: tuple[int, int]) -> Segments:
    if arrays["labels"].shape != shape:
        raise ValueError(f"labels of {arrays['labels'].shape} cells for a grid of {shape}")
    labels = np.cumsum(arrays["labels"], 1, np.int64)
    superpixels = int(labels.max()) + 1
    if arrays["regions"].shape[1] != -(-superpixels // 8):
        raise ValueError(f"regions have {arrays['regions'].shape[1]} bytes for {superpixels} superpixels")
    if arrays["regions"].size > MAX_ARRAYS >> 6:  # each of a byte's 8 bits may become a member of 8 bytes
        raise ValueError(f"its regions have {arrays['regions'].size} bytes")
    inside = np.unpackbits(arrays["regions"], axis=1, count=superpixels)
    offsets = np.cumsum([0, *inside.sum(1, dtype=np.int64)])
    return Segments(labels, np.nonzero(inside)[1], offsets, arrays["scores"], size)


def _to_bits(segments: Segments) -> np.ndarray:
    """Packs the superpixels of each region into bits: ``(N, ceil(S / 8))`` uint8."""
    inside = np.zeros((len(segments), segments.superpixels), bool)
    inside[np.repeat(np.arange(len(segments)), np.diff(segments.offsets)), segments.members] = True
    return np.packbits(inside, axis=1)


def _smallest_type(numbers: np.ndarray) -> np.ndarray:
    """Converts integers to the smallest type that can represent them."""
    least, most = np.min_scalar_type(numbers.min()), np.min_scalar_type(numbers.max())
    return numbers.astype(np.promote_types(least, most))
