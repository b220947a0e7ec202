"""Reads photos as upright RGB arrays."""

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from proposals.errors import InputError

# Pillow's own limit. Without it, a file of a few kilobytes could fill the memory.
MAX_PIXELS = cast(int, Image.MAX_IMAGE_PIXELS)
MAX_ASPECT = 8  # longer side / shorter side
STRIP = 1 << 20  # pixels that are converted at a time; a copy of a large photo takes hundreds of megabytes
FULL_SCALES = (1, 255, 1023, 4095, 16383, 65535)  # white in 0..1, and in grey images of 8 to 16 bits
DARKEST = 16  # white divided by the smallest largest value of an image that is not refused
# Formats that Pillow only identifies, or for which it starts another program.
NOT_READ = {"BUFR", "EPS", "GRIB", "HDF5", "IPTC", "MPEG", "WMF"}
LONGEST = 255  # characters of a path in a message

Photo = str | Path | BinaryIO | Image.Image | np.ndarray


def read_image(source: Photo, max_aspect: float | None = MAX_ASPECT) -> NDArray[np.uint8]:
    """Reads a photo from a path, an open file, a PIL image or an array.

    Images in grey, palette or CMYK modes become RGB, transparent pixels become white, and the orientation in the EXIF
    data is applied. Of an animation the first frame is used.

    The files of grey images with more than 8 bits (Pillow's modes I, I;16 and F) do not say which value is white. It is
    the smallest of 1, 255, 1023, 4095, 16383 and 65535 that is not below the largest value. Images are refused if their
    largest value is below a sixteenth of white (labels, for example), or a value is negative or above 65535. So are
    colour images with 16 bits per channel of which only 12 are used, because Pillow reads the upper 8 bits.

    Args:
        source: a path, a binary file, a PIL image, or an array ``(H, W, 3)`` uint8 RGB, which is returned unchanged.
        max_aspect: the largest ratio of the longer to the shorter side; None for no limit.

    Returns:
        ``(H, W, 3)`` uint8 RGB, 0..255.

    Raises:
        InputError: the file does not exist, is not an image or is truncated; the image has more than ``MAX_PIXELS``
            pixels or a larger ratio than ``max_aspect``; it is unknown which value is white; the array has another
            shape or type.
    """
    if isinstance(source, np.ndarray):
        array: NDArray[np.uint8] = _check_array(source)
    elif isinstance(source, Image.Image):
        array = _pixels(source, source)
    else:
        with _open(source) as opened:
            array = _pixels(opened, source)
    height, width = array.shape[:2]
    if max_aspect is not None and max(height, width) > max_aspect * min(height, width):
        raise InputError(f"{image_name(source)} is {width}x{height}: its aspect ratio is above {max_aspect}:1; crop it")
    return array


def image_name(source: Photo) -> str:
    """The name of an image for a message.

    Args:
        source: see :func:`read_image`.

    Returns:
        Its path, shortened if it is too long for one; "the image" for anything else.
    """
    if not isinstance(source, str | Path):
        return "the image"
    text = str(source)
    return text if len(text) <= LONGEST else f"{text[:60]}…"


def _check_array(array: np.ndarray) -> NDArray[np.uint8]:
    if array.dtype == np.uint8 and array.ndim == 3 and array.shape[2] == 3 and array.size:
        if array.max() == 1:
            raise InputError("the values of the image array are 0 and 1 only, which is black: multiply them by 255")
        return array
    cure = "convert it with PIL.Image.fromarray, or to RGB"
    if array.ndim == 3 and array.shape[2] == 3 and array.size:
        cure = "scale its values to 0..255 and convert them with .astype(np.uint8)"
    raise InputError(f"an image array must be (H, W, 3) uint8, not {array.shape} {array.dtype}: {cure}")


def _check_path(source: str | Path) -> None:
    name, text = image_name(source), str(source)
    if text.startswith("data:"):
        raise InputError(f"{name} is a data URL: decode it with base64.b64decode and give io.BytesIO(data)")
    if "://" in text:
        raise InputError(f"{name} is a URL: download the photo and give its path")
    try:
        exists = Path(source).is_file()
    except OSError:  # the name is too long
        exists = False
    if not exists and len(text) > LONGEST:
        size = f"{len(text):,} characters"
        raise InputError(f"{name} ({size}) is no path of a file: decode base64 text and give io.BytesIO(data)")
    if not exists:
        raise InputError(f"{name}: no such image file")


def _open(source: str | Path | BinaryIO) -> Image.Image:
    name = image_name(source)
    if isinstance(source, str | Path):
        _check_path(source)
    elif isinstance(source, bytes | bytearray | memoryview):
        raise InputError("the image is given as bytes: give io.BytesIO(data)")
    image = _identify(source, name)
    if image.format in NOT_READ:
        image.close()
        raise InputError(f"{name} is in the format {image.format}, which is not read: save it as JPEG or PNG")
    return image


def _identify(source: str | Path | BinaryIO, name: str) -> Image.Image:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            return Image.open(source)
    except UnidentifiedImageError as error:
        raise InputError(f"{name} cannot be read as an image") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise InputError(f"{name} has more than {MAX_PIXELS} pixels; make it smaller") from error
    except OSError as error:
        raise InputError(f"{name} cannot be read: {error.strerror or error}") from error
    except Exception as error:  # Pillow's readers may raise any exception on a broken file
        raise InputError(f"{name} cannot be read as an image ({error})") from error


def _pixels(image: Image.Image, source: Photo) -> NDArray[np.uint8]:
    """Converts an image strip by strip; an image that was opened here is rotated in place, the caller's is not."""
    if image.width * image.height > MAX_PIXELS:
        raise InputError(f"{image_name(source)} has more than {MAX_PIXELS} pixels; make it smaller")
    try:
        deep = any(";16" in str(tile) for tile in getattr(image, "tile", []))  # known before the pixels are read only
        upright = ImageOps.exif_transpose(image) if image is source else _rotated(image)
        white = _full_scale(upright, image_name(source)) if _is_deep(upright) else None
        array = np.empty((upright.height, upright.width, 3), np.uint8)
        for top, strip in _strips(upright):
            rgb = _to_rgb(strip) if white is None else _to_8_bits(strip, white)
            array[top : top + strip.height] = np.asarray(rgb)
        if deep and 0 < array.max() <= 255 // DARKEST:
            raise InputError(
                f"{image_name(source)} has 16 bits per channel, but uses 12 or fewer, so it would be nearly black: "
                "scale its values to 0..255"
            )
        return array
    except (MemoryError, InputError):
        raise
    except Exception as error:  # Pillow's readers may raise any exception on a broken file
        raise InputError(f"{image_name(source)} is truncated or corrupt ({error})") from error


def _strips(image: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    """The first row and the pixels of each strip."""
    rows = -(-STRIP // max(image.width, 1))
    for top in range(0, image.height, rows):
        yield top, image.crop((0, top, image.width, min(top + rows, image.height)))


def _rotated(image: Image.Image) -> Image.Image:
    ImageOps.exif_transpose(image, in_place=True)
    return image


def _is_deep(image: Image.Image) -> bool:
    """Whether an image is grey and has more than 8 bits per pixel."""
    return image.mode.startswith(("I", "F"))


def _full_scale(image: Image.Image, name: str) -> int:
    """The value of white in a grey image with more than 8 bits, see :func:`read_image`."""
    ranges = [(pixels.min(), pixels.max()) for pixels in (np.asarray(strip) for _, strip in _strips(image))]
    low, high = float(np.min(ranges)), float(np.max(ranges))  # NaN if a value is NaN
    known = low >= 0 and high <= FULL_SCALES[-1]
    white = next((scale for scale in FULL_SCALES if high <= scale), 0)
    if not known or (white > 1 and DARKEST * high < white):
        raise InputError(
            f"{name} has grey values from {low:g} to {high:g} (mode {image.mode}), and it is unknown which of them is "
            "white: scale them to 0..255 and convert the image to mode L"
        )
    return white


def _to_8_bits(image: Image.Image, white: int) -> Image.Image:
    grey = np.rint(np.asarray(image) * (255 / white)).astype(np.uint8)
    return Image.fromarray(grey).convert("RGB")


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")
