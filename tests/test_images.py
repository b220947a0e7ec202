import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from grounding.images import FULL_SCALES, MAX_PIXELS, read_image
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


@pytest.mark.parametrize("white", FULL_SCALES)
@pytest.mark.parametrize("kind", [np.uint16, np.int32, np.float32])
def test_deep_grey_is_scaled_by_its_range(monkeypatch, kind, white):
    grey = gradient()[:, :, 0]
    values = grey / 255 * white
    deep = (values if kind is np.float32 else np.rint(values)).astype(kind)
    if deep.max() < white / 1.5:
        deep[-1, -1] = white
    monkeypatch.setattr("grounding.images.STRIP", 240)  # the range is that of all strips
    image = read_image(Image.fromarray(deep))
    expected = np.rint(deep.astype(float) * 255 / white)
    assert np.abs(image - expected[:, :, None]).max() <= 1
    assert image.max() > 150


@pytest.mark.parametrize(("name", "kind"), [
    ("a.png", np.uint16), ("a.tif", np.uint16), ("a.pgm", np.uint16), ("a.jp2", np.uint16), ("a.tif", np.int32),
    ("a.tif", np.float32),
])  # fmt: skip
def test_deep_files_are_read(tmp_path, name, kind):
    Image.fromarray((gradient()[:, :, 0].astype(int) * 257).astype(kind)).save(tmp_path / name)
    image = read_image(tmp_path / name)
    np.testing.assert_allclose(image[:, :, 0], gradient()[:, :, 0], atol=1)


def test_big_endian_grey(tmp_path):
    deep = Image.frombytes("I;16B", (60, 40), (gradient()[:, :, 0].astype(">u2") * 257).tobytes())
    np.testing.assert_array_equal(read_image(deep)[:, :, 0], gradient()[:, :, 0])


@pytest.mark.parametrize(("values", "said"), [
    ([0, 9], "from 0 to 9 "), ([-1, 200], "from -1 to 200 "), ([0, 70_000], "from 0 to 70000 "),
    ([0.0, 1.02], "from 0 to 1.02 "), ([0.0, float("nan")], "from nan to nan "),
    ([0.0, float("inf")], "from 0 to inf "),
    ([-0.5, 0.5], "from -0.5 to 0.5 "),
])  # fmt: skip
def test_a_range_without_a_known_white_is_refused(values, said):
    deep = np.resize(np.array(values, np.float32 if isinstance(values[0], float) else np.int32), (40, 60))
    message = f"the image has grey values {said}.*scale them to 0..255 and convert the image to mode L"
    with pytest.raises(InputError, match=message):
        read_image(Image.fromarray(deep))


@given(arrays(np.int32, st.tuples(st.integers(2, 9), st.integers(2, 9)), elements=st.integers(-3, 70_000)))
def test_deep_grey_is_never_dark_by_mistake(values):
    try:
        image = read_image(Image.fromarray(values))
    except InputError:
        return
    assert image.max() >= 15 or not values.any()  # a sixteenth of white, rounded
    order = np.argsort(values, axis=None)
    assert (np.diff(image[:, :, 0].ravel()[order].astype(int)) >= 0).all()


def write_deep_png(path: Path, values: np.ndarray) -> Path:
    """Writes ``(H, W, 3)`` uint16 as PNG, which Pillow cannot."""
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    head = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], 16, 2, 0, 0, 0)
    chunks = [(b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    data = b"".join(struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + data)
    return path


def test_deep_colour_is_read_or_refused(tmp_path):
    values = gradient().astype(np.uint16) * 257
    np.testing.assert_array_equal(read_image(write_deep_png(tmp_path / "a.png", values)), gradient())
    with pytest.raises(InputError, match=r"a\.png has 16 bits per channel, but uses 12 or fewer.*scale its values"):
        read_image(write_deep_png(tmp_path / "a.png", values >> 4))
    assert not read_image(write_deep_png(tmp_path / "a.png", values * 0)).any()


def test_an_array_of_zeros_and_ones_is_refused():
    with pytest.raises(InputError, match="are 0 and 1 only, which is black: multiply them by 255"):
        read_image((gradient() > 40).astype(np.uint8))


def test_a_black_image_stays_black():
    for mode in ("I", "F", "I;16"):
        assert not read_image(Image.new(mode, (4, 4))).any()


PIXELS = "iVBORw0KGgo" * 50


@pytest.mark.parametrize(("source", "message"), [
    (PIXELS, "iVBORw0KGgo.*… .550 characters. is no path of a file: decode base64 text and give io.BytesIO"),
    ("/9j/" * 3000, ".12,000 characters. is no path of a file"),
    ("data:image/png;base64,iVBO", "is a data URL: decode it with base64.b64decode and give io.BytesIO"),
    ("https://example.org/a.jpg", "a.jpg is a URL: download the photo and give its path .curl -o photo"),
    (b"\x89PNG", "the image cannot be read as an image"),
    ("a\0.jpg", "no such image file"),
])  # fmt: skip
def test_text_and_bytes_are_not_paths(source, message):
    with pytest.raises(InputError, match=message) as caught:
        read_image(source)
    assert len(str(caught.value)) < 400


def test_formats_that_start_a_program_are_refused(tmp_path):
    Image.fromarray(gradient()).save(tmp_path / "a.eps")
    (tmp_path / "a.eps").rename(tmp_path / "a.jpg")
    with pytest.raises(InputError, match="is in the format EPS, which is not read: save it as JPEG or PNG"):
        read_image(tmp_path / "a.jpg")


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
    with pytest.raises(InputError, match="is a folder: give one photo"):
        read_image(tmp_path)


def test_a_very_long_image_is_refused():
    with pytest.raises(InputError, match="the image is 4000x1: its aspect ratio is above 8:1; crop it"):
        read_image(np.zeros((1, 4000, 3), np.uint8))
