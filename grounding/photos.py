"""Lists photos in folders, tar files and data sets without reading their pixels."""

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
    """The place of a photo's bytes: a file, or a part of a tar file.

    Attributes:
        name: the file's name without folder and suffix.
        path: the path of the file or of the tar file.
        offset: where the part begins, in bytes.
        size: the part's length in bytes; None for the whole file.
    """

    name: str
    path: str
    offset: int = 0
    size: int | None = None

    def read(self) -> bytes:
        """Reads the bytes.

        Returns:
            The encoded photo.

        Raises:
            InputError: the file is missing, too large, or shorter than the tar file says.
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
    """Photos that are processed together: those of a tar file, or some of a folder's photos.

    Attributes:
        name: the name of the output shard.
        tar: the tar file; None for photos of a folder.
        files: the photos of a folder, in order.
    """

    name: str
    tar: Path | None = None
    files: tuple[Path, ...] = ()

    def photos(self) -> Iterator[PhotoFile]:
        """Lists the photos in order.

        Yields:
            The photos.

        Raises:
            InputError: the tar file is damaged, or two photos have the same name.
        """
        seen: dict[str, str] = {}
        for photo in self._listed():
            if photo.name in seen:
                raise InputError(f"{seen[photo.name]} and {photo.path} both contain a photo {photo.name}: rename one")
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
    """Divides the photos of a source into shards.

    Args:
        source: a tar file, a folder of tar files, a folder of photos (with its subfolders), or the root folder of
            Flickr30k Entities or COCO.
        split: the split of such a data set, for example ``val``; None for all photos.
        photos: the largest number of photos in a shard of a folder.

    Returns:
        The shards, named as the tar files, or ``photos-000000``, ``photos-000001`` and so on.

    Raises:
        InputError: the source does not exist or contains no photo, photos is below 1, or two photos of a folder have
            the same name.
    """
    root = Path(source)
    if photos < 1:
        raise InputError(f"photos={photos} must be 1 or more: it is the number of photos in a shard")
    if root.is_file():
        return [PhotoShard(root.stem, root)]
    if not root.is_dir():
        raise InputError(f"{root}: no such folder or tar file of photos")
    files = _of_split(root, split)
    tars = sorted(root.glob("*.tar")) if files is None else []
    if tars:
        return [PhotoShard(path.stem, path) for path in tars]
    files = _of_folder(root) if files is None else files
    if not files:
        raise InputError(f"{root} contains no photo and no .tar file: give a folder of {', '.join(sorted(SUFFIXES))}")
    _check_names(files)
    parts = [tuple(files[i : i + photos]) for i in range(0, len(files), photos)]
    return [PhotoShard(f"photos-{i:06d}", None, part) for i, part in enumerate(parts)]


class PhotoList(NamedTuple):
    """The photos that one path or pattern names.

    Attributes:
        root: the folder that their names are relative to.
        paths: the paths of the photos, sorted.
        many: whether the path could name several photos.
    """

    root: str
    paths: list[str]
    many: bool

    def name(self, path: str) -> str:
        """Returns the path of a photo relative to the root."""
        return os.path.relpath(path, self.root)


def find_photos(source: str) -> PhotoList:
    """Lists the photos that a path or a pattern names.

    Args:
        source: a file; a folder, which gives all photos in it and in its subfolders; or a pattern such as
            ``shop/**/*.jpg``, which gives all files that match. A path that exists is never read as a pattern.

    Returns:
        The photos. A single file is not checked here: reading it raises the error.

    Raises:
        InputError: the folder contains no photo, or no file matches the pattern.
    """
    if Path(source).is_dir():
        paths = [str(path) for path in _of_folder(Path(source))]
        if not paths:
            raise InputError(f"{source} contains no photo: give a folder of {', '.join(sorted(SUFFIXES))}")
        return PhotoList(source, paths, True)
    if Path(source).exists() or not glob.has_magic(source):
        return PhotoList(str(Path(source).parent), [source], False)
    matches = glob.iglob(source, recursive=True)  # noqa: PTH207  Path.glob does not accept an absolute pattern
    paths = sorted(path for path in matches if Path(path).is_file())
    if not paths:
        raise InputError(f"{source}: no file matches this pattern")
    return PhotoList(os.path.commonpath([Path(path).parent for path in paths]), paths, True)


def _of_folder(root: Path) -> list[Path]:
    return sorted(path for path in root.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())


def _of_split(root: Path, split: str | None) -> list[Path] | None:
    """Lists the photos of a data set's split; None if the folder is not a data set."""
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
                f"{seen[path.stem]} and {path} have the same name, under which their proposals would be stored: "
                "rename one, or process them separately"
            )
        seen[path.stem] = path
