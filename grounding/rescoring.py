"""Scores proposals by the attention inside them, and ranks them.

The paper's score of a region R is f(R) = S_R / A_R^gamma (Zhang et al. 2016, Sec. 4.3): S_R is the mass of the map
inside R, A_R its area. Then non-maximum suppression removes near-duplicates.

Four extensions are ours and can be switched off:

- The proposer's own score b_R is a prior: f(R) = b_R^prior * S_R / A_R^gamma. The paper has no prior: prior = 0.
- A vote replaces non-maximum suppression. f becomes a probability that R is the object, p(R) = f(R)^vote / sum. A box
  wins the probability of all proposals that nearly coincide with it, so a box among many good ones is ranked before a
  single box with a slightly better score. The next box wins only the probability that is left.
- p(R) may be the mean over several methods, whose maps have different mistakes (:func:`mean_probability`). It is
  p(R) of one method with ``partner="none"`` and a method without a focus, such as ``method="c-mwp"``.
- The first box may depend on the other phrases that are asked: phrases of one photo usually name different things, so a
  phrase prefers boxes that are less probable for the others (:func:`contest`).
"""

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse

from proposals.errors import InputError
from proposals.ranking import greedy_coverage, pairwise_iou

# A box wins none of the probability of a proposal whose IoU with it is at most MIN_IOU, and all of it if the IoU is
# FULL_IOU or more. The evaluation counts a box as correct at an IoU of 0.5.
MIN_IOU, FULL_IOU = 0.4, 0.8
EXPONENTS = {  # the exponents of a ranking; an error message ends with the text
    "gamma": "the paper uses 0 to 1",
    "prior": "the paper uses 0",
    "vote": "0 uses nms, as in the paper",
    "rivalry": "0 answers each phrase on its own",
}
BOUNDED = ("gamma", "rivalry")
LARGEST_EXPONENT = 20  # with much larger exponents, areas and shares, which are at most 1, would be rounded to 0
RIVAL_NORM = 4  # chosen together with rivalry on half of the photos of the judge
MAX_BOXES = 100  # the largest number of boxes that a vote ranks

Floats = NDArray[np.float64]


def check_overlap(nms: float) -> None:
    """Refuses a threshold of :func:`suppress` that is not an IoU.

    Args:
        nms: the threshold.

    Raises:
        InputError: it is not in 0..1.
    """
    if not 0 <= nms <= 1:
        raise InputError(f"nms={nms} must be in 0..1; the paper uses 0.7")


def check_exponent(name: str, value: float) -> None:
    """Refuses an exponent that is not a finite number >= 0, or too large to compute with.

    Args:
        name: a key of ``EXPONENTS``.
        value: the exponent.

    Raises:
        InputError: it is no such number.
    """
    if not 0 <= value < np.inf:
        raise InputError(f"{name}={value} must be a number >= 0; {EXPONENTS[name]}")
    if name in BOUNDED and value > LARGEST_EXPONENT:
        raise InputError(f"{name}={value} must be at most {LARGEST_EXPONENT}; {EXPONENTS[name]}")


def rescore(masses: Floats, areas: Floats, gamma: float, beliefs: Floats | None = None, prior: float = 0.0) -> Floats:
    """Computes f(R) = b_R^prior * S_R / A_R^gamma.

    Args:
        masses: ``(W, N)``, S_R, the mass of W maps inside N regions.
        areas: ``(N,)`` in (0, 1], A_R, the regions' shares of the image. With shares instead of pixels, scores of
            images of different sizes are comparable.
        gamma: exponent of the area, >= 0; 0 favours the whole image, 1 the highest density of mass.
        beliefs: ``(N,)``, >= 0, b_R, the proposer's own scores; only used with prior > 0.
        prior: exponent of the proposer's score relative to the best one, >= 0; the paper has 0.

    Returns:
        ``(W, N)``, >= 0.

    Raises:
        InputError: gamma or prior is not a finite number >= 0, or gamma is above ``LARGEST_EXPONENT``.
    """
    check_exponent("gamma", gamma)
    check_exponent("prior", prior)
    scores: Floats = masses / areas**gamma
    if not prior:
        return scores
    if beliefs is None:
        raise InputError(f"prior={prior} needs the proposer's scores: give beliefs, or set prior=0")
    weighted: Floats = scores * (beliefs / beliefs.max()) ** prior
    return weighted


def suppress(boxes: Floats, scores: Floats, threshold: float) -> NDArray[np.int64]:
    """Applies greedy non-maximum suppression.

    Args:
        boxes: ``(N, 4)`` xyxy.
        scores: ``(N,)``.
        threshold: the largest IoU, in 0..1; a box whose IoU with a better box is larger is removed.

    Returns:
        ``(K,)`` the indices of the boxes that are kept, best first; equal scores stay in the given order.

    Raises:
        InputError: the threshold is not in 0..1.
    """
    check_overlap(threshold)
    from torchvision.ops import nms  # here, because it imports PyTorch's compiler, which a vote does not need

    # copies, because arrays from files are read-only, of which torch warns
    kept: NDArray[np.int64] = nms(torch.tensor(boxes), torch.tensor(scores), threshold).numpy()
    return kept


def vote_overlaps(boxes: Floats) -> sparse.csr_array:
    """Computes the overlaps that :func:`vote` needs.

    Args:
        boxes: ``(N, 4)`` xyxy.

    Returns:
        ``(N, N)`` sparse, the IoU of each pair of boxes where it is above ``MIN_IOU``.
    """
    overlaps: sparse.csr_array = pairwise_iou(boxes, MIN_IOU)
    return overlaps


def winning(scores: Floats, sharpness: float) -> Floats:
    """The probability that each region is the object, p(R) = f(R)^sharpness / sum.

    Args:
        scores: ``(..., N)``, >= 0, f(R).
        sharpness: > 0; the larger it is, the more the best scores dominate.

    Returns:
        ``(..., N)``; 1/N if all scores are 0.

    Raises:
        InputError: sharpness is not a finite number > 0.
    """
    if not 0 < sharpness < np.inf:
        raise InputError(f"vote={sharpness} must be a number >= 0; {EXPONENTS['vote']}")
    best = scores.max(-1, keepdims=True)
    mass = np.where(best > 0, scores / np.where(best > 0, best, 1), 1) ** sharpness
    shares: Floats = mass / mass.sum(-1, keepdims=True)
    return shares


def mean_probability(scores: Floats, sharpness: float) -> Floats:
    """The mean of p(R) over methods. A method that has no mass for a phrase is left out for it.

    Args:
        scores: ``(methods, Q, N)``, >= 0, f(R) of Q phrases by each method.
        sharpness: see :func:`winning`.

    Returns:
        ``(Q, N)``, each row with the sum 1; 1/N if no method has any mass.

    Raises:
        InputError: see :func:`winning`.
    """
    found = scores.max(2) > 0
    found[0] |= ~found.any(0)
    mean: Floats = np.einsum("mqn,mq->qn", winning(scores, sharpness), found) / found.sum(0)[:, None]
    return mean


def contest(probabilities: Floats, presences: Floats, rivalry: float) -> Floats:
    """Lowers the probability of regions that are also probable for other phrases.

    p_i(R) of phrase i is multiplied by share_i(R)^rivalry. With g(R) = p(R) / max p, the share is
    g_i(R) / (g_i(R) + r_i(R)). The rivals of a region, r_i(R), are the norm of order ``RIVAL_NORM`` of
    min(1, P_j / P_i) g_j(R) over the other phrases j, where P is the presence: a phrase whose object is probably not in
    the photo does not compete with one whose object is. With a sum instead of the norm, many phrases together would
    push each other from large regions to small ones that none of them means.

    Args:
        probabilities: ``(Q, N)``, of Q different phrases.
        presences: ``(Q,)``, how probable it is that the photo shows what each phrase names; equal numbers if unknown.
        rivalry: exponent of the share, >= 0; 0 changes nothing.

    Returns:
        ``(Q, N)``, each row with the sum 1.

    Raises:
        InputError: rivalry is not a number from 0 to ``LARGEST_EXPONENT``.
    """
    check_exponent("rivalry", rivalry)
    relative = probabilities / probabilities.max(1, keepdims=True)
    known = np.maximum(presences, np.finfo(float).tiny)
    weights = np.minimum(1, known[None] / known[:, None])
    np.fill_diagonal(weights, 0)  # no phrase is its own rival
    total = relative + (weights**RIVAL_NORM @ relative**RIVAL_NORM) ** (1 / RIVAL_NORM)
    shares = np.divide(relative, total, out=np.ones_like(relative), where=total > 0)
    contested: Floats = probabilities * shares**rivalry
    contested /= contested.sum(1, keepdims=True)
    return contested


def first_box(overlaps: sparse.csr_array, probabilities: Floats) -> int:
    """The box that wins the most probability.

    Args:
        overlaps: ``(N, N)`` sparse, from :func:`vote_overlaps`.
        probabilities: ``(N,)``, see :func:`winning`.

    Returns:
        Its index.
    """
    return int(greedy_coverage(overlaps, probabilities, 1, MIN_IOU, FULL_IOU)[0][0])


def vote(
    overlaps: sparse.csr_array, probabilities: Floats, first: int | None = None
) -> tuple[NDArray[np.int64], Floats]:
    """Ranks boxes by maximum coverage of the probability p(R).

    A box wins a share of p(R') of each box R' that overlaps it. The share grows linearly from 0 at an IoU of
    ``MIN_IOU`` to 1 at ``FULL_IOU``. Probability that one box has won cannot be won again by a later box. Boxes are
    chosen greedily, which covers at least 1 - 1/e of the optimum (Nemhauser et al. 1978).

    Args:
        overlaps: ``(N, N)`` sparse, from :func:`vote_overlaps`.
        probabilities: ``(N,)``, p(R), see :func:`winning`.
        first: index of a box that is the first whatever it wins; None for the box that wins the most.

    Returns:
        ``(K,)`` the indices of at most ``MAX_BOXES`` boxes in the order of choice, and ``(K,)`` the probability that
        each wins, non-increasing: a given first box has at least the score of the second.
    """
    count = min(MAX_BOXES, len(probabilities))
    if first is None:
        order, won = greedy_coverage(overlaps, probabilities, count, MIN_IOU, FULL_IOU)
        return order, won
    covered = ((overlaps[[first]].toarray()[0] - MIN_IOU) / (FULL_IOU - MIN_IOU)).clip(0, 1)
    order, won = greedy_coverage(overlaps, probabilities * (1 - covered), count, MIN_IOU, FULL_IOU)
    others = order != first
    order, won = order[others][: count - 1], won[others][: count - 1]
    own = max(float(probabilities @ covered), *won[:1], 0.0)
    return np.concatenate([[first], order]), np.concatenate([[own], won])
