"""Thumbnails: the bytes of a photo -> a small upright JPEG, or the reason why there is none."""

import re
import warnings
from io import BytesIO
from typing import NamedTuple

from PIL import Image, ImageOps, UnidentifiedImageError

from grounding.images import MAX_ASPECT, MAX_PIXELS, read_image
from proposals.errors import InputError

QUALITY = 90
GAP = 2.0  # Pillow first shrinks by a whole factor to at least GAP times the size; this is fast
HOLE = 4096  # bytes of zeros in a JPEG: a block that was not copied
SECTOR = 512  # bytes; a lost block begins at a multiple
PADDING = 64  # zeros at the end of a JPEG that is not complete
MAX_MARKERS = 4096  # bytes of markers (EXIF, colour profile) in a JPEG that is copied
ORIENTATION = 0x0112  # the EXIF tag


class Thumbnail(NamedTuple):
    """A JPEG, RGB or grey.

    Attributes:
        data: bytes of the file.
        width: width in pixels.
        height: height in pixels.
    """

    data: bytes
    width: int
    height: int


def make_thumbnail(data: bytes, side: int = 200, min_side: int = 32) -> Thumbnail:
    """Makes a photo at most ``side`` pixels wide and high.

    A plain JPEG that is small enough is copied, so that it is not compressed a second time. Other photos are turned
    upright, made smaller (Lanczos) and encoded with quality 90. The result depends only on ``data`` and on the version
    of Pillow.

    Args:
        data: bytes of an image file.
        side: longer side of the thumbnail, in pixels, at most.
        min_side: shorter side of the photo, in pixels, at least.

    Returns:
        The thumbnail.

    Raises:
        InputError: the photo is empty, broken, truncated, animated, CMYK or too small, its sides differ by more than
            8:1, or it has more than ``grounding.images.MAX_PIXELS`` pixels. The message is the kind of reason, a colon,
            and details.
    """
    if not data:
        raise InputError("empty")
    if data.startswith(b"\xff\xd8") and _has_hole(data):
        raise InputError("truncated or corrupt: blocks of zeros, as of a copy that stopped")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of bad EXIF, which is common on the web
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        with _open(data) as image:
            try:
                _check(image, min_side)
                return _copy(image, data, side) or _encode(_shrink(image, data, side))
            except (InputError, MemoryError):
                raise
            except Exception as error:  # Pillow may raise any exception on a broken file
                raise InputError(f"truncated or corrupt: {_one_line(error)}") from error


def _has_hole(data: bytes) -> bool:
    """Whether a part of a JPEG is zeros, which decoders take for grey pixels.

    Zeros may also encode a very large area of one colour, but these do not begin where a disk's block begins.
    """
    photo = data.rstrip(b"\0")
    if len(data) - len(photo) >= PADDING and not photo.endswith(b"\xff\xd9"):  # the end of a photo, which may be padded
        return True
    at = photo.find(bytes(HOLE))
    while at >= 0:
        if at % SECTOR == 0:
            return True
        at = photo.find(bytes(HOLE), len(photo) - len(photo[at:].lstrip(b"\0")))
    return False


def _open(data: bytes) -> Image.Image:
    try:
        return Image.open(BytesIO(data))
    except UnidentifiedImageError as error:
        raise InputError("broken: unknown format") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise InputError(f"too large: more than {MAX_PIXELS} pixels") from error
    except MemoryError:
        raise
    except Exception as error:  # as above
        raise InputError(f"broken: {_one_line(error)}") from error


def _check(image: Image.Image, min_side: int) -> None:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise InputError(f"too large: more than {MAX_PIXELS} pixels, {width}x{height}")
    if min(width, height) < min_side:
        raise InputError(f"too small: below {min_side} pixels, {width}x{height}")
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise InputError(f"too narrow: sides differ by more than {MAX_ASPECT} to 1, {width}x{height}")
    if image.mode == "CMYK":
        raise InputError("in CMYK")
    # MPO: the JPEG of a camera with a second picture in it, which is not an animation
    if image.format != "MPO" and getattr(image, "is_animated", False):
        raise InputError(f"animated: {image.n_frames} frames")


def _copy(image: Image.Image, data: bytes, side: int) -> Thumbnail | None:
    """The photo as it is; None if it must be encoded."""
    if image.format != "JPEG" or max(image.size) > side or image.mode not in ("RGB", "L"):
        return None
    markers = sum(len(content) for _, content in image.applist)
    if "progressive" in image.info or markers > MAX_MARKERS or not data.endswith(b"\xff\xd9"):
        return None
    if image.getexif().get(ORIENTATION, 1) != 1:
        return None
    image.load()  # raises if the file is truncated
    return Thumbnail(data, *image.size)


def _shrink(image: Image.Image, data: bytes, side: int) -> Image.Image:
    if image.mode not in ("RGB", "L") or image.has_transparency_data:
        # Lanczos needs RGB or grey without transparency
        image = Image.fromarray(read_image(BytesIO(data)))
    image.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=GAP)
    return ImageOps.exif_transpose(image)


def _encode(image: Image.Image) -> Thumbnail:
    image.info.clear()  # otherwise comments and colour profiles are written, too
    buffer = BytesIO()
    image.save(buffer, "JPEG", quality=QUALITY)
    return Thumbnail(buffer.getvalue(), *image.size)


def _one_line(error: Exception) -> str:
    """The message on one line, without addresses of objects, which differ between runs."""
    return " ".join(re.sub(" at 0x[0-9a-f]+", "", str(error)).split()) or type(error).__name__
