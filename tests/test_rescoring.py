"""Scores of proposals, non-maximum suppression and the vote, compared with slow implementations."""

import numpy as np
import pytest
import torch
import torchvision
from hypothesis import given
from hypothesis import strategies as st

from grounding.rescoring import FULL_IOU, MAX_BOXES, MIN_IOU, rescore, suppress, vote, vote_overlaps, winning
from proposals.errors import InputError


def iou(a: np.ndarray, b: np.ndarray) -> float:
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    return width * height / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - width * height)


def suppress_slowly(boxes: np.ndarray, scores: np.ndarray, threshold: float) -> list[int]:
    kept: list[int] = []
    for i in sorted(range(len(boxes)), key=lambda i: -scores[i]):
        if all(iou(boxes[i], boxes[j]) <= threshold for j in kept):
            kept.append(i)
    return kept


@given(st.integers(1, 40), st.integers(0, 10**6), st.sampled_from([0.0, 0.3, 0.7, 1.0]))
def test_suppression_is_greedy_and_equals_torchvision(count, seed, threshold):
    rng = np.random.default_rng(seed)
    boxes = random_boxes(rng, count)
    scores = rng.integers(0, 9, count) / 8  # with ties
    kept = suppress(boxes, scores, threshold).tolist()
    assert kept == suppress_slowly(boxes, scores, threshold)
    assert kept == torchvision.ops.nms(torch.from_numpy(boxes), torch.from_numpy(scores), threshold).tolist()


def vote_slowly(boxes: np.ndarray, scores: np.ndarray, sharpness: float, count: int) -> tuple[list[int], list[float]]:
    """Implements the definition: choose repeatedly the box that adds most to the covered mass."""
    mass = scores**sharpness / (scores**sharpness).sum()
    ramp = [[min(max((iou(a, b) - MIN_IOU) / (FULL_IOU - MIN_IOU), 0), 1) for b in boxes] for a in boxes]
    covered, order, wins = [0.0] * len(boxes), [], []
    for _ in range(count):
        gains = [sum(m * max(r - c, 0) for m, r, c in zip(mass, row, covered, strict=True)) for row in ramp]
        chosen = max(range(len(boxes)), key=gains.__getitem__)
        order.append(chosen)
        wins.append(gains[chosen])
        covered = [max(r, c) for r, c in zip(ramp[chosen], covered, strict=True)]
    return order, wins


def random_boxes(rng: np.random.Generator, count: int) -> np.ndarray:
    corners = rng.integers(0, 20, (count, 2))
    return np.hstack([corners, corners + rng.integers(1, 12, (count, 2))]).astype(np.float64)


@given(st.integers(1, 40), st.integers(0, 10**6), st.sampled_from([0.5, 1.0, 3.0, 20.0]))
def test_vote_equals_its_definition(count, seed, sharpness):
    rng = np.random.default_rng(seed)
    boxes, scores = random_boxes(rng, count), rng.random(count) + 0.01
    order, mass = vote(vote_overlaps(boxes), winning(scores, sharpness))
    _, wins = vote_slowly(boxes, scores, sharpness, count)
    # of two boxes that win the same mass, either may come first
    np.testing.assert_allclose(mass, wins, atol=1e-6)
    assert sorted(order.tolist()) == list(range(count))


@given(st.integers(1, 150), st.integers(0, 10**6), st.sampled_from([0.5, 3.0, 50.0]))
def test_a_vote_distributes_probability(count, seed, sharpness):
    rng = np.random.default_rng(seed)
    boxes, scores = random_boxes(rng, count), rng.integers(0, 4, count) / 3
    order, mass = vote(vote_overlaps(boxes), winning(scores, sharpness))
    assert len(order) == len(set(order.tolist())) == min(count, MAX_BOXES)
    assert (np.diff(mass) <= 1e-7).all() and (mass >= 0).all()
    assert mass.sum() <= 1 + 1e-6
    if count <= MAX_BOXES:
        assert mass.sum() == pytest.approx(1, abs=1e-6)


def test_many_good_boxes_outvote_one_slightly_better_box():
    boxes = np.array([[0.0, 0, 10, 10], [50, 50, 60, 60], [51, 50, 61, 60], [50, 51, 60, 61], [80, 80, 90, 90]])
    scores = np.array([1.0, 0.9, 0.9, 0.9, 0.1])
    overlaps = vote_overlaps(boxes)
    order, mass = vote(overlaps, winning(scores, 1))
    assert order[0] == 1 and order[1] == 0
    assert mass[0] == pytest.approx(2.7 / 3.8)
    assert vote(overlaps, winning(scores, 30))[0][0] == 0  # a sharp vote ranks by the scores alone


def test_without_mass_all_boxes_are_equal():
    order, mass = vote(vote_overlaps(np.array([[0.0, 0, 1, 1], [5, 5, 6, 6]])), winning(np.zeros(2), 3))
    np.testing.assert_allclose(mass, [0.5, 0.5])
    assert sorted(order.tolist()) == [0, 1]


@pytest.mark.parametrize("sharpness", [-1, float("nan"), float("inf")])
def test_invalid_vote_is_refused(sharpness):
    with pytest.raises(InputError, match=r"vote=.* must be a number >= 0; 0 uses nms"):
        winning(np.ones(1), sharpness)


def test_scores_are_mass_over_area_to_the_power_of_gamma():
    masses, areas = np.array([[0.2, 1.0, 0.0]]), np.array([0.04, 1.0, 0.5])
    np.testing.assert_allclose(rescore(masses, areas, 0.5), [[1.0, 1.0, 0.0]])
    np.testing.assert_array_equal(rescore(masses, areas, 0), masses)
    np.testing.assert_allclose(rescore(masses, areas, 1), [[5.0, 1.0, 0.0]])


def test_the_prior_is_an_exponent_of_the_proposers_score():
    masses, areas, beliefs = np.array([[0.2, 0.5]]), np.array([0.04, 0.25]), np.array([8.0, 2.0])
    np.testing.assert_allclose(rescore(masses, areas, 0.5, beliefs, 0.5), [[1.0, 0.5]])
    np.testing.assert_array_equal(rescore(masses, areas, 0.5, beliefs, 0), rescore(masses, areas, 0.5))


@pytest.mark.parametrize("prior", [-0.1, float("nan")])
def test_invalid_prior_is_refused(prior):
    with pytest.raises(InputError, match=r"prior=.* must be a number >= 0"):
        rescore(np.ones((1, 1)), np.ones(1), 0.5, np.ones(1), prior)


@pytest.mark.parametrize("gamma", [-0.1, float("nan"), float("inf")])
def test_invalid_gamma_is_refused(gamma):
    with pytest.raises(InputError, match="must be a number >= 0"):
        rescore(np.ones((1, 1)), np.ones(1), gamma)


def test_invalid_threshold_is_refused():
    with pytest.raises(InputError, match=r"nms=1\.5 must be in 0\.\.1"):
        suppress(np.array([[0.0, 0, 1, 1]]), np.ones(1), 1.5)
