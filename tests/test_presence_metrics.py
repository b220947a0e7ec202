"""The measures of presence against plain definitions."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval import bootstrap
from eval.presence_metrics import PresenceAnswer, area_under_curve, calibration_error, presence_metrics


def slow_area(presence, shown) -> float:
    """How often a shown pair has a higher probability than another one; a tie counts half."""
    good = [p for p, s in zip(presence, shown, strict=True) if s]
    bad = [p for p, s in zip(presence, shown, strict=True) if not s]
    if not good or not bad:
        return np.nan
    return np.mean([1.0 if g > b else 0.5 if g == b else 0.0 for g in good for b in bad])


def slow_error(presence, shown) -> float:
    total = 0.0
    for number in range(10):
        inside = [i for i, p in enumerate(presence) if min(int(p * 10), 9) == number]
        if inside:
            difference = np.mean([presence[i] for i in inside]) - np.mean([shown[i] for i in inside])
            total += len(inside) * abs(difference)
    return total / len(presence)


PAIRS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 20).map(lambda n: n / 20), st.booleans()), min_size=1)


@given(PAIRS, st.integers(0, 2**32))
def test_area_and_error_are_those_of_the_drawn_photos(pairs, seed):
    photo, presence, shown = map(np.array, zip(*pairs, strict=True))
    drawn = np.random.default_rng(seed).integers(0, 3, 5)
    again = np.repeat(np.arange(len(pairs)), drawn[photo])
    weights = np.stack([np.ones(5), drawn.astype(float)])
    areas = area_under_curve(presence, shown, photo, weights)
    assert areas[0] == pytest.approx(slow_area(presence, shown), nan_ok=True)
    assert areas[1] == pytest.approx(slow_area(presence[again], shown[again]), nan_ok=True)
    if len(again):
        errors = calibration_error(presence, shown, photo, weights)
        assert errors[0] == pytest.approx(slow_error(presence, shown))
        assert errors[1] == pytest.approx(slow_error(presence[again], shown[again]))


def test_measures_of_a_hand_made_case(monkeypatch):
    monkeypatch.setattr(bootstrap, "RESAMPLES", 50)
    table = [
        ("a", "dog", True, 0.9), ("a", "cat", False, 0.5), ("a", "cow", False, None),
        ("b", "dog", False, 0.2), ("b", "cat", True, 0.1), ("b", "cow", False, 0.6),
    ]  # fmt: skip
    found = presence_metrics([PresenceAnswer(*row) for row in table], 0.5)
    assert (found["pairs"], found["shown"], found["threshold"]) == (6, 2, 0.5)
    assert found["auc"] == pytest.approx((4 + 1) / 8)  # .9 above all four, .1 above the 0 of the name without presence
    assert found["auc_class_mean"] == pytest.approx((1 + 0) / 2)  # no photo shows a cow
    assert found["brier"] == pytest.approx((0.01 + 0.25 + 0 + 0.04 + 0.81 + 0.36) / 6)
    assert found["calibration_error"] == pytest.approx((0.1 + 0.5 + 0 + 0.2 + 0.9 + 0.6) / 6)
    assert found["precision"] == pytest.approx(100 / 3)
    assert found["recall"] == pytest.approx(50) and found["f1"] == pytest.approx(40)
    assert set(found["intervals"]) == {
        "auc", "auc_class_mean", "calibration_error", "brier", "precision", "recall", "f1"
    }  # fmt: skip


def test_measures_without_a_value():
    assert presence_metrics([PresenceAnswer("a", "dog", True, None)], 0.5) is None
    found = presence_metrics([PresenceAnswer("a", "dog", True, 0.2), PresenceAnswer("b", "dog", True, 0.3)], 0.5)
    assert found["auc"] is None and found["auc_class_mean"] is None and found["precision"] is None
    assert found["recall"] == 0 and found["intervals"]["auc"] is None
