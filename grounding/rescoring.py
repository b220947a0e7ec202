"""Scores proposals by the attention inside them, and ranks them.

The paper's score of a region R is f(R) = S_R / A_R^gamma (Zhang et al. 2016, Sec. 4.3): S_R is the mass of the map
inside R, A_R its area. Then non-maximum suppression removes near-duplicates.

Two extensions are ours and can be switched off:

- The proposer's own score b_R is a prior: f(R) = b_R^prior * S_R / A_R^gamma. The paper has no prior: prior = 0.
- A vote replaces non-maximum suppression. f becomes a probability that R is the object, p(R) = f(R)^vote / sum. A box
  wins the probability of all proposals that nearly coincide with it, so a box among many good ones is ranked before a
  single box with a slightly better score. The next box wins only the probability that is left.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torchvision.ops import nms

from proposals.errors import InputError
from proposals.ranking import greedy_coverage, pairwise_iou

# A box wins none of the probability of a proposal whose IoU with it is at most MIN_IOU, and all of it if the IoU is
# FULL_IOU or more. The evaluation counts a box as correct at an IoU of 0.5.
MIN_IOU, FULL_IOU = 0.4, 0.8
MAX_BOXES = 100  # the largest number of boxes that a vote ranks

Floats = NDArray[np.float64]


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
        InputError: gamma or prior is not a finite number >= 0.
    """
    if not 0 <= gamma < np.inf:
        raise InputError(f"gamma={gamma} must be a number >= 0; the paper uses 0 to 1")
    if not 0 <= prior < np.inf:
        raise InputError(f"prior={prior} must be a number >= 0; the paper uses 0")
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
    if not 0 <= threshold <= 1:
        raise InputError(f"nms={threshold} must be in 0..1; the paper uses 0.7")
    kept: NDArray[np.int64] = nms(
        torch.from_numpy(boxes), torch.from_numpy(np.ascontiguousarray(scores)), threshold
    ).numpy()
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


def vote(overlaps: sparse.csr_array, scores: Floats, sharpness: float) -> tuple[NDArray[np.int64], Floats]:
    """Ranks boxes by maximum coverage of the probability p(R) = f(R)^sharpness / sum.

    A box wins a share of p(R') of each box R' that overlaps it. The share grows linearly from 0 at an IoU of
    ``MIN_IOU`` to 1 at ``FULL_IOU``. Probability that one box has won cannot be won again by a later box. Boxes are
    chosen greedily, which covers at least 1 - 1/e of the optimum (Nemhauser et al. 1978).

    Args:
        overlaps: ``(N, N)`` sparse, from :func:`vote_overlaps`.
        scores: ``(N,)``, >= 0, f(R).
        sharpness: > 0; the larger it is, the more the best scores dominate.

    Returns:
        ``(K,)`` the indices of at most ``MAX_BOXES`` boxes in the order of choice, and ``(K,)`` the probability that
        each wins: non-increasing, with a sum of at most 1. If all scores are 0, every box has p = 1/N.

    Raises:
        InputError: sharpness is not a finite number > 0.
    """
    if not 0 < sharpness < np.inf:
        raise InputError(f"vote={sharpness} must be a number >= 0; 0 uses nms, as in the paper")
    best = scores.max()
    mass = (scores / best) ** sharpness if best > 0 else np.ones(len(scores))
    order, won = greedy_coverage(overlaps, mass / mass.sum(), min(MAX_BOXES, len(scores)), MIN_IOU, FULL_IOU)
    return order, won
