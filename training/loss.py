"""The multi-label cross entropy over thousands of tags, of which a photo has a few."""

import torch.nn.functional as F
from torch import Tensor


def tag_loss(logits: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """The sum over tags of the binary cross entropies, averaged over photos.

    -log s(l) for a positive and -log(1 - s(l)) for a negative are softplus(l) - y l, so no dense targets are needed.

    Args:
        logits: (B, tags); rows, columns: (P,) where the positives are, no pair twice.

    Returns:
        A float32 scalar.
    """
    logits = logits.float()
    return (F.softplus(logits).sum() - logits[rows, columns].sum()) / len(logits)
