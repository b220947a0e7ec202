"""The teacher: a frozen copy of the initial network, for tags that the training photos lack (Hinton et al. 2015)."""

import copy

import torch
from torch import Tensor, nn

from grounding.tagger.tagger import TagClassifier
from proposals.errors import InputError
from training.pooling import pool_scores

PART = 16  # photos that are calibrated at a time, so that large crops fit into memory


class Teacher(nn.Module):
    """Predicts the inherited tags as the network did at the start of the training.

    Args:
        tagger: the tagger at the start of the training; its weights are copied.
        known: number of its tags that the training photos have. These come first; the others are inherited.
    """

    def __init__(self, tagger: TagClassifier, known: int):
        super().__init__()
        self.trunk = copy.deepcopy(tagger.trunk)
        layer = tagger.classifier
        self.classifier = nn.Conv2d(layer.in_channels, layer.out_channels - known, 1)
        self.classifier.weight.data.copy_(layer.weight.data[known:])
        self.classifier.bias.data.copy_(layer.bias.data[known:])
        self.eval().requires_grad_(False).to(memory_format=torch.channels_last)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """The logits of the inherited tags.

        Args:
            images: ``(n, 3, H, W)`` float, preprocessed.

        Returns:
            ``(n, inherited, h, w)`` float, one logit for each position.
        """
        return self.classifier(self.trunk(images))


class FileTeacher(nn.Module):
    """Another tagger, of any architecture, that teaches the tags that both have.

    Args:
        student: the tagger to be trained.
        teacher: the tagger that teaches; it is changed.
        known: number of the student's tags that the training photos have. These come first; the others are inherited.
        pooling: how the positions of a crop are pooled, see ``training.pooling.pool_scores``.

    Attributes:
        columns: ``(S,)`` int64, the student's tags below ``known`` that the teacher has.
        inherited: ``(T,)`` int64, the student's other tags that the teacher has.

    Raises:
        InputError: the teacher lacks an inherited tag, or has none of the student's tags.
    """

    columns: Tensor
    inherited: Tensor

    def __init__(self, student: TagClassifier, teacher: TagClassifier, known: int, pooling: float = 0.0):
        super().__init__()
        tags, has = list(student.vocabulary), teacher.vocabulary
        missing = [tag for tag in tags[known:] if tag not in has]
        if missing:
            raise InputError(
                f"step.teacher= lacks {len(missing)} of the tags that init= adds, such as {missing[0]!r}: give a "
                "teacher that has them"
            )
        shared = [row for row, tag in enumerate(tags) if tag in has]
        if not shared:
            raise InputError("step.teacher= has none of the tags of the training photos: give another teacher")
        own = torch.tensor([has.index(tags[row]) for row in shared])
        teacher.classifier.weight = nn.Parameter(teacher.classifier.weight.detach()[own])
        teacher.classifier.bias = nn.Parameter(teacher.classifier.bias.detach()[own])
        self.tagger, self.pooling = teacher, pooling
        self.register_buffer("columns", torch.tensor([row for row in shared if row < known], dtype=torch.long))
        self.register_buffer("inherited", torch.tensor([row for row in shared if row >= known], dtype=torch.long))
        self.eval().requires_grad_(False).to(memory_format=torch.channels_last)

    @torch.no_grad()
    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The teacher's logits of the shared tags.

        Args:
            images: ``(n, 3, H, W)`` uint8 RGB.

        Returns:
            ``(n, S)`` and ``(n, T)`` float.
        """
        prepared = self.tagger.preprocessing(images).contiguous(memory_format=torch.channels_last)
        logits = pool_scores(self.tagger(prepared), self.pooling)
        return logits[:, : len(self.columns)], logits[:, len(self.columns) :]


@torch.no_grad()
def calibrate(tagger: TagClassifier, images: Tensor, known: int, pooling: float = 0.0) -> None:
    """Adds one constant to the biases of the inherited tags, so that a logit is about the log of its softmax.

    The inherited tags come from a softmax over classes, which does not change with such a constant. The other tags
    have a sigmoid each. Without the constant, each of the thousand classes would look more likely than it is.

    Args:
        tagger: the tagger to change.
        images: ``(n, 3, H, W)`` float, preprocessed; the constant is a mean over them.
        known: number of tags that are not inherited; they come first.
        pooling: how the positions of a crop are pooled, see ``training.pooling.pool_scores``.
    """
    tagger.eval()
    parts = [pool_scores(tagger(part), pooling)[:, known:].logsumexp(1) for part in images.split(PART)]
    tagger.classifier.bias[known:] -= torch.cat(parts).mean()
