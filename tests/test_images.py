import io

import numpy as np
import pytest
from PIL import Image

from grounding.images import MAX_PIXELS, read_image
from proposals.errors import InputError


def gradient(height: int = 40, width: int = 60) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 4, y * 5, x + y], 2).astype(np.uint8)


def test_arrays_pil_images_and_paths_agree(tmp_path):
    pixels = gradient()
    Image.fromarray(pixels).save(tmp_path / "a.png")
    for source in (pixels, Image.fromarray(pixels), tmp_path / "a.png", str(tmp_path / "a.png")):
        np.testing.assert_array_equal(read_image(source), pixels)


@pytest.mark.parametrize("turn", range(1, 9))
def test_the_exif_orientation_is_applied(tmp_path, turn):
    pixels = gradient()
    # the pixels that a camera stores for an upright photo, by the orientation in its EXIF data
    undo = {1: lambda a: a, 2: lambda a: a[:, ::-1], 3: lambda a: a[::-1, ::-1], 4: lambda a: a[::-1],
            5: lambda a: a.transpose(1, 0, 2), 6: lambda a: np.rot90(a), 7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
            8: lambda a: np.rot90(a, -1)}  # fmt: skip
    stored = Image.fromarray(np.ascontiguousarray(undo[turn](pixels)))
    exif = stored.getexif()
    exif[0x0112] = turn
    stored.save(tmp_path / "turned.png", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / "turned.png"), pixels)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "YCbCr"])
def test_every_mode_becomes_rgb(mode):
    image = read_image(Image.fromarray(gradient()).convert("RGB").convert(mode))
    assert image.shape == (40, 60, 3)
    assert image.dtype == np.uint8
    assert image.std() > 5


def test_16_bit_grey_keeps_its_range():
    deep = Image.fromarray((np.arange(40 * 60).reshape(40, 60) * 27).astype(np.uint16))
    image = read_image(deep)
    assert image.max() > 240
    assert len(np.unique(image)) > 200


def test_transparency_becomes_white():
    pixels = np.zeros((8, 8, 4), np.uint8)
    pixels[:4, :, 3] = 255
    image = read_image(Image.fromarray(pixels))
    assert (image[:4] == 0).all()
    assert (image[4:] == 255).all()


def bomb() -> bytes:
    """A PNG of a few kilobytes and 400 million pixels."""
    buffer = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(buffer, "PNG")
    return buffer.getvalue()


def test_unreadable_files_are_refused(tmp_path):
    whole = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (90, 90, 3), np.uint8)).save(whole, "JPEG")
    cases = {
        "text.jpg": (b"this is no picture", "cannot be read as an image"),
        "empty.jpg": (b"", "cannot be read as an image"),
        "half.jpg": (whole.getvalue()[:2000], "is truncated or corrupt"),
        "bomb.png": (bomb(), f"has more than {MAX_PIXELS} pixels"),
    }
    for name, (content, message) in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=message) as caught:
            read_image(tmp_path / name)
        assert name in str(caught.value)
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="no such image file"):
        read_image(tmp_path / "missing.jpg")
    with pytest.raises(InputError, match="no such image file"):
        read_image(tmp_path)


@pytest.mark.parametrize("array", [np.zeros((4, 4)), np.zeros((4, 4, 3)), np.zeros((4, 4, 4), np.uint8),
                                   np.zeros((0, 4, 3), np.uint8)])  # fmt: skip
def test_invalid_arrays_are_refused(array):
    with pytest.raises(InputError, match=r"must be \(H, W, 3\) uint8"):
        read_image(array)


def test_a_very_long_image_is_refused():
    with pytest.raises(InputError, match="the image is 4000x1: its aspect ratio is above 8:1; crop it"):
        read_image(np.zeros((1, 4000, 3), np.uint8))
