"""Lists photos in folders, tar files and data sets without reading their pixels."""

import glob
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO, NamedTuple

from grounding.images import expanded
from grounding.runtime.heic import HEIC_CURE, HEIC_SUFFIXES, reads_heic
from grounding.runtime.hidden import is_hidden, visible
from grounding.runtime.ledger import Ledger
from proposals.errors import InputError
from proposals.shards import members

# The formats that Pillow reads, without those in ``grounding.images.NOT_READ``.
SUFFIXES = {
    ".apng", ".avif", ".avifs", ".blp", ".bmp", ".bw", ".cur", ".dcx", ".dds", ".dib", ".fit", ".fits", ".flc", ".fli",
    ".ftc", ".ftu", ".gbr", ".gif", ".icb", ".icns", ".ico", ".im", ".j2c", ".j2k", ".jfif", ".jp2", ".jpc", ".jpe",
    ".jpeg", ".jpf", ".jpg", ".jpx", ".mpo", ".msp", ".pbm", ".pcd", ".pcx", ".pfm", ".pgm", ".png", ".pnm", ".ppm",
    ".psd", ".pxr", ".qoi", ".ras", ".rgb", ".rgba", ".sgi", ".tga", ".tif", ".tiff", ".vda", ".vst", ".webp", ".xbm",
    ".xpm",
}  # fmt: skip
# photos that Pillow does not read; HEIC with pillow-heif
UNREAD = {
    ".3fr", ".arw", ".cr2", ".cr3", ".dng", ".eps", ".heic", ".heics", ".heif", ".heifs", ".hif", ".jxl",
    ".jxr", ".nef", ".orf", ".raf", ".rw2", ".srw", ".svg",
}  # fmt: skip
PACKED = {".7z", ".bz2", ".gz", ".rar", ".tar", ".tgz", ".xz", ".zip", ".zst"}
UNREAD_FORMAT = "in a format that is not read"
CURE = "give a folder of photos (.jpg, .png, .webp, .tif or another format that Pillow reads)"
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

    def photos(self, left_out: Ledger | None = None) -> Iterator[PhotoFile]:
        """Lists the photos in order.

        Args:
            left_out: lists the hidden files of a tar file, which are left out.

        Yields:
            The photos.

        Raises:
            InputError: the tar file is damaged, or two photos have the same name.
        """
        seen: dict[str, str] = {}
        for photo in self._listed(left_out):
            if photo.name in seen:
                raise InputError(f"{seen[photo.name]} and {photo.path} both contain a photo {photo.name}: rename one")
            seen[photo.name] = photo.path
            yield photo

    def _listed(self, left_out: Ledger | None) -> Iterator[PhotoFile]:
        if self.tar is None:
            yield from (PhotoFile(path.stem, str(path)) for path in self.files)
            return
        for member in members(self.tar):
            path = PurePosixPath(member.name)
            if path.suffix.lower() in SUFFIXES and not is_hidden(path):
                yield PhotoFile(path.stem, str(self.tar), member.offset_data, member.size)
            elif left_out is not None and path.suffix.lower() in SUFFIXES:
                _leave_out(left_out, path, "hidden", str(self.tar))


def photo_shards(
    source: str | Path, split: str | None = None, photos: int = 1000, left_out: Ledger | None = None
) -> list[PhotoShard]:
    """Divides the photos of a source into shards. Hidden files are left out.

    Args:
        source: a tar file, a folder of tar files, a folder of photos (with its subfolders), or the root folder of
            Flickr30k Entities or COCO.
        split: the split of such a data set, for example ``val``; None for all photos.
        photos: the largest number of photos in a shard of a folder.
        left_out: lists the files of a folder that are left out.

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
    found = Ledger("files", root, f"{CURE}, or of .tar files") if left_out is None else left_out
    files = _of_split(root, split, found)
    tars = visible(root.glob("*.tar")) if files is None else []
    if tars:
        return [PhotoShard(path.stem, path) for path in tars]
    files = _of_folder(root, found) if files is None else files
    if not files:
        found.require_kept()
    _check_names(files)
    parts = [tuple(files[i : i + photos]) for i in range(0, len(files), photos)]
    return [PhotoShard(f"photos-{i:06d}", None, part) for i, part in enumerate(parts)]


class PhotoList(NamedTuple):
    """The photos that one path or pattern names.

    Attributes:
        root: the folder that their names are relative to.
        paths: the paths of the photos, sorted.
        many: whether the path could name several photos.
        left_out: lists the files of the folder that are no photos, and hidden ones.
    """

    root: str
    paths: list[str]
    many: bool
    left_out: Ledger

    def name(self, path: str) -> str:
        """Returns the path of a photo relative to the root."""
        return os.path.relpath(path, self.root)


def find_photos(source: str | Sequence[str]) -> PhotoList:
    """Lists the photos that a path or a pattern names, or those of several.

    Args:
        source: a file; a folder, which gives all photos in it and in its subfolders, without hidden files; or a pattern
            such as ``shop/**/*.jpg``, which gives all files that match. A path that exists is never read as a pattern.
            Or a list of these.

    Returns:
        The photos. A single file is not checked here: reading it raises the error.

    Raises:
        InputError: the folder contains no photo, or no file matches the pattern.
    """
    if not isinstance(source, str):
        return _of_several([find_photos(part) for part in source])
    source = str(expanded(source)) if source.startswith("~") else source
    left_out = Ledger("files", source, CURE)
    folder, exists = _look_up(source)
    if folder:
        paths = [str(path) for path in _of_folder(Path(source), left_out)]
        if not paths:
            left_out.require_kept()
        return PhotoList(source, paths, True, left_out)
    if exists or not glob.has_magic(source) or "://" in source:  # a URL may contain ?
        return PhotoList(str(Path(source).parent), [source], False, left_out)
    matches = sorted(glob.iglob(source, recursive=True))  # noqa: PTH207  Path.glob does not accept an absolute pattern
    paths = [path for path in matches if not Path(path).is_dir()]
    if not paths:
        raise InputError(f"{source}: no file matches this pattern")
    for path in set(matches) - set(paths) if "**" not in source else ():
        _leave_out(left_out, path, "a folder", detail="use the pattern **/* for the files in its folders")
    return PhotoList(os.path.commonpath([Path(path).parent for path in paths]), paths, True, left_out)


def _of_several(lists: Sequence[PhotoList]) -> PhotoList:
    left_out = Ledger("files", ", ".join(photos.root for photos in lists[:3]), CURE)
    for photos in lists:
        left_out.merge(photos.left_out)
    paths = list(dict.fromkeys(path for photos in lists for path in photos.paths))
    root = os.path.commonpath([Path(photos.root).absolute() for photos in lists])
    return PhotoList(root, paths, True, left_out)


def _look_up(source: str) -> tuple[bool, bool]:
    """Whether a path is a folder, and whether it exists."""
    try:
        return Path(source).is_dir(), Path(source).exists()
    except OSError:  # too long for a path; reading it raises the error
        return False, False


def _of_folder(root: Path, left_out: Ledger) -> list[Path]:
    """The photos in a folder and its subfolders, sorted by their paths. Lists everything else in the ledger."""
    found, read = [], HEIC_SUFFIXES if reads_heic() else frozenset[str]()
    for folder, folders, names in os.walk(root, onerror=lambda error: _leave_out_folder(left_out, error)):
        here = Path(folder)
        for name in [name for name in sorted(folders) if is_hidden(Path(name)) or (here / name).is_symlink()]:
            folders.remove(name)
            hidden = is_hidden(Path(name))
            detail = "" if hidden else "it is a link to a folder: give that folder as another image="
            _leave_out(left_out, here / name, "hidden" if hidden else "a link to a folder", detail=detail)
        for name in sorted(names):
            if is_hidden(Path(name)):
                _leave_out(left_out, here / name, "hidden")
            elif Path(name).suffix.lower() in UNREAD - read:
                _leave_out(left_out, here / name, UNREAD_FORMAT, detail=_unread(Path(name).suffix))
            elif Path(name).suffix.lower() not in SUFFIXES | read:
                _leave_out(left_out, here / name, "not a photo", detail=_not_a_photo(Path(name).suffix))
            else:
                found.append(here / name)
    return sorted(found)


def _unread(suffix: str) -> str:
    return f"{suffix}: {HEIC_CURE if suffix.lower() in HEIC_SUFFIXES else 'convert it to JPEG'}"


def _not_a_photo(suffix: str) -> str:
    if suffix.lower() in PACKED:
        return f"{suffix}: unpack it"
    shown = suffix or "a name without a suffix"
    return f"{shown} is not the suffix of a format that is read: rename it if it is a photo"


def _leave_out(left_out: Ledger, name: object, reason: str, where: str = "", detail: str = "") -> None:
    left_out.came_in(name)
    left_out.skip(name, reason, detail, where)


def _leave_out_folder(left_out: Ledger, error: OSError) -> None:
    _leave_out(left_out, error.filename, "an unreadable folder", detail=error.strerror or str(error))


def _of_split(root: Path, split: str | None, left_out: Ledger) -> list[Path] | None:
    """Lists the photos of a data set's split; None if the folder is not a data set."""
    if split is not None and (root / "images").is_dir() and (root / f"{split}.txt").is_file():
        return [root / "images" / f"{name}.jpg" for name in _names(root / f"{split}.txt")]
    if split is not None and (root / "annotations").is_dir() and (root / split).is_dir():
        return _of_folder(root / split, left_out)
    return None


def _names(path: Path) -> list[str]:
    """The names in the file of a split."""
    try:
        names = path.read_text("utf-8-sig").split()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read ({error}): list one name per line, in UTF-8") from error
    if odd := [name for name in names if PurePosixPath(name).name != name]:
        raise InputError(f"{path}: {odd[0]!r} is not the name of a photo: list one name per line, without a folder")
    return names


def _check_names(files: list[Path]) -> None:
    seen: dict[str, Path] = {}
    for path in files:
        if path.stem in seen:
            raise InputError(
                f"{seen[path.stem]} and {path} have the same name, under which their proposals would be stored: "
                "rename one, or process them separately"
            )
        seen[path.stem] = path
