"""A sample: a photo and its text, or the reason why it cannot be used."""

from typing import NamedTuple

from grounding.photos import PhotoFile
from proposals.errors import InputError
from training.sample_text import SampleText

MISSING_TEXT = "without text"
MISSING_PHOTO = "missing"


class SourceSample(NamedTuple):
    """A photo and its text.

    Attributes:
        key: name of the sample, unique in its unit among those that can be used.
        photo: where the bytes of the photo are; None if it has none.
        text: tags or captions.
        reason: why the sample cannot be used: the kind of reason, or the kind, a colon and details. "" if it can. A
            kind completes a sentence: "27 missing", "61 without text".
    """

    key: str
    photo: PhotoFile | None
    text: SampleText = SampleText()
    reason: str = ""


def read_photo(file: PhotoFile) -> bytes:
    """Reads the bytes of a photo or a text.

    Args:
        file: where it is.

    Returns:
        The bytes.

    Raises:
        InputError: the file is missing or cannot be read. The message is a reason of :class:`SourceSample`. It does not
            contain the path, so that it is the same on every machine.
    """
    try:
        return file.read()
    except InputError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            raise InputError(f"{MISSING_PHOTO}: no such file") from error
        raise InputError(f"unreadable: {str(error).removeprefix(f'{file} ')}") from error
    except ValueError as error:  # a path that no system accepts
        raise InputError("unreadable: invalid name") from error
