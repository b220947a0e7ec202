"""The teacher: a frozen copy of the initial network, for tags that the training photos lack (Hinton et al. 2015)."""

import copy

import torch
from torch import Tensor, nn

from grounding.tagger.tagger import TagClassifier


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
            images: ``(n, 3, 224, 224)`` float, preprocessed.

        Returns:
            ``(n, inherited)`` float.
        """
        return self.classifier(self.trunk(images)).flatten(1)


@torch.no_grad()
def calibrate(tagger: TagClassifier, images: Tensor, known: int) -> None:
    """Adds one constant to the biases of the inherited tags, so that a logit is about the log of its softmax.

    The inherited tags come from a softmax over classes, which does not change with such a constant. The other tags
    have a sigmoid each. Without the constant, each of the thousand classes would look more likely than it is.

    Args:
        tagger: the tagger to change.
        images: ``(n, 3, 224, 224)`` float, preprocessed; the constant is a mean over them.
        known: number of tags that are not inherited; they come first.
    """
    logits = tagger.eval()(images).flatten(1)[:, known:]
    tagger.classifier.bias[known:] -= logits.logsumexp(1).mean()
