"""Thumbnails: a photo's bytes -> a small upright JPEG, or why there is none."""

import re
import warnings
from io import BytesIO
from typing import NamedTuple

from PIL import Image, ImageOps, UnidentifiedImageError

from grounding.images import MAX_ASPECT, MAX_PIXELS, read_image
from proposals.errors import InputError

QUALITY = 90
GAP = 2.0  # Pillow shrinks in whole steps to this many times the size before it filters: nothing is seen of it
MAX_MARKERS = 4096  # bytes of a JPEG's markers (EXIF, colour profile) that are copied along
ORIENTATION = 0x0112


class Thumbnail(NamedTuple):
    """The bytes of a JPEG, RGB or grey, and its size in pixels."""

    data: bytes
    width: int
    height: int


def thumbnail(data: bytes, side: int = 200, min_side: int = 32) -> Thumbnail:
    """A photo at no more than ``side`` pixels.

    A plain JPEG that is small enough already is copied, so that it loses nothing a second time. Others are turned
    upright, made smaller (Lanczos) and encoded at quality 90. The bytes depend on ``data`` (and on the Pillow at hand).

    Args:
        data: a photo's file; side: of the thumbnail, the longer one; min_side: the least shorter side of the photo.

    Raises:
        InputError: an empty, broken, truncated, animated, CMYK or tiny photo, one of sides that differ more than 8:1 or
            of more than ``grounding.images.MAX_PIXELS`` pixels. The message is the kind, a colon, and the details.
    """
    if not data:
        raise InputError("empty file")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what Pillow thinks of a crawl's EXIF
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        with _open(data) as image:
            try:
                _check(image, min_side)
                return _copy(image, data, side) or _encode(_shrink(image, data, side))
            except (InputError, MemoryError):
                raise
            except Exception as error:  # Pillow's readers may raise anything on a broken file
                raise InputError(f"truncated or corrupt image: {_plain(error)}") from error


def _open(data: bytes) -> Image.Image:
    try:
        return Image.open(BytesIO(data))
    except UnidentifiedImageError as error:
        raise InputError("broken image: no format that is known") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise InputError(f"more than {MAX_PIXELS} pixels") from error
    except MemoryError:
        raise
    except Exception as error:  # as above
        raise InputError(f"broken image: {_plain(error)}") from error


def _check(image: Image.Image, min_side: int) -> None:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise InputError(f"more than {MAX_PIXELS} pixels: {width}x{height}")
    if min(width, height) < min_side:
        raise InputError(f"below {min_side} pixels: {width}x{height}")
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise InputError(f"sides that differ more than {MAX_ASPECT} to 1: {width}x{height}")
    if image.mode == "CMYK":
        raise InputError("CMYK")
    # a camera's JPEG may carry a second picture, which is no animation
    if image.format != "MPO" and getattr(image, "is_animated", False):
        raise InputError(f"animated: {image.n_frames} frames")


def _copy(image: Image.Image, data: bytes, side: int) -> Thumbnail | None:
    """The photo as it is, None where it must be encoded."""
    if image.format != "JPEG" or max(image.size) > side or image.mode not in ("RGB", "L"):
        return None
    markers = sum(len(content) for _, content in image.applist)
    if "progressive" in image.info or markers > MAX_MARKERS or not data.endswith(b"\xff\xd9"):
        return None
    if image.getexif().get(ORIENTATION, 1) != 1:
        return None
    image.load()  # which finds out whether it is whole
    return Thumbnail(data, *image.size)


def _shrink(image: Image.Image, data: bytes, side: int) -> Image.Image:
    if image.mode not in ("RGB", "L") or image.has_transparency_data:
        # Lanczos needs plain channels
        image = Image.fromarray(read_image(BytesIO(data)))
    image.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=GAP)
    return ImageOps.exif_transpose(image)


def _encode(image: Image.Image) -> Thumbnail:
    image.info.clear()  # comments and profiles would be written along
    buffer = BytesIO()
    image.save(buffer, "JPEG", quality=QUALITY)
    return Thumbnail(buffer.getvalue(), *image.size)


def _plain(error: Exception) -> str:
    """One line, without the addresses of objects, which differ from run to run."""
    return " ".join(re.sub(" at 0x[0-9a-f]+", "", str(error)).split()) or type(error).__name__
