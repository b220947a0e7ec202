"""A photo, as the rest of the project wants it: HWC uint8 RGB, upright."""

import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from proposals.errors import InputError

# Pillow's own bound: beyond it a file of a few kilobytes may fill the memory
MAX_PIXELS = Image.MAX_IMAGE_PIXELS
MAX_ASPECT = 8

Photo = str | Path | Image.Image | np.ndarray


def read_image(source: Photo) -> np.ndarray:
    """Reads a photo from a path, a PIL image or an array.

    Grey, palette, CMYK and 16-bit images become RGB, transparency becomes white, the camera's orientation (EXIF) is
    applied, of an animation the first frame is taken.

    Args:
        source: a path, a PIL image, or an array (H, W, 3) uint8 RGB, which is returned as it is.

    Returns:
        (H, W, 3) uint8, RGB, 0..255.

    Raises:
        InputError: no such file, not an image, truncated, of more than ``MAX_PIXELS`` pixels, of sides that differ more
            than ``MAX_ASPECT`` to 1, or an array of another shape or type.
    """
    if isinstance(source, np.ndarray):
        if source.dtype != np.uint8 or source.ndim != 3 or source.shape[2] != 3 or not source.size:
            raise InputError(f"an image array must be (H, W, 3) uint8, not {source.shape} {source.dtype}")
        array = source
    elif isinstance(source, Image.Image):
        array = np.asarray(_to_rgb(source, source))
    else:
        with _open(Path(source)) as opened:
            array = np.asarray(_to_rgb(opened, source))
    height, width = array.shape[:2]
    if max(height, width) > MAX_ASPECT * min(height, width):
        raise InputError(f"{_name(source)} is {width}x{height}: its sides differ more than {MAX_ASPECT}:1; crop it")
    return array


def _open(path: Path) -> Image.Image:
    if not path.is_file():
        raise InputError(f"{path}: there is no such image")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            return Image.open(path)
    except UnidentifiedImageError as error:
        raise InputError(f"{path} is no image that can be read") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise InputError(f"{path} has more than {MAX_PIXELS} pixels; make it smaller") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error


def _to_rgb(image: Image.Image, source: Photo) -> Image.Image:
    if image.width * image.height > MAX_PIXELS:
        raise InputError(f"{_name(source)} has more than {MAX_PIXELS} pixels; make it smaller")
    try:
        image = ImageOps.exif_transpose(image)
        if image.mode.startswith("I"):
            # 16 bits of grey; Pillow's own conversion would clip them
            return Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8)).convert("RGB")
        if image.has_transparency_data:
            image = image.convert("RGBA")
            return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
        return image.convert("RGB")
    except (OSError, SyntaxError, ValueError) as error:
        raise InputError(f"{_name(source)} is truncated or corrupt ({error})") from error


def _name(source: Photo) -> str:
    return str(source) if isinstance(source, str | Path) else "the image"
