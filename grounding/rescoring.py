"""Proposals rescored by the mass inside them: f(R) = S_R / A_R^gamma (Sec. 4.3), then thinned.

Where the proposer's own belief b_R counts too, f(R) = b_R^prior . S_R / A_R^gamma; the paper's method has prior = 0.
"""

import numpy as np
import torch
from torchvision.ops import nms

from proposals.errors import InputError


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
