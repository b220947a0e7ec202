"""What a training lowers: the multi-label cross entropy over thousands of tags, and the distance to a teacher."""

import torch
import torch.nn.functional as F
from torch import Tensor

CHUNK = 1 << 20  # logits that are worked on at a time: the temporary arrays stay in the processor's cache


class _TagLoss(torch.autograd.Function):
    """-log s(l) for a positive and -log(1 - s(l)) for a negative are softplus(l) - y l, with the gradient s(l) - y: no
    dense y is needed, and the one array that backward makes is the gradient."""

    @staticmethod
    def forward(ctx, logits: Tensor, rows: Tensor, columns: Tensor, photos: int) -> Tensor:
        logits = logits.float().contiguous()
        ctx.save_for_backward(logits, rows, columns)
        ctx.photos = photos
        # in float64, for the sums of sure positives nearly cancel
        total = sum(F.softplus(part).sum(dtype=torch.float64) for part in logits.view(-1).split(CHUNK))
        return ((total - logits[rows, columns].sum(dtype=torch.float64)) / photos).float()

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        logits, rows, columns = ctx.saved_tensors
        slopes = logits.sigmoid()
        slopes[rows, columns] -= 1
        return slopes.mul_(gradient / ctx.photos), None, None, None


def tag_loss(logits: Tensor, rows: Tensor, columns: Tensor, photos: int | None = None) -> Tensor:
    """The sum over tags of the binary cross entropies, averaged over photos; in float32, whatever the logits are.

    Args:
        logits: (B, tags); rows, columns: (P,) where the positives are, no pair twice; photos: to divide by, B by
            default.

    Returns:
        A float32 scalar.
    """
    return _TagLoss.apply(logits, rows, columns, photos or len(logits))


def distillation_loss(logits: Tensor, taught: Tensor, photos: int | None = None) -> Tensor:
    """The cross entropy of the softmax to the teacher's, less its own entropy (KL divergence), averaged over photos.

    Args:
        logits: (B, classes) of the student; taught: (B, classes) of the teacher; photos: to divide by, B by default.

    Returns:
        A float32 scalar, 0 where both softmaxes agree (Hinton et al. 2015, at temperature 1).
    """
    ours, theirs = logits.float().log_softmax(1), taught.float().log_softmax(1)
    return F.kl_div(ours, theirs, reduction="sum", log_target=True) / (photos or len(logits))
