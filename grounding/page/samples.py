"""Photos to try, of those that scikit-image ships on disk."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files

from proposals.errors import InputError

MEDIA_TYPES = {"jpg": "image/jpeg", "png": "image/png"}


@dataclass(frozen=True)
class Sample:
    """A photo and what to ask of it.

    Attributes:
        name: in addresses; file: in ``skimage/data``; title: what it shows; phrases: to try.

    Raises:
        InputError: scikit-image ships no such photo.
    """

    name: str
    file: str
    title: str
    phrases: Sequence[str]

    def __post_init__(self):
        if "/" in self.file or self.file[-3:] not in MEDIA_TYPES or not (files("skimage.data") / self.file).is_file():
            raise InputError(f"step.samples.{self.name}.file={self.file} is no photo that scikit-image ships")

    @property
    def media_type(self) -> str:
        """Of the file."""
        return MEDIA_TYPES[self.file[-3:]]

    @cached_property
    def data(self) -> bytes:
        """The file's bytes."""
        return (files("skimage.data") / self.file).read_bytes()
