"""Fitting a presence model: Platt scaling of all tags with their context, with labels that are incomplete."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

ITERATIONS = 20
WIDTH = 0.03  # standard deviation of the slopes and of the offsets around those of all tags
COMPONENTS = 64  # directions of the context
CONTEXT_WIDTH = 0.1  # standard deviation of the context's weights around 0, for components of variance 1
CONTEXT_STEP, MOST_CHANGE = 0.7, 0.5  # damping of the context's steps, because its weights are fitted one by one
RECALL, RECALL_CAPTIONS = 0.35, 2.0  # prior of the recall of one caption: its mean, and its weight in captions
MIN_SLOPE = 0.05  # a probability must grow with its score
SMALLEST = 1e-30  # of a probability, in float32, so that 0 / 0 does not occur
MIN_NAMED = 5  # captions that name a tag whose parameters count for the mean of all tags
LEFT_OUT = 0.25  # share of -log recall in an offset, see recall_shift
LEAST_MEAN = 1e-12  # of a mean probability, so that its log-odds are finite


class CaptionCounts(NamedTuple):
    """How many captions of each photo name each tag.

    Attributes:
        named: ``(photos, tags)`` float, captions that name the tag.
        unnamed: ``(photos, tags)`` float, captions that do not name it. Captions that name something more general are
            in neither. A photo without captions has zeros in both.
    """

    named: NDArray[np.float32]
    unnamed: NDArray[np.float32]

    @property
    def has_caption(self) -> NDArray[np.bool_]:
        """``(photos,)``, whether a photo has a caption that says something about a tag."""
        return self.named.any(1) | self.unnamed.any(1)


class PlattFit(NamedTuple):
    """The result of a fit.

    Attributes:
        slopes: ``(tags,)`` float64, > 0.
        offsets: ``(tags,)`` float64.
        recall: ``(tags,)`` float64 in (0, 1), the probability that one caption names a thing that is in the photo.
        directions: ``(tags, K)`` float64, the context's directions, rounded to float16.
        context: ``(K, tags)`` float64, their weights for each tag.
    """

    slopes: Floats
    offsets: Floats
    recall: Floats
    directions: Floats
    context: Floats

    def shown(self, scores: NDArray[np.float32]) -> Floats:
        """The probabilities that photos show tags, ``(photos, tags)``, from their scores, ``(photos, tags)``."""
        return sigmoid(self.slopes * scores + self.offsets + scores @ self.directions @ self.context)


def sigmoid(x: Floats) -> Floats:
    """1 / (1 + exp(-x)) without overflow."""
    return np.asarray(0.5 * (1 + np.tanh(0.5 * x)))


def fit_platt(scores: NDArray[np.float32], captions: CaptionCounts) -> PlattFit:
    """Fits a slope, an offset and the weights of the context for each tag.

    A caption does not name everything that a photo shows. Each caption of a photo that shows a tag names it with the
    probability ``recall``; a caption of another photo never does. With P(shown) = sigmoid(slope * score + offset +
    context), all are estimated by expectation maximisation, see :func:`shown_given_captions`. The captions of one photo
    tell the recall: if one of five names a dog, the other four have left it out. With one caption, how often a tag is
    named cannot tell a rare thing from one that captions leave out. So the slopes and offsets have a narrow Gaussian
    prior around those of all tags, and the recall has a Beta prior. A tag that no caption names keeps the mean, without
    a context. The context is linear in the first principal components of the scores.

    Args:
        scores: ``(photos, tags)`` float, logits.
        captions: what the captions name.

    Returns:
        The slopes, offsets and recalls.
    """
    tags, count = scores.shape[1], captions.named.sum(0)
    total = captions.named + captions.unnamed
    known, frequent = total > 0, count >= min(MIN_NAMED, count.max())
    directions = principal_directions(scores)
    components = (scores - scores.mean(0)) @ directions.astype(np.float32)
    a, b, recall = np.ones(tags, np.float32), np.zeros(tags, np.float32), np.full(tags, RECALL, np.float32)
    context = np.zeros((directions.shape[1], tags), np.float32)
    mean = 1.0, 0.0
    for _ in range(ITERATIONS):
        p = sigmoid(a * scores + b + components @ context)
        shown = known * shown_given_captions(p, recall, captions)
        recall = np.clip((count + RECALL * RECALL_CAPTIONS) / ((shown * total).sum(0) + RECALL_CAPTIONS), 0.01, 0.99)
        wrong, weight = known * p - shown, known * p * (1 - p)
        a, b = _newton(scores, wrong, weight, a, b, mean)
        change = (components.T @ wrong + context / CONTEXT_WIDTH**2) / ((components**2).T @ weight + CONTEXT_WIDTH**-2)
        context = (context - CONTEXT_STEP * np.clip(change, -MOST_CHANGE, MOST_CHANGE)) * (count > 0)
        mean = float(a[frequent].mean()), float(b[frequent].mean())
        a, b = np.where(count > 0, a, mean[0]), np.where(count > 0, b, mean[1])
    b = b - scores.mean(0) @ directions @ context  # the components have mean 0, the model's scores have not
    return PlattFit(*(part.astype(np.float64) for part in (a, b, recall, directions, context)))


def frequency_shift(fit: PlattFit, scores: NDArray[np.float32], has_caption: NDArray[np.bool_]) -> Floats:
    """A correction for how frequent each tag is, from photos without captions: log-odds to add to its offset.

    Photos with captions may be of other things than the photos that users ask about; all photos together stand for
    these. The shift is the first step of the algorithm of Saerens et al. (2002) for a change of the class frequencies:
    the log-odds of the mean probability over all photos, minus those over the photos with captions. Further steps were
    worse on COCO (results/taggers.md): they amplify the mistakes of the tags that the tagger recognises badly.

    Args:
        fit: the fit to the photos with captions.
        scores: ``(photos, tags)`` float, logits.
        has_caption: ``(photos,)``, which photos have captions.

    Returns:
        ``(tags,)``; 0 if all photos have captions.
    """
    shown = fit.shown(scores)
    means = np.clip([shown.mean(0), shown[has_caption].mean(0)], LEAST_MEAN, 1 - LEAST_MEAN)
    after, before = np.log(means / (1 - means))
    return np.asarray(after - before)


def recall_shift(fit: PlattFit) -> Floats:
    """A correction for what captions leave out: log-odds to add to the offset of each tag, ``-LEFT_OUT * log(recall)``.

    A tagger that is trained on captions predicts what captions name. P(named) = recall * P(shown), so while the
    probabilities are small, the logit of what is shown is higher by -log(recall). The fit has one prior for the offsets
    of all tags, which does not follow the recall. The correction raises every offset, most where the recall is lowest.
    Its share LEFT_OUT was chosen on COCO and VOC; the recall of a rare tag is uncertain.

    Args:
        fit: the fit to the photos with captions.

    Returns:
        ``(tags,)``, >= 0.
    """
    return np.asarray(-LEFT_OUT * np.log(fit.recall))


def shown_given_captions(p: Floats, recall: Floats, captions: CaptionCounts) -> Floats:
    """The probability that each photo shows each tag, given what its captions name (Bayes' theorem).

    Args:
        p: ``(photos, tags)``, the probability without the captions.
        recall: ``(tags,)`` in (0, 1), the probability that a caption of a photo that shows the tag names it.
        captions: what the captions name.

    Returns:
        ``(photos, tags)``: 1 where a caption names the tag; elsewhere p q / (1 - p + p q), q = (1 - recall)^captions.
    """
    left_out = np.maximum(p * (1 - recall) ** captions.unnamed, SMALLEST)
    return np.where(captions.named > 0, 1.0, left_out / (1 - p + left_out))


def principal_directions(scores: NDArray[np.float32]) -> Floats:
    """The directions in which the scores of all tags vary most together.

    Args:
        scores: ``(photos, tags)``.

    Returns:
        ``(tags, K)`` float64, K <= 64, rounded to float16. ``scores @ directions`` has variance 1 and no correlation.
    """
    spread = scores.std(0, dtype=np.float64) + 1e-6
    centred = ((scores - scores.mean(0, dtype=np.float64)) / spread).astype(np.float32)
    variances, vectors = np.linalg.eigh(centred.T @ centred / len(scores))
    kept = np.flatnonzero(variances > 1e-4 * max(variances[-1], 1e-6))[-COMPONENTS:]
    signs = np.sign(vectors[abs(vectors).argmax(0), np.arange(len(vectors))])[kept]  # eigh leaves the sign open
    directions = vectors[:, kept] * signs / np.sqrt(variances[kept]) / spread[:, None]
    return np.asarray(directions.astype(np.float16).astype(np.float64))


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
