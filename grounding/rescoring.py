"""Proposals rescored by the mass inside them: f(R) = S_R / A_R^gamma (Sec. 4.3), then thinned, or ranked by a vote.

Where the proposer's own belief b_R counts too, f(R) = b_R^prior . S_R / A_R^gamma; the paper's method has prior = 0.

A vote is ours. f becomes a distribution over the proposals, p(R) = f(R)^vote / sum, that is where the thing may be; a
box is as good as the mass of the proposals that it could stand for, those that nearly coincide with it. So one box in a
crowd of good ones comes before a single one that is a little better, and the second box is what the first leaves over.
"""

import numpy as np
import torch
from scipy import sparse
from torchvision.ops import nms

from proposals.errors import InputError
from proposals.ranking import greedy_coverage, pairwise_iou

# IoU at which a box begins to stand for another one, and does so fully; 0.5 is what recall asks for
NEAR, SAME = 0.4, 0.8
ELECTED = 100  # boxes that a vote ranks


def rescore(
    masses: np.ndarray, areas: np.ndarray, gamma: float, beliefs: np.ndarray | None = None, prior: float = 0.0
) -> np.ndarray:
    """f(R) = b_R^prior . S_R / A_R^gamma.

    Args:
        masses: (W, N) S_R, the mass of W maps inside N regions.
        areas: (N,) A_R in (0, 1], the regions' shares of the image, so that scores of different images compare.
        gamma: the price of area; 0 favours the whole image, 1 the densest spot.
        beliefs: (N,) >= 0, the proposer's own scores, taken as shares of the best; they matter where prior > 0.
        prior: how much they count; 0 is the paper's formula.

    Returns:
        (W, N), >= 0.

    Raises:
        InputError: gamma or prior is not a finite number >= 0.
    """
    if not 0 <= gamma < np.inf:
        raise InputError(f"gamma={gamma} must be a number >= 0; the paper takes 0 to 1")
    if not 0 <= prior < np.inf:
        raise InputError(f"prior={prior} must be a number >= 0; the paper takes 0")
    scores = masses / areas**gamma
    return scores if not prior else scores * (beliefs / beliefs.max()) ** prior


def thin(boxes: np.ndarray, scores: np.ndarray, threshold: float) -> np.ndarray:
    """Greedy non-maximum suppression: the indices of the boxes kept, best first, ties in their given order.

    Args:
        boxes: (N, 4) xyxy; scores: (N,); threshold: a box of IoU > threshold with a better one is dropped.

    Raises:
        InputError: threshold is not in 0..1.
    """
    if not 0 <= threshold <= 1:
        raise InputError(f"nms={threshold} must lie in 0..1; the paper takes 0.7")
    return nms(torch.from_numpy(boxes), torch.from_numpy(np.ascontiguousarray(scores)), threshold).numpy()


def electorate(boxes: np.ndarray) -> sparse.csr_array:
    """How far each box could stand for each other one, before ``vote``: (N, N), the IoU of boxes (N, 4) near it."""
    return pairwise_iou(boxes, NEAR)


def vote(overlaps: sparse.csr_array, scores: np.ndarray, sharpness: float) -> tuple[np.ndarray, np.ndarray]:
    """Maximum coverage of p(R) = f(R)^sharpness / sum: each box takes the votes of those that nearly coincide with it.

    Box R counts for R' by a ramp of their IoU, 0 at ``NEAR`` and 1 at ``SAME``; what was counted once is not counted
    again. Greedy, which is within 1 - 1/e of the best (Nemhauser et al., 1978).

    Args:
        overlaps: of :func:`electorate`; scores: (N,) f(R) >= 0; sharpness: > 0, how much more the better ones count.

    Returns:
        (K,) at most ``ELECTED`` boxes in the order of choice, and (K,) the mass that each wins: non-increasing, their
        sum at most 1; 1/N each where all scores are 0.

    Raises:
        InputError: sharpness is not a finite number > 0.
    """
    if not 0 < sharpness < np.inf:
        raise InputError(f"vote={sharpness} must be a number >= 0; 0 thins by nms as the paper does")
    best = scores.max()
    mass = (scores / best) ** sharpness if best > 0 else np.ones(len(scores))
    return greedy_coverage(overlaps, mass / mass.sum(), min(ELECTED, len(scores)), NEAR, SAME)
