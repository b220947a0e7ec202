"""The crops of a training."""

import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from training.crops import Cropping, crop, degrade, pad_to_square

SIDES = [224, 352]


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 30), st.integers(1, 30))
def test_padding_makes_any_photo_square(height, width):
    image = np.random.default_rng(height).integers(0, 255, (height, width, 3), np.uint8)
    assert pad_to_square(image).size == (256, 256)


def test_padding_mirrors():
    image = np.zeros((2, 4, 3), np.uint8)
    image[0], image[1] = 50, 200
    padded = np.asarray(pad_to_square(image, 4))[:, 0, 0]
    np.testing.assert_array_equal(padded, [50, 50, 200, 200])


def test_the_crop_of_the_paper_is_224_of_256_pixels():
    assert (Cropping().side, Cropping().padded) == (224, 256)


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("scale", [None, (0.3, 0.6)])
def test_a_crop_without_random_numbers_is_central(side, scale):
    image = np.random.default_rng(0).integers(0, 255, (60, 80, 3), np.uint8)
    cropping = Cropping(side, scale)
    centre, margin = crop(image, None, cropping), (cropping.padded - side) // 2
    assert centre.shape == (3, side, side)
    whole = np.asarray(pad_to_square(image, cropping.padded))[margin : margin + side, margin : margin + side]
    np.testing.assert_array_equal(centre.permute(1, 2, 0).numpy(), whole)


@pytest.mark.parametrize("scale", [None, (0.3, 0.6)])
def test_random_crops_differ_and_can_be_repeated(scale):
    image = np.random.default_rng(0).integers(0, 255, (60, 80, 3), np.uint8)
    drawn = {crop(image, random.Random(str(i)), Cropping(scale=scale)).numpy().tobytes() for i in range(20)}
    assert len(drawn) == 20
    again = [crop(image, random.Random("0/1"), Cropping(scale=scale)) for _ in range(2)]
    assert torch.equal(*again)


@pytest.mark.parametrize("side", SIDES)
def test_random_crops_have_the_given_share_of_the_area(side):
    cropping = Cropping(side, (0.25, 0.5))
    row, column = np.mgrid[:256, :256]
    image = np.stack([column, row, np.zeros_like(row)], -1).astype(np.uint8)
    for seed in range(50):
        cut = crop(image, random.Random(seed), cropping).numpy().astype(float)
        assert cut.shape == (3, side, side)
        width, height = (np.ptp(cut[axis]) + 1 for axis in (0, 1))
        assert 0.22 < width * height / 256**2 < 0.53
        assert 0.7 < width / height < 1.4


def test_a_crop_without_a_scale_is_not_resized():
    whole = np.random.default_rng(0).integers(0, 255, (256, 256, 3)).astype(np.uint8)
    cut = crop(whole, random.Random(1)).permute(1, 2, 0).numpy()
    windows = (whole[y : y + 224, x : x + 224] for y in range(33) for x in range(33))
    assert any((cut == window).all() or (cut[:, ::-1] == window).all() for window in windows)


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 95), st.integers(0, 10**6))
def test_a_degraded_picture_keeps_its_size(width, height, quality, seed):
    picture = Image.new("RGB", (width, height), (200, 30, 90))
    degraded = degrade(picture, random.Random(seed), (quality, quality))
    assert (degraded.size, degraded.mode) == (picture.size, "RGB")
    if quality > 50:
        np.testing.assert_allclose(np.asarray(degraded), np.asarray(picture), atol=16)  # one colour stays


def test_a_lower_quality_loses_more(coffee):
    picture = Image.open(coffee).convert("RGB").resize((300, 200))
    lost = {}
    for quality in (10, 50, 95):
        degraded = degrade(picture, random.Random(0), (quality, quality))
        lost[quality] = np.abs(np.asarray(degraded, float) - np.asarray(picture, float)).mean()
    assert lost[10] > lost[50] > lost[95] > 0


@pytest.mark.parametrize("scale", [None, (0.35, 1)])
def test_a_compressed_crop_shows_the_same_part(coffee, scale):
    image = np.asarray(Image.open(coffee).convert("RGB"))
    for seed in range(5):
        plain = crop(image, random.Random(seed), Cropping(scale=scale)).double()
        compressed = crop(image, random.Random(seed), Cropping(scale=scale, quality=(90, 95))).double()
        assert 0 < (plain - compressed).abs().mean() < 8
    assert torch.equal(crop(image, None, Cropping(quality=(1, 1))), crop(image, None))
