"""Checks and decodes the photos that clients upload."""

import re
from io import BytesIO

import numpy as np
from PIL import Image, UnidentifiedImageError

from grounding.images import read_image
from grounding.page.limits import Limits
from proposals.errors import InputError

FORMATS = {"image/jpeg": "JPEG", "image/png": "PNG", "image/webp": "WEBP"}
SCAN = b"\xff\xda"  # the JPEG marker of a scan; in image data, a byte ff is always followed by 00
NAME = re.compile(r"[^\x00-\x1f\x7f-\x9f/\\\u202a-\u202e\u2066-\u2069\ud800-\udfff]{1,200}")


def decode(data: bytes, limits: Limits) -> np.ndarray:
    """Decodes a photo. The format is recognised by the content.

    Args:
        data: the bytes of a JPEG, PNG or WebP file.
        limits: ``scans``, ``pixels`` and ``aspect`` are used.

    Returns:
        ``(H, W, 3)`` uint8 RGB.

    Raises:
        InputError: the file has another format or is damaged, or the photo exceeds the limits.
    """
    if data.startswith(b"\xff\xd8") and data.count(SCAN) > limits.scans:
        raise InputError(f"the photo is a JPEG with more than {limits.scans} scans: save it again without them")
    too_large = InputError(f"the photo has more than {limits.pixels} pixels: send a smaller one")
    try:
        opened = Image.open(BytesIO(data), formats=list(FORMATS.values()))
    except UnidentifiedImageError as error:
        raise InputError("the body is not a photo in a known format: send a JPEG, PNG or WebP") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise too_large from error
    except Exception as error:  # Pillow may raise any exception for a damaged file
        raise InputError("the photo is truncated or corrupt: save and send it again") from error
    with opened:
        if opened.width * opened.height > limits.pixels:
            raise too_large
        return read_image(opened, limits.aspect)


def media_type(data: bytes) -> str:
    """The media type of a photo that :func:`decode` accepts.

    Args:
        data: the bytes of its file.

    Returns:
        A key of ``FORMATS``.
    """
    if data.startswith(b"\xff\xd8"):
        return "image/jpeg"
    return "image/png" if data.startswith(b"\x89PNG") else "image/webp"


def check_name(name: str) -> str:
    """Checks the file name of a photo. The name is only displayed and never used as a path.

    Args:
        name: the name that the client sent.

    Returns:
        The same name.

    Raises:
        InputError: the name is a path or has characters that cannot be displayed.
    """
    if not NAME.fullmatch(name) or not name.strip(". "):
        raise InputError("name= must be a plain file name such as photo.jpg, without folders")
    return name
