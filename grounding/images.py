"""A photo, as the rest of the project wants it: HWC uint8 RGB, upright."""

import warnings
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from proposals.errors import InputError

# Pillow's own bound: beyond it a file of a few kilobytes may fill the memory
MAX_PIXELS = cast(int, Image.MAX_IMAGE_PIXELS)
MAX_ASPECT = 8
STRIP = 1 << 20  # pixels that are converted at a time: each copy of a large photo is a hundred megabytes

Photo = str | Path | BinaryIO | Image.Image | np.ndarray


def read_image(source: Photo, max_aspect: float | None = MAX_ASPECT) -> np.ndarray:
    """Reads a photo from a path, an open file, a PIL image or an array.

    Grey, palette, CMYK and 16-bit images become RGB, transparency becomes white, the camera's orientation (EXIF) is
    applied, of an animation the first frame is taken.

    Args:
        source: a path, a binary file, a PIL image, or an array (H, W, 3) uint8 RGB, which is returned as it is.
        max_aspect: how many times the longer side may be the shorter one; None for any.

    Returns:
        (H, W, 3) uint8, RGB, 0..255.

    Raises:
        InputError: no such file, not an image, truncated, of more than ``MAX_PIXELS`` pixels, of sides that differ more
            than ``max_aspect`` to 1, or an array of another shape or type.
    """
    if isinstance(source, np.ndarray):
        if source.dtype != np.uint8 or source.ndim != 3 or source.shape[2] != 3 or not source.size:
            raise InputError(f"an image array must be (H, W, 3) uint8, not {source.shape} {source.dtype}")
        array = source
    elif isinstance(source, Image.Image):
        array = _pixels(source, source)
    else:
        with _open(source) as opened:
            array = _pixels(opened, source)
    height, width = array.shape[:2]
    if max_aspect is not None and max(height, width) > max_aspect * min(height, width):
        raise InputError(f"{_name(source)} is {width}x{height}: its sides differ more than {max_aspect}:1; crop it")
    return array


def _open(source: str | Path | BinaryIO) -> Image.Image:
    name = _name(source)
    if isinstance(source, str | Path) and not Path(source).is_file():
        raise InputError(f"{name}: there is no such image")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            return Image.open(source)
    except UnidentifiedImageError as error:
        raise InputError(f"{name} is no image that can be read") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise InputError(f"{name} has more than {MAX_PIXELS} pixels; make it smaller") from error
    except OSError as error:
        raise InputError(f"{name} cannot be read: {error.strerror or error}") from error
    except Exception as error:  # Pillow's readers may raise anything on a broken file
        raise InputError(f"{name} is no image that can be read ({error})") from error


def _pixels(image: Image.Image, source: Photo) -> np.ndarray:
    """(H, W, 3) uint8 of an image, strip by strip; one that was opened here is turned upright in place."""
    if image.width * image.height > MAX_PIXELS:
        raise InputError(f"{_name(source)} has more than {MAX_PIXELS} pixels; make it smaller")
    try:
        upright = ImageOps.exif_transpose(image) if image is source else _turned(image)
        array = np.empty((upright.height, upright.width, 3), np.uint8)
        rows = -(-STRIP // max(upright.width, 1))
        for top in range(0, upright.height, rows):
            strip = upright.crop((0, top, upright.width, min(top + rows, upright.height)))
            array[top : top + rows] = np.asarray(_to_rgb(strip))
        return array
    except MemoryError:
        raise
    except Exception as error:  # Pillow's readers may raise anything on a broken file
        raise InputError(f"{_name(source)} is truncated or corrupt ({error})") from error


def _turned(image: Image.Image) -> Image.Image:
    ImageOps.exif_transpose(image, in_place=True)
    return image


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        # 16 bits of grey; Pillow's own conversion would clip them
        return Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def _name(source: Photo) -> str:
    return str(source) if isinstance(source, str | Path) else "the image"
