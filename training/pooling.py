"""Pooling: one score of each tag for a photo, from the scores at the positions of the network."""

import math

from torch import Tensor


def pool_scores(scores: Tensor, sharpness: float = 0.0) -> Tensor:
    """Pools the scores of each tag over the positions.

    Args:
        scores: ``(n, tags, h, w)`` float, logits at each position.
        sharpness: 0: the mean of the positions. r > 0: log(mean(exp(r x))) / r, a smooth maximum, which is between the
            mean and the largest and nearer to the largest for a larger r (Pinheiro and Collobert 2015, Eq. 2).

    Returns:
        ``(n, tags)`` float32.
    """
    flat = scores.float().flatten(2)
    if flat.shape[2] == 1:
        return flat[..., 0]
    if not sharpness:
        return flat.mean(2)
    return ((sharpness * flat).logsumexp(2) - math.log(flat.shape[2])) / sharpness
