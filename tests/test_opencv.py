"""OpenCV's proposers: boxes of ordinary and of unusual photos, settings, and the missing extra."""

import sys
from pathlib import Path

import numpy as np
import pytest
import skimage
from PIL import Image

from proposals import InputError
from proposals.opencv import EdgeBoxes, SelectiveSearch

PHOTOS = Path(skimage.__file__).parent / "data"
KINDS = [SelectiveSearch, EdgeBoxes]


@pytest.fixture(autouse=True)
def opencv(request):
    if "without_opencv" not in request.fixturenames:
        pytest.importorskip("cv2.ximgproc", reason="needs .venv/bin/pip install -e '.[opencv]'")


@pytest.fixture
def without_opencv(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    return np.asarray(Image.open(PHOTOS / "astronaut.png").convert("RGB"))


@pytest.mark.parametrize("kind", KINDS)
def test_boxes_of_a_real_photo(kind, photo):
    found = kind(count=300, side=200)(photo, "astronaut")
    assert 100 < len(found) <= 300 and found.size == (512, 512) and found.shape == (200, 200)
    assert (found.boxes >= 0).all() and (found.boxes <= 512).all()
    assert len(np.unique(found.boxes, axis=0)) == len(found)
    again = kind(count=300, side=200)(photo)
    np.testing.assert_array_equal(again.boxes, found.boxes)
    # a box drawn by hand around the astronaut
    woman = np.array([15, 0, 470, 512])
    common = np.clip(np.minimum(found.boxes[:, 2:], woman[2:]) - np.maximum(found.boxes[:, :2], woman[:2]), 0, None)
    union = (found.boxes[:, 2:] - found.boxes[:, :2]).prod(1) + (woman[2:] - woman[:2]).prod() - common.prod(1)
    assert (common.prod(1) / union).max() > 0.6


def test_the_seed_changes_only_the_order_of_selective_search(photo):
    one, other = (SelectiveSearch(count=5000, side=120, seed=seed)(photo).boxes for seed in (1, 2))
    assert not np.array_equal(one, other)
    np.testing.assert_array_equal(np.unique(one, axis=0), np.unique(other, axis=0))


def test_quality_mode_proposes_more_boxes(photo):
    fast, slow = (SelectiveSearch(count=10**5, side=80, quality=quality)(photo) for quality in (False, True))
    assert len(slow) > len(fast)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(1, 1), (1, 2), (1, 4000), (4000, 1), (40, 30)])
def test_uniform_and_extremely_shaped_images_give_the_whole_image(kind, size):
    found = kind(side=40)(np.full((*size, 3), 90, np.uint8))
    assert len(found) >= 1 and found.boxes[found.areas.argmax()].tolist() == [0, 0, size[1], size[0]]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bad", [{"count": 0}, {"side": 0}])
def test_bad_settings_are_refused(kind, bad):
    with pytest.raises(InputError, match="must be 1 or more"):
        kind(**bad)


@pytest.mark.parametrize("kind", KINDS)
def test_anything_but_an_image_is_refused(kind):
    with pytest.raises(InputError, match="uint8"):
        kind()(np.zeros((4, 4), np.uint8))


@pytest.mark.parametrize("kind", KINDS)
def test_the_error_for_a_missing_package_says_how_to_install_it(kind, without_opencv):
    with pytest.raises(InputError, match=r"pip install -e '\.\[opencv\]'"):
        kind()
