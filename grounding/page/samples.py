"""Sample photos, from those that scikit-image installs."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files

from proposals.errors import InputError

MEDIA_TYPES = {"jpg": "image/jpeg", "png": "image/png"}


@dataclass(frozen=True)
class SamplePhoto:
    """A photo to try, with phrases for it.

    Attributes:
        name: its name in URLs.
        file: its file in ``skimage/data``.
        title: what it shows.
        phrases: phrases to try.

    Raises:
        InputError: scikit-image does not install such a photo.
    """

    name: str
    file: str
    title: str
    phrases: Sequence[str]

    def __post_init__(self) -> None:
        if "/" in self.file or self.file[-3:] not in MEDIA_TYPES or not (files("skimage.data") / self.file).is_file():
            raise InputError(
                f"step.samples.{self.name}.file={self.file} is not a photo of scikit-image: use a .jpg or .png file in "
                "skimage/data, such as astronaut.png"
            )

    @property
    def path(self) -> str:
        """Its name in URLs with the ending of its format."""
        return f"{self.name}.{self.file[-3:]}"

    @property
    def media_type(self) -> str:
        """The media type of the file, such as ``image/png``."""
        return MEDIA_TYPES[self.file[-3:]]

    @cached_property
    def data(self) -> bytes:
        """The bytes of the file."""
        return (files("skimage.data") / self.file).read_bytes()
