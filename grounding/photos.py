"""Photos in bulk: folders, tar files and data sets as shards of photos, listed without reading a pixel."""

import glob
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

from proposals.errors import InputError
from proposals.shards import members

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"}
MAX_BYTES = 1 << 28  # of a photo's file


@dataclass(frozen=True)
class PhotoFile:
    """Where a photo's bytes are: in a file, or in a part of a tar file.

    Attributes:
        name: the file's, without folder and suffix; path: of the file or the tar.
        offset, size: of the part, in bytes; a size of None is the whole file.
    """

    name: str
    path: str
    offset: int = 0
    size: int | None = None

    def read(self) -> bytes:
        """The file's bytes.

        Raises:
            InputError: it is gone, too large, or shorter than its tar says.
        """
        try:
            with Path(self.path).open("rb") as file:
                return self._part(file)
        except OSError as error:
            raise InputError(f"{self} cannot be read: {error.strerror or error}") from error

    def _part(self, file: BinaryIO) -> bytes:
        file.seek(self.offset)
        data = file.read(MAX_BYTES + 1 if self.size is None else min(self.size, MAX_BYTES + 1))
        if len(data) > MAX_BYTES:
            raise InputError(f"{self} has more than {MAX_BYTES} bytes; make it smaller")
        if self.size is not None and len(data) < self.size:
            raise InputError(f"{self} is cut off after {len(data)} of {self.size} bytes")
        return data

    def __str__(self) -> str:
        return self.path if self.size is None else f"{self.path}:{self.name}"


@dataclass(frozen=True)
class PhotoShard:
    """Photos that are worked on together: a tar file, or a stretch of a folder's sorted photos."""

    name: str
    tar: Path | None = None
    files: tuple[Path, ...] = ()

    def photos(self) -> Iterator[PhotoFile]:
        """The photos in order.

        Raises:
            InputError: the tar file is damaged, or two photos have one name.
        """
        seen: dict[str, str] = {}
        for photo in self._listed():
            if photo.name in seen:
                raise InputError(f"{seen[photo.name]} and {photo.path} both hold a photo {photo.name}: rename one")
            seen[photo.name] = photo.path
            yield photo

    def _listed(self) -> Iterator[PhotoFile]:
        if self.tar is None:
            yield from (PhotoFile(path.stem, str(path)) for path in self.files)
            return
        for member in members(self.tar):
            if Path(member.name).suffix.lower() in SUFFIXES:
                yield PhotoFile(Path(member.name).stem, str(self.tar), member.offset_data, member.size)


def photo_shards(source: str | Path, split: str | None = None, photos: int = 1000) -> list[PhotoShard]:
    """What there is to work on.

    Args:
        source: a tar file, a folder of tar files, a folder of photos (folders within it, too), or the root of Flickr30k
            Entities or COCO; split: of such a data set; photos: the most in a shard of a folder.

    Returns:
        The shards, named ``photos-000000`` and so on, or as the tar files.

    Raises:
        InputError: there is no such folder, or nothing in it; photos is below 1; two photos of a folder have one name.
    """
    root = Path(source)
    if photos < 1:
        raise InputError(f"photos={photos} must be 1 or more: it is how many a shard has")
    if root.is_file():
        return [PhotoShard(root.stem, root)]
    if not root.is_dir():
        raise InputError(f"{root}: there is no such folder or tar file of photos")
    files = _of_split(root, split)
    tars = sorted(root.glob("*.tar")) if files is None else []
    if tars:
        return [PhotoShard(path.stem, path) for path in tars]
    files = _of_folder(root) if files is None else files
    if not files:
        raise InputError(f"{root} holds no photo and no .tar file: name a folder of {', '.join(sorted(SUFFIXES))}")
    _check_names(files)
    parts = [tuple(files[i : i + photos]) for i in range(0, len(files), photos)]
    return [PhotoShard(f"photos-{i:06d}", None, part) for i, part in enumerate(parts)]


class PhotoList(NamedTuple):
    """Photos that were asked for together.

    Attributes:
        root: the folder that they are named from; paths: of their files, sorted; many: whether there may be several.
    """

    root: str
    paths: list[str]
    many: bool

    def name(self, path: str) -> str:
        """A photo's path within the root."""
        return os.path.relpath(path, self.root)


def find_photos(source: str) -> PhotoList:
    """The photos that a path or a pattern stands for.

    Args:
        source: a file; a folder, of which the photos are taken (folders within it, too); or a pattern such as
            ``shop/**/*.jpg``, of which all files are. What exists is never read as a pattern.

    Raises:
        InputError: the folder holds no photo, or no file fits the pattern. A file that is missing is told when it is
            read.
    """
    if Path(source).is_dir():
        paths = [str(path) for path in _of_folder(Path(source))]
        if not paths:
            raise InputError(f"{source} holds no photo: name a folder of {', '.join(sorted(SUFFIXES))}")
        return PhotoList(source, paths, True)
    if Path(source).exists() or not glob.has_magic(source):
        return PhotoList(str(Path(source).parent), [source], False)
    found = glob.iglob(source, recursive=True)  # noqa: PTH207  Path.glob takes no pattern that begins at the root
    paths = sorted(path for path in found if Path(path).is_file())
    if not paths:
        raise InputError(f"{source}: no file fits this pattern")
    return PhotoList(os.path.commonpath([Path(path).parent for path in paths]), paths, True)


def _of_folder(root: Path) -> list[Path]:
    return sorted(path for path in root.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())


def _of_split(root: Path, split: str | None) -> list[Path] | None:
    """The photos of a data set's split; None where the folder is none."""
    if split is not None and (root / "images").is_dir() and (root / f"{split}.txt").is_file():
        return [root / "images" / f"{name}.jpg" for name in (root / f"{split}.txt").read_text("utf-8").split()]
    if split is not None and (root / "annotations").is_dir() and (root / split).is_dir():
        return _of_folder(root / split)
    return None


def _check_names(files: list[Path]) -> None:
    seen: dict[str, Path] = {}
    for path in files:
        if path.stem in seen:
            raise InputError(
                f"{seen[path.stem]} and {path} have one name, by which proposals are found: propose for them apart"
            )
        seen[path.stem] = path
