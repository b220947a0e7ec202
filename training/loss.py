"""Training losses: multi-label cross entropy over thousands of tags, and distillation from a teacher."""

import torch
import torch.nn.functional as F
from torch import Tensor

CHUNK = 1 << 20  # logits processed at a time, so that temporary arrays fit into the processor's cache


class _TagLoss(torch.autograd.Function):
    """Binary cross entropy without a dense target matrix.

    With the logit l and the target y, the loss is softplus(l) - y l and its gradient sigmoid(l) - y. So the positives'
    indices are enough, and backward allocates only the gradient.
    """

    @staticmethod
    def forward(ctx, logits: Tensor, rows: Tensor, columns: Tensor, photos: int) -> Tensor:
        logits = logits.float().contiguous()
        ctx.save_for_backward(logits, rows, columns)
        ctx.photos = photos
        # float64, because the two sums nearly cancel where the positives are predicted well
        total = sum(F.softplus(part).sum(dtype=torch.float64) for part in logits.view(-1).split(CHUNK))
        return ((total - logits[rows, columns].sum(dtype=torch.float64)) / photos).float()

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        logits, rows, columns = ctx.saved_tensors
        slopes = logits.sigmoid()
        slopes[rows, columns] -= 1
        return slopes.mul_(gradient / ctx.photos), None, None, None


def tag_loss(logits: Tensor, rows: Tensor, columns: Tensor, photos: int | None = None) -> Tensor:
    """Binary cross entropy, summed over tags and averaged over photos.

    It is computed in float32, whatever the dtype of the logits.

    Args:
        logits: ``(B, tags)`` float.
        rows: ``(P,)`` int64, the photo of each positive pair; no pair occurs twice.
        columns: ``(P,)`` int64, the tag of each positive pair.
        photos: number to divide by. None: B.

    Returns:
        A float32 scalar.
    """
    return _TagLoss.apply(logits, rows, columns, photos or len(logits))


def tagged_loss(logits: Tensor, rows: Tensor, columns: Tensor, photos: int) -> Tensor:
    """:func:`tag_loss` of the photos that have a tag; nothing is known of the tags of the others.

    Args:
        logits: ``(B, tags)`` float.
        rows: ``(P,)`` int64, the photo of each positive pair.
        columns: ``(P,)`` int64, the tag of each positive pair.
        photos: number to divide by.

    Returns:
        A float32 scalar, 0 if no photo has a tag.
    """
    tagged, rows = rows.unique(return_inverse=True)
    return tag_loss(logits if len(tagged) == len(logits) else logits[tagged], rows, columns, photos)


def soft_tag_loss(logits: Tensor, teacher_logits: Tensor, photos: int) -> Tensor:
    """Binary cross entropy with the teacher's probabilities as targets, summed over tags and averaged over photos.

    Args:
        logits: ``(B, tags)`` float, of the student.
        teacher_logits: ``(B, tags)`` float, of the teacher.
        photos: number to divide by.

    Returns:
        A float32 scalar, smallest where both logits are equal.
    """
    targets = teacher_logits.float().sigmoid()
    return F.binary_cross_entropy_with_logits(logits.float(), targets, reduction="sum") / photos


def distillation_loss(logits: Tensor, teacher_logits: Tensor, photos: int | None = None) -> Tensor:
    """KL divergence of the student's softmax from the teacher's, averaged over photos (Hinton et al. 2015, T = 1).

    Args:
        logits: ``(B, classes)`` float, of the student.
        teacher_logits: ``(B, classes)`` float, of the teacher.
        photos: number to divide by. None: B.

    Returns:
        A float32 scalar, 0 if both softmaxes are equal.
    """
    ours, theirs = logits.float().log_softmax(1), teacher_logits.float().log_softmax(1)
    return F.kl_div(ours, theirs, reduction="sum", log_target=True) / (photos or len(logits))
