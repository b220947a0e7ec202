"""Proposals: for boxes and for segments, the mass inside a region is the sum over its mask."""

from pathlib import Path

import numpy as np
import pytest
import skimage
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from proposals import Boxes, BoxProposer, InputError, Proposals, SegmentProposer, Segments

ASTRONAUT = Path(skimage.__file__).parent / "data" / "astronaut.png"


@st.composite
def segments(draw) -> Segments:
    h, w, count = draw(st.integers(1, 12)), draw(st.integers(1, 12)), draw(st.integers(1, 9))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    labels = np.unique(rng.integers(0, count, (h, w)), return_inverse=True)[1].reshape(h, w)
    superpixels = labels.max() + 1
    regions = [rng.permutation(superpixels)[: rng.integers(1, superpixels + 1)] for _ in range(draw(st.integers(0, 5)))]
    offsets = np.cumsum([0, *map(len, regions)])
    members = np.concatenate([*regions, np.zeros(0, int)])
    scores = np.sort(rng.random(len(regions)))[::-1]
    return Segments(labels, members, offsets, scores, (int(rng.integers(1, 50)), int(rng.integers(1, 50))))


@st.composite
def boxes(draw) -> Boxes:
    h, w, count = draw(st.integers(1, 12)), draw(st.integers(1, 12)), draw(st.integers(0, 5))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    size = (int(rng.integers(1, 50)), int(rng.integers(1, 50)))
    ends = np.sort(rng.random((count, 2, 2)), 1) * (size[1], size[0])
    ends[:, 1] = np.minimum(ends[:, 1] + 1e-6, (size[1], size[0]))
    return Boxes(ends.reshape(-1, 4), np.sort(rng.random(count))[::-1], size, (h, w))


@given(st.one_of(segments(), boxes()), st.integers(0, 4), st.integers(0, 2**32))
@settings(deadline=None, max_examples=60)
def test_mass_equals_the_sum_over_the_mask(found: Proposals, count: int, seed: int):
    maps = np.random.default_rng(seed).normal(size=(count, *found.shape))
    masses = found.integrate(maps)
    assert masses.shape == (count, len(found)) and masses.dtype == np.float64
    for i in range(len(found)):
        np.testing.assert_allclose(masses[:, i], maps[:, found.mask(i)].sum(1), rtol=0, atol=1e-12)


@given(st.one_of(segments(), boxes()))
@settings(deadline=None, max_examples=60)
def test_a_uniform_map_gives_the_areas(found: Proposals):
    uniform = np.full((1, *found.shape), 1 / (found.shape[0] * found.shape[1]))
    np.testing.assert_allclose(found.integrate(uniform)[0], found.areas, atol=1e-13)
    assert ((found.areas > 0) & (found.areas <= 1)).all()
    assert len(found.boxes) == len(found.scores) == len(found.areas) == len(found)


@given(segments())
@settings(deadline=None, max_examples=60)
def test_boxes_of_segments_are_tight(found: Segments):
    for i, box in enumerate(found.boxes):
        y, x = np.nonzero(found.mask(i))
        scale = np.array([found.size[1] / found.shape[1], found.size[0] / found.shape[0]] * 2)
        np.testing.assert_allclose(box, np.array([x.min(), y.min(), x.max() + 1, y.max() + 1]) * scale)


@given(segments())
@settings(deadline=None, max_examples=20)
def test_boxes_of_segments_are_valid_boxes(found: Segments):
    Boxes(found.boxes, found.scores, found.size, found.shape)


def test_the_whole_image_ends_at_its_edge():
    # 533 * (640 / 533) > 640 in float64
    found = Segments(np.zeros((300, 533)), np.zeros(1), np.array([0, 1]), np.ones(1), (360, 640))
    assert found.boxes.tolist() == [[0, 0, 640, 360]]


@given(segments())
@settings(deadline=None, max_examples=20)
def test_segments_can_be_restored_from_their_arrays(found: Segments):
    again = Segments(found.labels, found.members, found.offsets, found.scores, found.size)
    np.testing.assert_array_equal(again.boxes, found.boxes)
    np.testing.assert_array_equal(again.areas, found.areas)


def test_box_edges_are_rounded_to_the_nearest_line_of_the_grid():
    # an image of 40x20 on a grid of 4x4: a cell is 10 wide and 5 high
    found = Boxes(np.array([[4.9, 2.6, 15, 20], [12, 0, 13, 1]]), np.array([1.0, 0.5]), (20, 40), (4, 4))
    assert np.argwhere(found.mask(0)).min(0).tolist() == [1, 0]
    assert np.argwhere(found.mask(0)).max(0).tolist() == [3, 1]
    assert np.argwhere(found.mask(1)).tolist() == [[0, 1]], "a box smaller than a cell keeps one cell"
    np.testing.assert_allclose(found.areas, [6 / 16, 1 / 16])


def test_small_mass_in_the_last_cell_is_exact():
    found = Boxes(np.array([[0, 0, 300, 300], [299, 299, 300, 300.0]]), np.array([1.0, 0]), (300, 300), (300, 300))
    maps = np.full((1, 300, 300), 1 / 90000)
    maps[0, -1, -1] = 1e-3
    np.testing.assert_allclose(found.integrate(maps)[0, 1], 1e-3, rtol=1e-12)


@pytest.mark.parametrize("shape", [(2, 3), (1, 3, 2), (2, 2, 3, 1)])
def test_maps_on_another_grid_are_refused(shape):
    found = Boxes(np.array([[0, 0, 3, 2.0]]), np.ones(1), (2, 3), (2, 3))
    with pytest.raises(InputError, match=r"not on the grid \(W, \*\(2, 3\)\); resize them"):
        found.integrate(np.zeros(shape))


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"boxes": np.zeros((1, 3))}, "do not match"),
        ({"boxes": np.array([[0, 0, 4, 1.0], [0, 0, 1, 1]])}, "leaves the image 3x2"),
        ({"boxes": np.array([[1, 0, 1, 1.0], [0, 0, 1, 1]])}, "is empty"),
        ({"boxes": np.array([[np.nan, 0, 1, 1.0], [0, 0, 1, 1]])}, "leaves the image"),
        ({"scores": np.array([0.1, 0.2])}, "sorted in descending order"),
        ({"scores": np.array([np.nan, 0.2])}, "must be finite"),
    ],
)
def test_bad_boxes_are_refused(bad, message):
    good = {"boxes": np.array([[0, 0, 3, 2.0], [0, 0, 1, 1]]), "scores": np.array([1, 0.5])}
    with pytest.raises(InputError, match=message):
        Boxes(**good | bad, size=(2, 3), shape=(2, 3))


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"labels": np.zeros(4, int)}, "must be a grid"),
        ({"labels": np.array([[-1, 0], [1, 1]])}, "must be a grid"),
        ({"labels": np.array([[0, 9], [1, 1]])}, "must be a grid"),
        ({"labels": np.array([[0, 0], [2, 2]])}, "skip a number below 3"),
        ({"offsets": np.array([0, 3])}, "do not divide 3 members into 2 regions; start at 0"),
        ({"offsets": np.array([0, 1, 2])}, "do not divide"),
        ({"offsets": np.array([0, 3, 3])}, "a region is empty"),
        ({"members": np.array([0, 1, 2])}, r"outside 0\.\.1"),
        ({"members": np.array([-1, 1, 0])}, r"outside 0\.\.1"),
        ({"members": np.array([0, 1, 1]), "offsets": np.array([0, 1, 3])}, "twice"),
        ({"scores": np.array([0.1, 0.2])}, "sorted in descending order"),
    ],
)
def test_bad_segments_are_refused(bad, message):
    good = {
        "labels": np.array([[0, 0], [1, 1]]),
        "members": np.array([0, 1, 1]),
        "offsets": np.array([0, 2, 3]),
        "scores": np.array([1, 0.5]),
    }
    with pytest.raises(InputError, match=message):
        Segments(**good | bad, size=(2, 2))


def test_box_proposer_returns_the_bounding_boxes_of_the_segments():
    image = np.asarray(Image.open(ASTRONAUT).convert("RGB"))
    found, expected = BoxProposer(count=40, side=120)(image), SegmentProposer(count=40, side=120)(image)
    assert isinstance(found, Boxes) and found.shape == expected.shape == (120, 120) and found.size == (512, 512)
    np.testing.assert_array_equal(found.boxes, expected.boxes)
    for i in range(len(found)):
        y, x = np.nonzero(expected.mask(i))
        assert found.mask(i).sum() == (np.ptp(y) + 1) * (np.ptp(x) + 1), (
            "boxes on the segments' own grid are not rounded"
        )


@pytest.mark.parametrize(
    "image", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8), "photo.jpg"]
)
@pytest.mark.parametrize("proposer", [SegmentProposer, BoxProposer])
def test_anything_but_an_image_is_refused(proposer, image):
    with pytest.raises(InputError, match="an image must be"):
        proposer()(image)


@pytest.mark.parametrize("bad", [{"count": 0}, {"side": 0}])
@pytest.mark.parametrize("proposer", [SegmentProposer, BoxProposer])
def test_bad_settings_are_refused(proposer, bad):
    with pytest.raises(InputError, match="1 or more"):
        proposer(**bad)
