import numpy as np
import pytest
import torch
import torchvision
from hypothesis import given
from hypothesis import strategies as st

from grounding.rescoring import rescore, thin
from proposals.errors import InputError


def iou(a: np.ndarray, b: np.ndarray) -> float:
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    return width * height / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - width * height)


def thin_slowly(boxes: np.ndarray, scores: np.ndarray, threshold: float) -> list[int]:
    kept: list[int] = []
    for i in sorted(range(len(boxes)), key=lambda i: -scores[i]):
        if all(iou(boxes[i], boxes[j]) <= threshold for j in kept):
            kept.append(i)
    return kept


@given(st.integers(1, 40), st.integers(0, 10**6), st.sampled_from([0.0, 0.3, 0.7, 1.0]))
def test_thinning_is_greedy_and_torchvisions(count, seed, threshold):
    rng = np.random.default_rng(seed)
    corners = rng.integers(0, 20, (count, 2))
    boxes = np.hstack([corners, corners + rng.integers(1, 12, (count, 2))]).astype(np.float64)
    scores = rng.integers(0, 9, count) / 8  # with ties
    kept = thin(boxes, scores, threshold).tolist()
    assert kept == thin_slowly(boxes, scores, threshold)
    assert kept == torchvision.ops.nms(torch.from_numpy(boxes), torch.from_numpy(scores), threshold).tolist()


def test_scores_are_mass_over_area_to_the_gamma():
    masses, areas = np.array([[0.2, 1.0, 0.0]]), np.array([0.04, 1.0, 0.5])
    np.testing.assert_allclose(rescore(masses, areas, 0.5), [[1.0, 1.0, 0.0]])
    np.testing.assert_array_equal(rescore(masses, areas, 0), masses)
    np.testing.assert_allclose(rescore(masses, areas, 1), [[5.0, 1.0, 0.0]])


def test_the_proposers_belief_counts_as_a_power():
    masses, areas, beliefs = np.array([[0.2, 0.5]]), np.array([0.04, 0.25]), np.array([8.0, 2.0])
    np.testing.assert_allclose(rescore(masses, areas, 0.5, beliefs, 0.5), [[1.0, 0.5]])
    np.testing.assert_array_equal(rescore(masses, areas, 0.5, beliefs, 0), rescore(masses, areas, 0.5))


@pytest.mark.parametrize("prior", [-0.1, float("nan")])
def test_wrong_prior_is_told(prior):
    with pytest.raises(InputError, match=r"prior=.* must be a number >= 0"):
        rescore(np.ones((1, 1)), np.ones(1), 0.5, np.ones(1), prior)


@pytest.mark.parametrize("gamma", [-0.1, float("nan"), float("inf")])
def test_wrong_gamma_is_told(gamma):
    with pytest.raises(InputError, match="must be a number >= 0"):
        rescore(np.ones((1, 1)), np.ones(1), gamma)


def test_wrong_threshold_is_told():
    with pytest.raises(InputError, match=r"nms=1\.5 must lie in 0\.\.1"):
        thin(np.array([[0.0, 0, 1, 1]]), np.ones(1), 1.5)
