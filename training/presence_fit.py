"""Fitting the slopes and offsets of a presence model: Platt scaling of all tags, with labels that are incomplete."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

ITERATIONS = 20
WIDTH = 0.03  # standard deviation of the slopes and of the offsets around those of all tags
RECALL, RECALL_CAPTIONS = 0.35, 2.0  # prior of the recall of one caption: its mean, and its weight in captions
MIN_SLOPE = 0.05  # a probability must grow with its score
MIN_NAMED = 5  # captions that name a tag whose parameters count for the mean of all tags


class CaptionCounts(NamedTuple):
    """How many captions of each photo name each tag.

    Attributes:
        named: ``(photos, tags)`` float, captions that name the tag.
        unnamed: ``(photos, tags)`` float, captions that do not name it. Captions that name something more general are
            in neither.
    """

    named: NDArray[np.float32]
    unnamed: NDArray[np.float32]


class PlattFit(NamedTuple):
    """The result of a fit.

    Attributes:
        slopes: ``(tags,)`` float64, > 0.
        offsets: ``(tags,)`` float64.
        recall: ``(tags,)`` float64 in (0, 1), the probability that one caption names a thing that is in the photo.
    """

    slopes: Floats
    offsets: Floats
    recall: Floats

    def shown(self, scores: NDArray[np.float32]) -> Floats:
        """The probabilities that photos show tags, ``(photos, tags)``, from their scores, ``(photos, tags)``."""
        return sigmoid(self.slopes * scores + self.offsets)


def sigmoid(x: Floats) -> Floats:
    """1 / (1 + exp(-x)) without overflow."""
    return np.asarray(0.5 * (1 + np.tanh(0.5 * x)))


def fit_platt(scores: NDArray[np.float32], captions: CaptionCounts) -> PlattFit:
    """Fits a slope and an offset for each tag.

    A caption does not name everything that a photo shows, so P(named) = recall * sigmoid(slope * score + offset)
    (Elkan and Noto, 2008). All three are estimated by expectation maximisation: a caption that does not name a tag
    counts as one of a photo that shows it, with the probability that the present fit gives. How often a tag is named
    cannot tell a rare thing from one that captions leave out. So the slopes and offsets have a narrow Gaussian prior
    around those of all tags, and the recall explains most of the difference between tags. A tag that no caption names
    keeps the mean.

    Args:
        scores: ``(photos, tags)`` float, logits.
        captions: what the captions name.

    Returns:
        The slopes, offsets and recalls.
    """
    tags, count = scores.shape[1], captions.named.sum(0)
    frequent = count >= min(MIN_NAMED, count.max())
    a, b, recall = np.ones(tags), np.zeros(tags), np.full(tags, RECALL)
    mean = 1.0, 0.0
    for _ in range(ITERATIONS):
        p = sigmoid(a * scores + b)
        hidden = captions.unnamed * p * (1 - recall) / (1 - recall * p)  # captions that leave out what is shown
        prior = RECALL * RECALL_CAPTIONS
        recall = np.clip((count + prior) / (count + hidden.sum(0) + RECALL_CAPTIONS), 0.01, 0.99)
        wrong = (captions.named + captions.unnamed) * p - captions.named - hidden
        a, b = _newton(scores, wrong, (captions.named + captions.unnamed) * p * (1 - p), a, b, mean)
        mean = float(a[frequent].mean()), float(b[frequent].mean())
        a, b = np.where(count > 0, a, mean[0]), np.where(count > 0, b, mean[1])
    return PlattFit(a, b, recall)


def _newton(
    x: NDArray[np.float32], wrong: Floats, weight: Floats, a: Floats, b: Floats, mean: tuple[float, float]
) -> tuple[Floats, Floats]:
    """One step of Newton's method for the penalised log loss of each tag.

    Args:
        x: ``(photos, tags)``, the scores.
        wrong: ``(photos, tags)``, the derivative of the loss by the logit.
        weight: ``(photos, tags)``, its second derivative.
        a: ``(tags,)``, the slopes.
        b: ``(tags,)``, the offsets.
        mean: slope and offset that the prior is around.

    Returns:
        The new slopes and offsets.
    """
    g_a = (wrong * x).sum(0) + (a - mean[0]) / WIDTH**2
    g_b = wrong.sum(0) + (b - mean[1]) / WIDTH**2
    h_aa = (weight * x * x).sum(0) + WIDTH**-2
    h_ab, h_bb = (weight * x).sum(0), weight.sum(0) + WIDTH**-2
    determinant = h_aa * h_bb - h_ab * h_ab
    da, db = (h_bb * g_a - h_ab * g_b) / determinant, (h_aa * g_b - h_ab * g_a) / determinant
    return np.maximum(a - np.clip(da, -1, 1), MIN_SLOPE), b - np.clip(db, -2, 2)
