"""Reads photos as upright RGB arrays."""

import os
import sys
import warnings
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from grounding.runtime.heic import HEIC_CURE, is_heic, register_heic
from grounding.runtime.terminal import no_such_file
from proposals.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

# Pillow's own limit. Without it, a file of a few kilobytes could fill the memory.
MAX_PIXELS = cast(int, Image.MAX_IMAGE_PIXELS)
MAX_ASPECT = 8  # longer side / shorter side
MAX_PANORAMA = 32  # the same for photos that are grounded; the network sees panoramas in less detail
STRIP = 1 << 20  # pixels that are converted at a time; a copy of a large photo takes hundreds of megabytes
FULL_SCALES = (1, 255, 1023, 4095, 16383, 65535)  # white in 0..1, and in grey images of 8 to 16 bits
DARKEST = 16  # white divided by the smallest largest value of an image that is not refused
# Formats that Pillow only identifies, or for which it starts another program.
NOT_READ = {"BUFR", "EPS", "GRIB", "HDF5", "IPTC", "MPEG", "WMF"}
LONGEST = 255  # characters of a path in a message

ROUNDING = 0.002  # how far resizing may take values beyond 0..1

Photo: TypeAlias = (
    "str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO | Image.Image | np.ndarray | Tensor"
)


def read_image(source: Photo, max_aspect: float | None = MAX_ASPECT) -> NDArray[np.uint8]:
    """Reads a photo from a path, bytes, an open file, a PIL image, an array or a tensor.

    Images in grey, palette or CMYK modes become RGB, transparent pixels become white, and the orientation in the EXIF
    data is applied. Of an animation the first frame is used.

    The files of grey images with more than 8 bits (Pillow's modes I, I;16 and F) do not say which value is white. It is
    the smallest of 1, 255, 1023, 4095, 16383 and 65535 that is not below the largest value. Images are refused if their
    largest value is below a sixteenth of white (labels, for example), or a value is negative or above 65535. So are
    colour images with 16 bits per channel of which only 12 are used, because Pillow reads the upper 8 bits.

    Arrays and tensors are grey, ``(H, W)``, or have 1 to 4 channels (grey, grey and alpha, RGB, RGBA), ``(H, W, C)`` or
    ``(C, H, W)``. If both are possible, a tensor has its channels first and an array last. A batch of one image is
    accepted. True is white; 255 is white in uint8; in other types white is found as in grey images with more bits.

    Args:
        source: a path (``~`` is the home folder), the bytes of a file, a binary file, a PIL image, an array or a
            tensor. An array ``(H, W, 3)`` uint8 RGB is returned unchanged.
        max_aspect: the largest ratio of the longer to the shorter side; None for no limit.

    Returns:
        ``(H, W, 3)`` uint8 RGB, 0..255.

    Raises:
        InputError: the file does not exist, is not an image or is truncated; the image has more than ``MAX_PIXELS``
            pixels or a larger ratio than ``max_aspect``; it is unknown which value is white; the array has another
            shape or type; the source is a URL, or HEIC and pillow-heif is not installed.
    """
    if isinstance(source, np.ndarray) or _is_tensor(source):
        array: NDArray[np.uint8] = _from_array(source)
    elif isinstance(source, Image.Image):
        array = _pixels(source, source)
    else:
        with _open(source) as opened:
            array = _pixels(opened, source)
    height, width = array.shape[:2]
    if max_aspect is not None and max(height, width) > max_aspect * min(height, width):
        raise InputError(f"{image_name(source)} is {width}x{height}: its aspect ratio is above {max_aspect}:1; crop it")
    return array


def expanded(path: str | os.PathLike[str]) -> Path:
    """Replaces a leading ``~`` or ``~user`` of a path by the home folder.

    Args:
        path: any path.

    Returns:
        The path; unchanged if it exists as it is, or if the home folder is unknown.
    """
    given = Path(os.fsdecode(path))
    try:
        return given if given.exists() else given.expanduser()
    except (OSError, RuntimeError, ValueError):
        return given


def image_name(source: object) -> str:
    """The name of an image for a message.

    Args:
        source: see :func:`read_image`.

    Returns:
        Its path, shortened if it is too long for one; "the image" for anything else.
    """
    if not isinstance(source, str | os.PathLike):
        return "the image"
    text = os.fsdecode(source)
    return text if len(text) <= LONGEST else f"{text[:60]}…"


def is_one_image(value: object) -> bool:
    """Whether a value is one image, not a collection of images.

    Args:
        value: an image (see :func:`read_image`), or an iterable of images.

    Returns:
        True for anything but an iterable of images. An array or a tensor with four axes is a batch of images.
    """
    if isinstance(value, np.ndarray) or _is_tensor(value):
        return bool(cast(Any, value).ndim < 4)
    kinds = (str, os.PathLike, bytes, bytearray, memoryview, Image.Image)
    return isinstance(value, kinds) or hasattr(value, "read")


def _is_tensor(source: object) -> bool:
    torch = sys.modules.get("torch")  # whoever has a tensor has imported PyTorch
    return torch is not None and isinstance(source, torch.Tensor)


def _from_array(source: Any) -> NDArray[np.uint8]:
    """Converts an array or a tensor to ``(H, W, 3)`` uint8; an array of this kind is returned unchanged."""
    array = np.asarray(source) if isinstance(source, np.ndarray) else _of_tensor(source)  # no matrix, no mask
    given = f"{array.shape} {array.dtype}"
    if array.ndim == 4 and len(array) == 1:
        array = array[0]
    if array.ndim == 4:
        raise InputError(f"the array {given} is a batch of {len(array)} images: give one, or the list to ground_batch")
    first = array.ndim == 3 and array.shape[0] in (1, 3, 4)
    if first and (array.shape[2] > 4 or not isinstance(source, np.ndarray)):
        array = array.transpose(1, 2, 0)
    array = array[:, :, None] if array.ndim == 2 else array
    if array.ndim != 3 or not 1 <= array.shape[2] <= 4 or not array.size or array.dtype.kind not in "buif":
        raise InputError(
            f"an image array must be (H, W), (H, W, C) or (C, H, W) and contain numbers, with C from 1 to 4, not "
            f"{given}: convert it with PIL.Image.fromarray, or to RGB"
        )
    if array.shape[0] * array.shape[1] > MAX_PIXELS and array.dtype != np.uint8:
        raise InputError(f"the image has more than {MAX_PIXELS} pixels; make it smaller")
    return _rgb_of(_bytes_of(array))


def _of_tensor(tensor: Any) -> NDArray[Any]:
    try:
        floating = tensor.is_floating_point()
        return cast(NDArray[Any], (tensor.detach().float() if floating else tensor.detach()).cpu().numpy())
    except (RuntimeError, TypeError, NotImplementedError) as error:
        raise InputError(f"the image tensor has no values that can be read ({error}): give a dense tensor") from error


def _bytes_of(array: NDArray[Any]) -> NDArray[np.uint8]:
    """Scales the values of an array to 0..255."""
    if array.dtype == np.bool_:
        return array.astype(np.uint8) * np.uint8(255)
    low, high = float(array.min()), float(array.max())  # NaN if a value is NaN
    if array.dtype.kind in "ui" and low >= 0 and high == 1:
        raise InputError("the values of the image array are 0 and 1 only, which is black: multiply them by 255")
    if array.dtype == np.uint8:
        return array
    if array.dtype.kind == "f" and -ROUNDING <= low < 0 <= high <= 1:
        low = 0
    if array.dtype.kind == "f" and 1 < high <= 1 + ROUNDING:
        high = 1
    if not np.isfinite([low, high]).all():
        raise InputError(f"the image array ({array.dtype}) has values that are NaN or infinite: replace them")
    white = _white_of(low, high)
    if white is None:
        cure = "undo its normalisation and give" if low < 0 else "give"
        raise InputError(
            f"the image array has values from {low:g} to {high:g} ({array.dtype}), and it is unknown which of them is "
            f"white: {cure} uint8 values in 0..255, or floats in 0..1"
        )
    scaled = np.empty(array.shape, np.uint8)
    for row, values in enumerate(array):
        scaled[row] = np.rint(np.clip(values.astype(np.float64) * (255 / white), 0, 255))
    return scaled


def _rgb_of(array: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Converts ``(H, W, C)`` to RGB; transparent pixels become white."""
    channels = array.shape[2]
    if channels == 3:
        return array if array.flags.c_contiguous else np.ascontiguousarray(array)
    if channels == 1:
        return np.repeat(array, 3, axis=2)
    # RGBA in Pillow, as files are converted
    full = array if channels == 4 else array[:, :, [0, 0, 0, 1]]
    return np.asarray(_to_rgb(Image.fromarray(np.ascontiguousarray(full)))).copy()


def _check_path(source: str | os.PathLike[str]) -> None:
    name, text = image_name(source), os.fsdecode(source)
    if not text.strip():
        raise InputError("the path of the photo is empty: give the path of a file")
    if text.startswith("data:"):
        raise InputError(f"{name} is a data URL: decode it with base64.b64decode and give io.BytesIO(data)")
    if "://" in text:
        raise InputError(f"{name} is a URL: download the photo and give its path (curl -o photo.jpg URL)")
    try:
        exists, folder = expanded(source).is_file(), expanded(source).is_dir()
    except OSError:  # the name is too long
        exists = folder = False
    if folder:
        raise InputError(f"{name} is a folder: give one photo, or the paths in it to Grounder.ground_batch")
    if not exists and len(text) > LONGEST:
        size = f"{len(text):,} characters"
        raise InputError(f"{name} ({size}) is no path of a file: decode base64 text and give io.BytesIO(data)")
    if not exists:
        raise InputError(no_such_file(name))


def _open(source: object) -> Image.Image:
    name, file = image_name(source), source
    if isinstance(source, str | os.PathLike):
        _check_path(source)
        file = expanded(source)
    elif isinstance(source, bytes | bytearray | memoryview):
        file = BytesIO(source)
    elif not callable(getattr(source, "read", None)):
        raise InputError(f"{type(source).__name__} is no image: give a path, bytes, a PIL image, an array or a tensor")
    image = _identify(cast("str | Path | BinaryIO", file), name)
    if image.format in NOT_READ:
        image.close()
        raise InputError(f"{name} is in the format {image.format}, which is not read: save it as JPEG or PNG")
    return image


def _identify(source: str | Path | BinaryIO, name: str) -> Image.Image:
    try:
        return _opened(source)
    except UnidentifiedImageError as error:
        if not is_heic(_head(source)):
            raise InputError(f"{name} cannot be read as an image: give a JPEG, PNG, WebP or TIFF") from error
        raise InputError(f"{name} is a HEIC photo: {HEIC_CURE}") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise InputError(f"{name} has more than {MAX_PIXELS} pixels; make it smaller") from error
    except OSError as error:
        raise InputError(f"{name} cannot be read: {error.strerror or error}") from error
    except Exception as error:  # Pillow's readers may raise any exception on a broken file
        raise InputError(f"{name} cannot be read as an image ({error})") from error


def _opened(source: str | Path | BinaryIO) -> Image.Image:
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            return Image.open(source)
        except UnidentifiedImageError:
            if not is_heic(_head(source)) or not register_heic():
                raise
            return Image.open(source)


def _head(source: str | Path | BinaryIO) -> bytes:
    """The first bytes of a file; empty if they cannot be read."""
    try:
        if isinstance(source, str | Path):
            with Path(source).open("rb") as file:
                return file.read(12)
        source.seek(0)
        head = source.read(12)
        source.seek(0)
    except (OSError, AttributeError, ValueError):
        return b""
    return head if isinstance(head, bytes) else b""


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
    white = _white_of(low, high)
    if white is None:
        raise InputError(
            f"{name} has grey values from {low:g} to {high:g} (mode {image.mode}), and it is unknown which of them is "
            "white: scale them to 0..255 and convert the image to mode L"
        )
    return white


def _white_of(low: float, high: float) -> int | None:
    """The value of white if the smallest and the largest value are these; None if it is unknown."""
    white = next((scale for scale in FULL_SCALES if high <= scale), None)
    if white is None or not low >= 0 or (white > 1 and DARKEST * high < white):
        return None
    return white


def _to_8_bits(image: Image.Image, white: int) -> Image.Image:
    grey = np.rint(np.asarray(image) * (255 / white)).astype(np.uint8)
    return Image.fromarray(grey).convert("RGB")


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")
