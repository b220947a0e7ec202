"""Images as people have them: arrays and tensors of many kinds, bytes, open files, home folders, HEIC."""

import io
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from grounding.images import MAX_PANORAMA, expanded, is_one_image, read_image
from grounding.photos import find_photos
from grounding.runtime.heic import is_heic
from proposals.errors import InputError

Y, X = np.mgrid[:40, :60]
PIXELS = np.stack([X * 4, Y * 5, X + Y], 2).astype(np.uint8)
CHW = PIXELS.transpose(2, 0, 1)
OPAQUE = np.dstack([PIXELS, np.full((40, 60), 255, np.uint8)])
SAME = {
    "uint16": PIXELS.astype(np.uint16) * 257,
    "int64": PIXELS.astype(np.int64),
    "float64 in 0..1": PIXELS / 255,
    "float16 in 0..1": (PIXELS / 255).astype(np.float16),
    "float32 in 0..255": PIXELS.astype(np.float32),
    "a little beyond 0..1": np.where(PIXELS == 255, 1.001, np.where(PIXELS == 0, -0.001, PIXELS / 255)),
    "RGBA": OPAQUE,
    "RGBA in 0..1": OPAQUE / 255,
    "channels first": CHW,
    "a batch of one": PIXELS[None],
    "not contiguous": PIXELS[:, ::-1][:, ::-1],
    "tensor": torch.from_numpy(CHW.copy()),
    "tensor in 0..1": torch.from_numpy(CHW / 255),
    "tensor with a gradient": torch.from_numpy(CHW / 255).requires_grad_(),
    "tensor in bfloat16": torch.from_numpy(CHW / 255).bfloat16(),
    "tensor, a batch of one": torch.from_numpy(CHW / 255)[None],
    "tensor, channels last": torch.from_numpy(PIXELS),
}


@pytest.mark.parametrize("kind", SAME)
def test_kinds_of_arrays_are_the_same_photo(kind):
    image = read_image(SAME[kind])
    assert (image.shape, image.dtype, image.flags.c_contiguous) == ((40, 60, 3), np.uint8, True)
    assert np.abs(image.astype(int) - PIXELS).max() <= (1 if "float" in kind else 0)


def test_grey_boolean_and_alpha():
    grey, mask = PIXELS[:, :, 0], PIXELS[:, :, 0] > 90
    for source in (grey, grey[:, :, None], torch.from_numpy(grey.copy()), torch.from_numpy(grey.copy())[None]):
        np.testing.assert_array_equal(read_image(source), np.dstack([grey] * 3))
    np.testing.assert_array_equal(read_image(mask), np.dstack([mask * 255] * 3))
    clear = np.dstack([grey, np.where(mask, 255, 0)]).astype(np.uint8)
    np.testing.assert_array_equal(read_image(clear)[:, :, 0], np.where(mask, grey, 255))
    rgba = np.dstack([PIXELS, mask * 255]).astype(np.uint8)
    np.testing.assert_array_equal(read_image(rgba), np.where(mask[:, :, None], PIXELS, 255))


def test_three_rows_are_channels_of_a_tensor_only():
    array = np.arange(3 * 20 * 3, dtype=np.uint8).reshape(3, 20, 3)
    assert read_image(array).shape == (3, 20, 3)
    assert read_image(torch.from_numpy(array)).shape == (20, 3, 3)


@given(arrays(np.float64, st.tuples(st.integers(1, 5), st.integers(1, 5)), elements=st.floats(-1, 300)))
def test_floats_are_scaled_in_order_or_refused(values):
    try:
        image = read_image(values)
    except InputError as error:
        assert "unknown which of them is white" in str(error)
        return
    assert image.max() >= 15 or values.max() <= 1 / 8
    order = np.argsort(values, axis=None)
    assert (np.diff(image[:, :, 0].ravel()[order].astype(int)) >= 0).all()


REFUSED = {
    "normalised": (PIXELS / 255 - 0.4, r"from -0.4 to 0.5\d+ .float64., .* undo its normalisation and give uint8"),
    "0..2": (PIXELS / 118.0, r"from 0 to 2 .float64., .* white: give uint8 values in 0..255, or floats in 0..1"),
    "NaN": (np.full((4, 4), np.nan), "NaN or infinite"),
    "0 and 1": (np.eye(4, dtype=np.int64), "are 0 and 1 only, which is black: multiply them by 255"),
    "a batch": (torch.zeros(2, 3, 4, 4), r"\(2, 3, 4, 4\) float32 is a batch of 2 images: give one, or the list to"),
    "nine channels": (np.zeros((5, 5, 9)), r"must be \(H, W\), .* not \(5, 5, 9\) float64: convert it with"),
    "empty": (np.zeros((0, 4, 3), np.uint8), "must be"),
    "text": (np.full((4, 4), "a"), "and contain numbers"),
    "no values": (torch.zeros(3, 4, 4, device="meta"), "has no values that can be read .*: give a dense tensor"),
    "a number": (5, "int is no image: give a path, bytes, a PIL image, an array or a tensor"),
    "a text file": (io.StringIO("a"), "cannot be read as an image"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_photo_is_refused_in_one_line(name):
    source, message = REFUSED[name]
    with pytest.raises(InputError, match=message) as caught:
        read_image(source)
    assert "\n" not in str(caught.value)


def test_large_float_arrays_are_refused_before_they_are_copied():
    with pytest.raises(InputError, match=r"has more than .* pixels; make it smaller"):
        read_image(np.broadcast_to(np.float32(0.5), (10_000, 10_000)))


def test_bytes_open_files_and_home_folders(tmp_path, monkeypatch):
    Image.fromarray(PIXELS).save(tmp_path / "a.png")
    data = (tmp_path / "a.png").read_bytes()
    monkeypatch.setenv("HOME", str(tmp_path))
    with (tmp_path / "a.png").open("rb") as file:
        for source in (data, bytearray(data), memoryview(data), io.BytesIO(data), file, "~/a.png", Path("~/a.png")):
            np.testing.assert_array_equal(read_image(source), PIXELS)
    assert find_photos("~/a.png").paths == find_photos("~/*.png").paths == [str(tmp_path / "a.png")]
    assert expanded("~nobody-at-all/a.png") == Path("~nobody-at-all/a.png")
    with pytest.raises(InputError, match="no such image file"):
        read_image("~nobody-at-all/a.png")


def test_one_image_is_not_a_list_of_images():
    one = ("a.jpg", Path("a.jpg"), b"a", io.BytesIO(), PIXELS, torch.from_numpy(CHW.copy()), Image.fromarray(PIXELS))
    assert all(map(is_one_image, one))
    assert not any(map(is_one_image, ([PIXELS], PIXELS[None], iter("ab"), torch.zeros(2, 3, 4, 4))))


def test_heic_is_read_with_pillow_heif(tmp_path, monkeypatch):
    if not find_spec("pillow_heif"):
        pytest.skip("needs the extra heic")
    import pillow_heif

    pillow_heif.from_pillow(Image.fromarray(PIXELS)).save(tmp_path / "a.heic", quality=-1)
    assert is_heic((tmp_path / "a.heic").read_bytes())
    for source in (tmp_path / "a.heic", (tmp_path / "a.heic").read_bytes()):
        assert np.abs(read_image(source).astype(int) - PIXELS).mean() < 5
    assert find_photos(str(tmp_path)).paths == [str(tmp_path / "a.heic")]


def test_heic_without_pillow_heif_names_the_package(tmp_path, monkeypatch):
    monkeypatch.setattr("grounding.runtime.heic.find_spec", lambda name: None)
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    message = "a.heic is a HEIC photo: install pillow-heif .the extra heic., or convert it to JPEG"
    with pytest.raises(InputError, match=message):
        read_image(tmp_path / "a.heic")


@pytest.mark.slow
def test_grounders_answer_panoramas_and_pickle_and_run_in_inference_mode(grounder, coffee):
    import pickle

    photo, asked = Image.open(coffee).convert("RGB").resize((300, 200)), ["a cup", "a spoon"]
    expected = grounder.ground(photo, asked)
    copy = pickle.loads(pickle.dumps(grounder))  # noqa: S301  what this test made
    with torch.inference_mode():
        inside = grounder.look(photo)
        answers = [*inside.ground(asked), *copy.ground(photo, asked)]
        assert inside.words((10, 10, 200, 150), 3)
    assert inside.ground(["a table"], method="mwp")[0].groundable  # a scene may leave the mode
    for answer, other in zip(answers, expected * 2, strict=True):
        for name in ("boxes", "scores", "map"):
            np.testing.assert_array_equal(getattr(answer, name), getattr(other, name))
    wide = np.asarray(Image.open(coffee).convert("RGB").resize((1800, 100)))
    (answer,) = grounder.ground(wide, ["a cup"])
    assert answer.boxes[:, 2].max() > 300 and answer.size == (100, 1800)
    with pytest.raises(InputError, match="its aspect ratio is above 32:1; crop it"):
        grounder.ground(np.zeros((3, 3 * MAX_PANORAMA + 3, 3), np.uint8), ["a cup"])


@pytest.mark.parametrize(("shape", "side", "expected"), [
    ((100, 800), 420, [420]), ((100, 1200), 420, [280, 3360]), ((1200, 100), 420, [3360, 280]),
    ((100, 3200), 420, [224, 3360]), ((100, 1200), 224, [224, 1792]),
    ((100, 525), 640, [640]), ((100, 800), 640, [420, 3360]), ((800, 100), 640, [3360, 420]),
])  # fmt: skip
def test_the_network_sees_panoramas_in_less_detail(shape, side, expected):
    from grounding.tagger.preprocessing import network_size

    assert network_size(shape, side) == expected
