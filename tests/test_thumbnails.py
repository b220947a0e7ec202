"""Thumbnails: small, upright, copied if the photo is small already; broken photos are refused."""

import struct
import zlib
from importlib.resources import files
from io import BytesIO

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from grounding.images import read_image
from proposals.errors import InputError
from training.thumbnails import make_thumbnail

COFFEE = Image.open(str(files("skimage.data") / "coffee.png")).convert("RGB")


def encode(image: Image.Image, kind: str = "JPEG", **options) -> bytes:
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def small(size: tuple[int, int] = (120, 80)) -> Image.Image:
    return COFFEE.resize(size)


def turned(image: Image.Image, orientation: int = 6) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encode(image, exif=exif)


def likeness(one, other) -> float:
    """The correlation of two images' pixels."""
    return np.corrcoef(np.asarray(one).ravel(), np.asarray(other).ravel())[0, 1]


@pytest.mark.parametrize("image", [small(), small().convert("L"), small((200, 133))])
def test_a_small_plain_photo_is_copied(image):
    data = encode(image)
    assert make_thumbnail(data) == (data, *image.size)
    assert make_thumbnail(turned(image, 1)).data == turned(image, 1)


@pytest.mark.parametrize(
    "data",
    [
        encode(small(), progressive=True),
        encode(small()) + b"junk",
        encode(small(), icc_profile=bytes(5000)),
        encode(small(), "PNG"),
        encode(small(), "WEBP"),
        encode(small().convert("P"), "GIF"),
        encode(small().convert("RGBA"), "PNG"),
    ],
)
def test_other_small_photos_are_encoded_at_their_size(data):
    found = make_thumbnail(data)
    image = Image.open(BytesIO(found.data))
    assert (found.width, found.height) == image.size == (120, 80) and found.data != data
    assert image.format == "JPEG" and image.mode == "RGB" and image.info.keys() <= {
        "jfif", "jfif_version", "jfif_unit", "jfif_density"
    }  # fmt: skip
    assert likeness(image, read_image(BytesIO(data))) > 0.96  # a palette is noisy


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_large_photo_becomes_small(kind):
    found = make_thumbnail(encode(COFFEE, kind), side=150)
    assert (found.width, found.height) == (150, 100)
    exact = COFFEE.resize((150, 100), Image.Resampling.LANCZOS)
    assert likeness(Image.open(BytesIO(found.data)), exact) > 0.99
    assert make_thumbnail(encode(COFFEE, kind), side=150) == found


@pytest.mark.parametrize("size", [(120, 80), (600, 400)])
def test_photos_are_turned_upright(size):
    data = turned(small(size))
    found = make_thumbnail(data)
    upright = Image.fromarray(read_image(BytesIO(data))).resize((found.width, found.height))
    assert found.height > found.width
    assert likeness(Image.open(BytesIO(found.data)), upright) > 0.98


def bomb(width: int, height: int) -> bytes:
    """A PNG whose header claims a size, without pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"")), (b"IEND", b"")]
    parts = (struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


FAULTS = {
    "empty": b"",
    "broken: unknown format": b"no photo",
    "truncated or corrupt: image file is truncated": encode(small((160, 160)))[:2000],
    "truncated or corrupt": encode(COFFEE, "PNG")[:30000] + bytes(500),
    "too small: below 32 pixels, 31x40": encode(small((31, 40))),
    "too narrow: sides differ by more than 8 to 1, 500x50": encode(small((500, 50))),
    "in CMYK": encode(small().convert("CMYK")),
    "animated: 2 frames": encode(small(), "GIF", save_all=True, append_images=[small().rotate(90)]),
    "too large: more than 89478485 pixels, 9500x9500": bomb(9500, 9500),
    "too large: more than 89478485 pixels": bomb(60000, 60000),
}


@pytest.mark.parametrize("reason", FAULTS)
def test_unusable_photos_are_refused(reason):
    with pytest.raises(InputError) as refused:
        make_thumbnail(FAULTS[reason])
    # Pillow refuses a decompression bomb when it opens the file or when the size is checked
    assert str(refused.value).startswith(reason.removesuffix(", 9500x9500"))
    assert "\n" not in str(refused.value) and " at 0x" not in str(refused.value)


def test_an_animated_webp_or_png_is_refused():
    for kind in ("WEBP", "PNG"):
        with pytest.raises(InputError, match="animated: 2 frames"):
            make_thumbnail(encode(small(), kind, save_all=True, append_images=[small().rotate(90)]))


def test_a_jpeg_with_two_pictures_is_not_an_animation():
    assert make_thumbnail(encode(small(), "MPO", save_all=True, append_images=[small()]))[1:] == (120, 80)


WHOLE = {kind: encode(small((64, 48)), kind) for kind in ("JPEG", "PNG", "WEBP", "GIF", "TIFF")}


@given(st.sampled_from(sorted(WHOLE)), st.data())
def test_a_damaged_file_gives_a_thumbnail_or_an_input_error(kind, draw):
    data = bytearray(WHOLE[kind])
    for _ in range(draw.draw(st.integers(1, 4))):
        data[draw.draw(st.integers(0, len(data) - 1))] = draw.draw(st.integers(0, 255))
    data = bytes(data[: draw.draw(st.integers(0, len(data)))])
    try:
        found = make_thumbnail(data, side=40)
    except InputError as error:
        assert "\n" not in str(error)
    else:
        assert max(found[1:]) <= 64
