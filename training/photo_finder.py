"""Finds the photos that a table or captions name: in which folder, and how the paths are written."""

from collections.abc import Callable, Iterator, Sequence
from itertools import chain, islice, product
from pathlib import Path
from typing import TypeVar

from grounding.photos import SUFFIXES
from grounding.runtime.ledger import Ledger
from proposals.errors import InputError
from training.samples import SourceSample

FIRST = 10_000  # photos that are looked up at most before the first is used
LOOKED_UP = 1000  # photos of a unit that are looked up
ENOUGH = 50  # photos that must be found for a decision
ADDED = ("", ".jpg", ".jpeg", ".png")  # for paths without a suffix

Item = TypeVar("Item")
_Way = tuple[Path, bool, str]  # folder; whether \ separates folders; suffix to add


class PhotoFinder:
    """The paths of photos, once it is known how the source writes them.

    Args:
        folders: folders that the paths may be relative to, the most likely first.
        source: name of the table or captions, for messages.
    """

    def __init__(self, folders: Sequence[Path], source: Path):
        self._folders, self._source = folders, source
        self._way: _Way = folders[0], False, ""

    def __call__(self, image: str) -> Path:
        """The path of a photo.

        Args:
            image: its path as the source has it.
        """
        return _place(self._way, image)

    @property
    def folder(self) -> Path:
        """The folder that the paths are relative to."""
        return self._way[0]

    def decide(self, items: Iterator[Item], name: Callable[[Item], str]) -> Iterator[Item]:
        """Looks up the first photos, and decides where all are.

        Args:
            items: items with photos.
            name: the path of an item's photo as the source has it; "" if it has none.

        Returns:
            All items.

        Raises:
            InputError: none of the first ``FIRST`` photos exists.
        """
        first = list(islice(items, FIRST))
        images = [image for image in map(name, first) if image]
        most = 0
        for added, windows, folder in product(ADDED, (False, True), self._folders):
            way = folder, windows, added
            count = _count(way, images) if _fits(way, images) and most < ENOUGH else 0
            if count > most:
                self._way, most = way, count
        if images and not most:
            self._refuse(images)
        return chain(first, items)

    def _refuse(self, images: Sequence[str]) -> None:
        where = self._folders[0]
        if not where.is_dir():
            raise InputError(f"images={where} is not a folder: give the folder of the photos that {self._source} names")
        ledger = Ledger("photos", where, f"give the folder that the paths in {self._source} are relative to as images=")
        for image in ledger.reading(images):
            ledger.skip(image, "missing")
        ledger.require_kept()


def look_up(samples: Sequence[SourceSample]) -> tuple[int, list[str]]:
    """Looks up photos without opening them, at most about ``LOOKED_UP``, evenly among the samples.

    Args:
        samples: samples whose photos are files, not parts of a tar.

    Returns:
        The number of photos that were looked up, and the keys of those that are missing.
    """
    chosen = [sample for sample in samples[:: max(len(samples) // LOOKED_UP, 1)] if sample.photo is not None]
    missing = [sample.key for sample in chosen if sample.photo and not _exists(Path(sample.photo.path))]
    return len(chosen), missing


def _fits(way: _Way, images: Sequence[str]) -> bool:
    """Whether a way makes a difference for some image."""
    _, windows, added = way
    if windows and not any("\\" in image for image in images):
        return False
    return not added or not any(Path(image).suffix.lower() in SUFFIXES for image in images)


def _place(way: _Way, image: str) -> Path:
    folder, windows, added = way
    return folder / f"{image.replace(chr(92), '/') if windows else image}{added}"


def _count(way: _Way, images: Sequence[str]) -> int:
    found = 0
    for image in images:
        found += _exists(_place(way, image))
        if found >= ENOUGH:
            break
    return found


def _exists(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a path that no system accepts
        return False
