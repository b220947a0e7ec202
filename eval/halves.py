"""Halves of a data set: settings are chosen on one half of the photos, and checked on the other."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eval.photo_reading import PhotoReader
from proposals.errors import InputError

PARTS = {"all": slice(None), "even": slice(0, None, 2), "odd": slice(1, None, 2)}


class HalfOf:
    """The even or the odd photos of a data set, or all. The first photo by the order of the ids is even.

    Args:
        photos: the data set.
        part: all, even or odd.

    Attributes:
        ids: the names of these photos, in the order of the data set.
        folder: the folder of the photos.

    Raises:
        InputError: the part is unknown.
    """

    def __init__(self, photos: PhotoReader, part: str):
        if part not in PARTS:
            raise InputError(f"part={part} must be one of {', '.join(PARTS)}")
        chosen = set(sorted(set(photos.ids))[PARTS[part]])
        self.ids: Sequence[str] = [name for name in photos.ids if name in chosen]
        self.folder: Path = photos.folder
        self._photos = photos

    def read(self, name: str) -> Any:
        """Reads a photo's annotation.

        Args:
            name: one of ``ids``.

        Raises:
            InputError: it cannot be used.
        """
        return self._photos.read(name)


def part_record(part: str) -> dict[str, str]:
    """The part for ``metrics.json``; nothing for all photos.

    Args:
        part: all, even or odd.
    """
    return {} if part == "all" else {"part": part}
