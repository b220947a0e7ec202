"""Shards: proposals that are kept, one tar of many images' ``NAME.npz``.

The first member, ``propose.json``, says what made the shard. The arrays are small before Deflate packs them: labels as
differences, which superpixels a region has as bits. The bytes depend on the proposals only (and on the zlib at hand).
"""

import json
import tarfile
from collections.abc import Iterable, Iterator
from functools import cached_property
from io import BytesIO
from math import prod
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipFile

import numpy as np

from proposals.boxes import Boxes
from proposals.errors import InputError
from proposals.proposals import Proposals, check_image
from proposals.segments import Segments

ABOUT = "propose.json"
SUFFIX = ".npz"
# of what is read, for a shard may be hostile: an image's file takes some 50 KB, its largest array a few hundred
MAX_FILE, MAX_ARRAYS, MAX_CELLS = 1 << 24, 1 << 28, 1 << 24
# the arrays of each kind of proposals: what their numbers may be, and their dimensions
KINDS = {
    Segments: {
        "grid": ("i", 1),  # (4,): the working grid's h, w, the image's height, width
        "labels": ("iu", 2),  # (h, w) each cell's superpixel less that of the cell on its left
        "regions": ("u", 2),  # (N, ceil(S / 8)): a bit for each region and superpixel
        "scores": ("f", 1),
    },
    Boxes: {"grid": ("i", 1), "boxes": ("f", 2), "scores": ("f", 1)},
}


class ShardProposals:
    """Reads the proposals that ``grounding step=propose`` kept, by the name of the image.

    The shards' headers are read once, when the first image is asked for; some 300 bytes of memory an image.

    Args:
        root: the folder of the shards.

    Raises:
        InputError: the folder holds no shards.
    """

    def __init__(self, root: str | Path):
        self.root = str(root)
        self.shards = sorted(Path(root).glob("*.tar"))
        if not self.shards:
            raise InputError(f"{root} holds no .tar shards of proposals: make them with grounding step=propose")

    def __call__(self, image: np.ndarray, name: str | None = None) -> Proposals:
        """The proposals that are kept of an image (H, W, 3) uint8 RGB under its name.

        Raises:
            InputError: no name, nothing kept under it, of an image of another size, or in a broken shard; two photos
                of one name; the image has another shape or type.
        """
        check_image(image)
        if name is None:
            raise InputError("proposals are kept by the image's name: give its path, or propose anew")
        if name not in self._places:
            raise InputError(f"{self.root} has no proposals of {name}: make them with grounding step=propose")
        found = self._read(name)
        if found.size != image.shape[:2]:
            sizes = f"{found.size[1]}x{found.size[0]}, the image is {image.shape[1]}x{image.shape[0]}"
            raise InputError(f"the proposals of {name} in {self.root} are of {sizes}: make them anew")
        return found

    def __len__(self) -> int:
        return len(self._places)

    def _read(self, name: str) -> Proposals:
        shard, offset, size = self._places[name]
        try:
            with self.shards[shard].open("rb") as file:
                file.seek(offset)
                return decode(file.read(min(size, MAX_FILE + 1)))
        except (InputError, OSError) as error:
            raise InputError(f"{self.shards[shard]}: {name}{SUFFIX} {error}; make the shard anew") from error

    @cached_property
    def _places(self) -> dict[str, tuple[int, int, int]]:
        """For each name the shard, and where in it the file lies and how long it is."""
        places: dict[str, tuple[int, int, int]] = {}
        for number, path in enumerate(self.shards):
            read_about(path)
            for member in members(path):
                name = member.name.removesuffix(SUFFIX)
                if name in places:
                    both = f"{self.shards[places[name][0]]} and {path}"
                    raise InputError(f"{both} both hold {name}: keep photos of one name in folders of their own")
                if name != member.name:
                    places[name] = number, member.offset_data, member.size
        return places


def write_shard(path: str | Path, files: Iterable[tuple[str, bytes]]) -> None:
    """Writes a shard, whose bytes depend on nothing else.

    Args:
        files: name and content of each; the first is ``ABOUT``, with what made the shard as JSON.
    """
    with tarfile.open(path, "w", encoding="utf-8") as tar:
        for name, data in files:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, BytesIO(data))


def read_about(path: str | Path) -> dict:
    """What made a shard.

    Raises:
        InputError: the file is no shard of proposals.
    """
    try:
        first = next(members(path), None)
        if first is None or first.name != ABOUT or first.size > MAX_FILE:
            raise ValueError(f"its first member is no {ABOUT}")
        with Path(path).open("rb") as file:
            file.seek(first.offset_data)
            about = json.loads(file.read(first.size))
        if not isinstance(about, dict):
            raise ValueError(f"{ABOUT} is no JSON object")  # noqa: TRY004, for it is the file's fault
        return about
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} is no shard of proposals ({error}): remove it, or choose another folder") from error


def members(path: str | Path) -> Iterator[tarfile.TarInfo]:
    """The plain files in a tar, in constant memory.

    Raises:
        InputError: no tar file, a compressed one, or a truncated one.
    """
    try:
        with tarfile.open(path, "r:", encoding="utf-8") as tar:
            while (member := tar.next()) is not None:
                tar.members.clear()
                if member.size < 0:
                    raise tarfile.TarError(f"{member.name} has a negative size")
                if member.isreg() and not member.issparse():
                    yield member
            # tarfile takes what is no header for the end, which is two blocks of zeros
            tar.fileobj.seek(tar.offset)
            if tar.fileobj.read(1024) != bytes(1024):
                raise tarfile.TarError(f"its end is missing, or byte {tar.offset} is damaged")
    except (tarfile.TarError, OSError, EOFError, ValueError, OverflowError) as error:
        raise InputError(f"{path} is truncated or no tar file ({error}); compressed ones must be unpacked") from error


def encode(proposals: Proposals) -> bytes:
    """Proposals as the bytes of an npz. The members of a region come back in ascending order.

    Raises:
        InputError: proposals of another kind than ``Segments`` and ``Boxes``.
    """
    if type(proposals) not in KINDS:
        kinds = ", ".join(kind.__name__ for kind in KINDS)
        raise InputError(f"proposals of kind {type(proposals).__name__} cannot be kept; only {kinds}")
    arrays = {"grid": np.array(proposals.shape + proposals.size, np.int32), "scores": proposals.scores}
    if isinstance(proposals, Segments):
        arrays["labels"] = _small(np.diff(proposals.labels, axis=1, prepend=0))
        arrays["regions"] = _to_bits(proposals)
    else:
        arrays["boxes"] = proposals.boxes
    buffer = BytesIO()
    np.savez_compressed(buffer, **{name: np.ascontiguousarray(array) for name, array in arrays.items()})
    return buffer.getvalue()


def decode(data: bytes) -> Proposals:
    """Proposals from the bytes that ``encode`` gave.

    Raises:
        InputError: they are something else; whatever they are, memory stays below a few times ``MAX_ARRAYS``.
    """
    try:
        arrays = _load(data)
        kind = next((kind for kind, names in KINDS.items() if names.keys() == arrays.keys()), None)
        if kind is None:
            raise ValueError(f"its arrays {', '.join(arrays)} are of no kind that is known")
        for name, (types, dimensions) in KINDS[kind].items():
            if arrays[name].dtype.kind not in types or arrays[name].ndim != dimensions:
                raise ValueError(f"{name} must not be {arrays[name].shape} {arrays[name].dtype}")
        h, w, *size = map(int, arrays["grid"])
        if min(h, w, *size) < 1 or h * w > MAX_CELLS:
            raise ValueError(f"a grid of {h} x {w} cells, an image of {size} pixels")
        return _to_boxes(arrays, size, (h, w)) if kind is Boxes else _to_segments(arrays, size, (h, w))
    except Exception as error:  # a hostile file may raise anything in zipfile and NumPy
        raise InputError(f"holds no proposals ({error})") from error


def _load(data: bytes) -> dict[str, np.ndarray]:
    """The arrays of an npz; their sizes are looked at before anything is made."""
    if len(data) > MAX_FILE:
        raise ValueError(f"it has more than {MAX_FILE} bytes")
    with ZipFile(BytesIO(data)) as archive:
        entries = archive.infolist()
        if sum(entry.file_size for entry in entries) > MAX_ARRAYS:
            raise ValueError(f"its arrays have more than {MAX_ARRAYS} bytes")
        if not all(entry.compress_type in (ZIP_STORED, ZIP_DEFLATED) for entry in entries):
            raise ValueError("it is packed in a way that is not used here")
        return {entry.filename.removesuffix(".npy"): _to_array(archive.read(entry)) for entry in entries}


def _to_array(data: bytes) -> np.ndarray:
    header = BytesIO(data)
    if np.lib.format.read_magic(header) != (1, 0):
        raise ValueError("an array has a header of another version")
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(header)
    at = header.tell()
    # what is no number, as pickled objects are, has no kind here
    if fortran or dtype.kind not in "iuf" or prod(shape) * dtype.itemsize != len(data) - at:
        raise ValueError(f"an array of {shape} {dtype} in {len(data) - at} bytes")
    return np.frombuffer(data, dtype, offset=at).reshape(shape)


def _to_boxes(arrays: dict[str, np.ndarray], size: tuple[int, int], shape: tuple[int, int]) -> Boxes:
    return Boxes(arrays["boxes"], arrays["scores"], size, shape)


def _to_segments(arrays: dict[str, np.ndarray], size: tuple[int, int], shape: tuple[int, int]) -> Segments:
    if arrays["labels"].shape != shape:
        raise ValueError(f"labels of {arrays['labels'].shape} cells for a grid of {shape}")
    labels = np.cumsum(arrays["labels"], 1, np.int64)
    superpixels = int(labels.max()) + 1
    if arrays["regions"].shape[1] != -(-superpixels // 8):
        raise ValueError(f"regions have {arrays['regions'].shape[1]} bytes for {superpixels} superpixels")
    if arrays["regions"].size > MAX_ARRAYS >> 6:  # each bit may become a member, which is a number of 64
        raise ValueError(f"its regions have {arrays['regions'].size} bytes")
    inside = np.unpackbits(arrays["regions"], axis=1, count=superpixels)
    offsets = np.cumsum([0, *inside.sum(1, dtype=np.int64)])
    return Segments(labels, np.nonzero(inside)[1], offsets, arrays["scores"], size)


def _to_bits(segments: Segments) -> np.ndarray:
    inside = np.zeros((len(segments), segments.superpixels), bool)
    inside[np.repeat(np.arange(len(segments)), np.diff(segments.offsets)), segments.members] = True
    return np.packbits(inside, axis=1)


def _small(numbers: np.ndarray) -> np.ndarray:
    """Integers in the smallest type that holds them."""
    least, most = np.min_scalar_type(numbers.min()), np.min_scalar_type(numbers.max())
    return numbers.astype(np.promote_types(least, most))
