"""Teacher: the network as it was, for what it knew and the training's photos have no tags for (Hinton et al. 2015)."""

import copy

import torch
from torch import Tensor, nn

from grounding.tagger.tagger import TagClassifier


class Teacher(nn.Module):
    """Answers for the inherited tags as the network did at the start.

    Args:
        tagger: as the training starts from it; it is copied. known: how many of its tags are the photos' own; the
            others are inherited.
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
        """Preprocessed (n, 3, 224, 224) to the logits of the inherited tags (n, inherited)."""
        return self.classifier(self.trunk(images)).flatten(1)


@torch.no_grad()
def calibrate(tagger: TagClassifier, images: Tensor, known: int) -> None:
    """Moves the inherited biases by one number, so that a tag's logit is about the log of its softmax.

    A softmax does not see the move; but beside tags that are asked one by one, each of a thousand classes would else
    seem likely.

    Args:
        images: preprocessed (n, 3, 224, 224), of which the mean is taken.
    """
    logits = tagger.eval()(images).flatten(1)[:, known:]
    tagger.classifier.bias[known:] -= logits.logsumexp(1).mean()
