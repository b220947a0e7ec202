"""The networks of the benchmarks: the tagger googlenet, and torchvision's GoogLeNet and VGG16 with random weights."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
import torchvision
from skimage import data
from torch import Tensor, nn
from torchvision.models.googlenet import BasicConv2d

from grounding.tagger.preprocessing import TENSORFLOW, TORCHVISION, Preprocessing
from grounding.tagger.tagger import TagClassifier


@dataclass(frozen=True)
class BenchmarkNetwork:
    """A network and the names of its layers.

    Attributes:
        model: the network.
        preprocessing: the preprocessing of its images.
        target: the layer of the maps.
        below: the layer whose output is the classifier's input; TorchRay computes its contrast there.
        classifier: the last layer.
    """

    model: nn.Module
    preprocessing: Preprocessing
    target: str
    below: str
    classifier: str

    def image(self, size: tuple[int, int]) -> Tensor:
        """A preprocessed photo.

        Args:
            size: (height, width) in pixels.

        Returns:
            ``(1, 3, height, width)`` float32.
        """
        photo = torch.from_numpy(data.astronaut()).permute(2, 0, 1)[None].float()
        return self.preprocessing(F.interpolate(photo, size=size, mode="bilinear", antialias=True))


def bvlc_googlenet() -> BenchmarkNetwork:
    """The tagger googlenet of the package."""
    tagger = TagClassifier.load("googlenet")
    return BenchmarkNetwork(tagger, tagger.preprocessing, "trunk.pool2", "trunk.pool5", "classifier")


def googlenet() -> BenchmarkNetwork:
    """torchvision's GoogLeNet. Its batch norms are folded, because not all peers support them."""
    model = torchvision.models.googlenet(weights=None, aux_logits=False, init_weights=False)
    _initialise(model)
    for module in model.modules():
        if isinstance(module, BasicConv2d):
            module.conv = nn.utils.fusion.fuse_conv_bn_eval(module.conv, module.bn)
            module.bn = nn.Identity()
    return BenchmarkNetwork(model, TENSORFLOW, "maxpool2", "avgpool", "fc")


def vgg16() -> BenchmarkNetwork:
    """torchvision's VGG16."""
    model = torchvision.models.vgg16(weights=None)
    _initialise(model)
    return BenchmarkNetwork(model, TORCHVISION, "features.23", "classifier.5", "classifier.6")


def _initialise(model: nn.Module) -> None:
    """He initialisation, the same in every run."""
    torch.manual_seed(0)
    for module in model.eval().modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")


NETWORKS: dict[str, Callable[[], BenchmarkNetwork]] = {f.__name__: f for f in (bvlc_googlenet, googlenet, vgg16)}
