"""Zip files with one file for each image, whose name follows the image's."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath, PureWindowsPath
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

from grounding.runtime.artefacts import atomic_path
from proposals.errors import InputError


class LabelArchive:
    """A zip file that gets a file for each image, inside the folder into which people unpack it.

    Two runs with the same answers write the same bytes, because no file in it has a time.
    """

    def __init__(self, file: ZipFile) -> None:
        self._file = file
        self._images: dict[str, str] = {}

    def write(self, name: str, text: str) -> None:
        """Writes a file.

        Args:
            name: its path in the archive.
            text: its contents, which are stored in UTF-8.
        """
        # a lone surrogate stands for a byte that is not text; UTF-8 has none
        entry = ZipInfo(name.encode("utf-8", "backslashreplace").decode("utf-8"))
        entry.compress_type, entry.external_attr = ZIP_DEFLATED, 0o644 << 16
        self._file.writestr(entry, text.encode("utf-8", "backslashreplace"))

    def write_for(self, image: str, folder: str, suffix: str, text: str) -> None:
        """Writes the file of an image.

        Args:
            image: the image's name.
            folder: the folder in the archive, with a slash at its end; "" for none.
            suffix: the file has this ending instead of the image's.
            text: the contents.

        Raises:
            InputError: another image has the same file.
        """
        stem = label_stem(image)
        if stem in self._images:
            raise InputError(_same_file(self._images[stem], image))
        self._images[stem] = image
        self.write(f"{folder}{stem}{suffix}", text)


@contextmanager
def label_archive(path: str | Path) -> Iterator[LabelArchive]:
    """Opens a zip file, which appears when it is complete.

    Args:
        path: the path of the file.

    Yields:
        The archive.

    Raises:
        InputError: the file cannot be written.
    """
    with atomic_path(path) as temporary, ZipFile(temporary, "w") as file:
        yield LabelArchive(file)


def label_stem(image: str) -> str:
    """The path of an image's file in an archive, without its ending.

    Args:
        image: the image's name.

    Returns:
        The name without its ending; of an absolute path, and of one that leads out of its folder, only the last part.
        Windows' separators count, too, because the archive may be unpacked there.
    """
    windows = PureWindowsPath(image)
    if windows.drive or windows.root or ".." in windows.parts:
        image = windows.name
    path = PurePosixPath(image)
    return str(path.with_suffix("")) if path.name not in ("", "..") else "image"


def check_stems(images: Iterable[str]) -> None:
    """Refuses images that differ in their ending only, as ``a.jpg`` and ``a.png``, before any is answered.

    Args:
        images: their names.

    Raises:
        InputError: two images would have the same file.
    """
    seen: dict[str, str] = {}
    for image in images:
        if (other := seen.setdefault(label_stem(image), image)) != image:
            raise InputError(_same_file(other, image))


def _same_file(*images: str) -> str:
    names: Sequence[str] = [repr(image)[1:-1] for image in images]
    return f"{' and '.join(names)} would have the same file of labels: rename one of them, or choose format=coco"
