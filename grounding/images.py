"""Reads photos as upright RGB arrays."""

import warnings
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

Photo = str | Path | BinaryIO | Image.Image | np.ndarray


def read_image(source: Photo, max_aspect: float | None = MAX_ASPECT) -> NDArray[np.uint8]:
    """Reads a photo from a path, an open file, a PIL image or an array.

    Images in grey, palette, CMYK or 16-bit modes become RGB, transparent pixels become white, and the orientation in
    the EXIF data is applied. Of an animation the first frame is used.

    Args:
        source: a path, a binary file, a PIL image, or an array ``(H, W, 3)`` uint8 RGB, which is returned unchanged.
        max_aspect: the largest ratio of the longer to the shorter side; None for no limit.

    Returns:
        ``(H, W, 3)`` uint8 RGB, 0..255.

    Raises:
        InputError: the file does not exist, is not an image or is truncated; the image has more than ``MAX_PIXELS``
            pixels or a larger ratio than ``max_aspect``; the array has another shape or type.
    """
    if isinstance(source, np.ndarray):
        if source.dtype != np.uint8 or source.ndim != 3 or source.shape[2] != 3 or not source.size:
            raise InputError(f"an image array must be (H, W, 3) uint8, not {source.shape} {source.dtype}")
        array: NDArray[np.uint8] = source
    elif isinstance(source, Image.Image):
        array = _pixels(source, source)
    else:
        with _open(source) as opened:
            array = _pixels(opened, source)
    height, width = array.shape[:2]
    if max_aspect is not None and max(height, width) > max_aspect * min(height, width):
        raise InputError(f"{_name(source)} is {width}x{height}: its aspect ratio is above {max_aspect}:1; crop it")
    return array


def _open(source: str | Path | BinaryIO) -> Image.Image:
    name = _name(source)
    if isinstance(source, str | Path) and not Path(source).is_file():
        raise InputError(f"{name}: no such image file")
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
        raise InputError(f"{_name(source)} has more than {MAX_PIXELS} pixels; make it smaller")
    try:
        upright = ImageOps.exif_transpose(image) if image is source else _rotated(image)
        array = np.empty((upright.height, upright.width, 3), np.uint8)
        rows = -(-STRIP // max(upright.width, 1))
        for top in range(0, upright.height, rows):
            strip = upright.crop((0, top, upright.width, min(top + rows, upright.height)))
            array[top : top + rows] = np.asarray(_to_rgb(strip))
        return array
    except MemoryError:
        raise
    except Exception as error:  # Pillow's readers may raise any exception on a broken file
        raise InputError(f"{_name(source)} is truncated or corrupt ({error})") from error


def _rotated(image: Image.Image) -> Image.Image:
    ImageOps.exif_transpose(image, in_place=True)
    return image


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        # 16-bit grey: Pillow's own conversion would clip it
        return Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def _name(source: Photo) -> str:
    return str(source) if isinstance(source, str | Path) else "the image"
