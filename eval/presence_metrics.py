"""How well a probability tells whether a photo shows a category.

Each name of the data set is asked of each photo. The measures are over all pairs of photo and name:

- area under the ROC curve: how often a pair that is shown has a higher probability than one that is not; a tie counts
  half. ``class_mean`` is the mean of the areas of the names, each over the photos, without names that all or none show.
- expected calibration error: 10 bins of equal width; the mean difference between a bin's mean probability and its share
  of shown pairs, weighted by its number of pairs.
- Brier score: the mean squared difference of probability and truth.
- precision, recall and F1 of the pairs whose probability reaches the threshold.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from eval.bootstrap import interval, resamples

BINS = 10
CELLS = 10_000_000  # numbers in memory at a time: resamples of the area under the curve times pairs


@dataclass(frozen=True)
class PresenceAnswer:
    """The answer about one name in one photo.

    Attributes:
        image: the id of the photo.
        name: the category.
        shown: whether the photo shows it.
        presence: probability in 0..1; None if there is none, which counts as 0 beside answers that have one.
    """

    image: str
    name: str
    shown: bool
    presence: float | None


def presence_metrics(answers: Sequence[PresenceAnswer], threshold: float) -> dict | None:
    """All measures, with 95 % intervals over photos.

    Args:
        answers: of all pairs of photo and name.
        threshold: a name whose probability reaches it counts as present.

    Returns:
        "auc", "auc_class_mean", "calibration_error" and "brier" in 0..1; "precision", "recall" and "f1" in percent;
        None where a measure is undefined; their "intervals"; the numbers of "pairs" and of "shown" ones. None if no
        answer has a presence.
    """
    if all(answer.presence is None for answer in answers):
        return None
    photos, photo = np.unique([answer.image for answer in answers], return_inverse=True)
    names, name = np.unique([answer.name for answer in answers], return_inverse=True)
    shown = np.array([answer.shown for answer in answers])
    presence = np.array([answer.presence or 0.0 for answer in answers])
    once = np.ones((1, len(photos)))
    weights = np.concatenate([once, resamples(len(photos))])  # the first row is the photos themselves
    measures = {"auc": area_under_curve(presence, shown, photo, weights)}
    each = [area_under_curve(*(a[name == n] for a in (presence, shown, photo)), weights) for n in range(len(names))]
    measures["auc_class_mean"] = _mean_of_known(np.stack(each))
    measures["calibration_error"] = calibration_error(presence, shown, photo, weights)
    pairs = weights @ np.bincount(photo, minlength=len(photos))
    measures["brier"] = weights @ np.bincount(photo, (presence - shown) ** 2, len(photos)) / pairs
    measures |= _decisions(presence >= threshold, shown, photo, weights)
    record: dict = {"pairs": len(answers), "shown": int(shown.sum()), "threshold": threshold}
    record |= {key: None if np.isnan(values[0]) else float(values[0]) for key, values in measures.items()}
    return record | {"intervals": {key: interval(values[1:]) for key, values in measures.items()}}


def area_under_curve(presence: np.ndarray, shown: np.ndarray, photo: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The area under the ROC curve in resamples of photos.

    Args:
        presence: ``(N,)`` probabilities.
        shown: ``(N,)`` bool.
        photo: ``(N,)`` int, the index of each pair's photo.
        weights: ``(B, P)``, how often each photo counts.

    Returns:
        ``(B,)`` in 0..1; NaN where all pairs are shown, or none.
    """
    order = np.argsort(presence, kind="stable")
    starts = np.flatnonzero(np.diff(presence[order], prepend=-1))  # of the groups of equal probability
    areas = []
    for chunk in np.array_split(weights, -(-weights.shape[0] * len(presence) // CELLS)):
        drawn = chunk[:, photo[order]]
        good, bad = (np.add.reduceat(drawn * truth, starts, axis=1) for truth in (shown[order], ~shown[order]))
        right = (good * (bad.cumsum(1) - bad / 2)).sum(1)
        all_pairs = good.sum(1) * bad.sum(1)
        areas.append(np.divide(right, all_pairs, out=np.full(len(chunk), np.nan), where=all_pairs > 0))
    return np.concatenate(areas)


def calibration_error(presence: np.ndarray, shown: np.ndarray, photo: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The expected calibration error in resamples of photos.

    Args:
        presence: see :func:`area_under_curve`.
        shown: see :func:`area_under_curve`.
        photo: see :func:`area_under_curve`.
        weights: see :func:`area_under_curve`.

    Returns:
        ``(B,)`` in 0..1.
    """
    bins = np.minimum((presence * BINS).astype(int), BINS - 1)
    cell, size = photo * BINS + bins, weights.shape[1] * BINS
    excess = np.bincount(cell, presence - shown, size).reshape(-1, BINS)
    pairs = weights @ np.bincount(photo, minlength=weights.shape[1])
    return np.abs(weights @ excess).sum(1) / pairs


def _decisions(present: np.ndarray, shown: np.ndarray, photo: np.ndarray, weights: np.ndarray) -> dict:
    right, said, true = (weights @ np.bincount(photo, v, weights.shape[1]) for v in (present & shown, present, shown))
    ratios = {"precision": (right, said), "recall": (right, true), "f1": (2 * right, said + true)}
    return {
        key: 100 * np.divide(part, whole, out=np.full(len(whole), np.nan), where=whole > 0)
        for key, (part, whole) in ratios.items()
    }


def _mean_of_known(values: np.ndarray) -> np.ndarray:
    known = ~np.isnan(values)
    count = known.sum(0)
    return np.divide(np.nansum(values, 0), count, out=np.full(values.shape[1], np.nan), where=count > 0)
