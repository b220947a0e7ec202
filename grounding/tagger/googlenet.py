"""The BVLC GoogLeNet of the Caffe Model Zoo, the network that the paper fine-tunes, as a PyTorch module.

Szegedy et al., *Going deeper with convolutions*, 2014, as Caffe implements it: a ReLU after every convolution, no batch
normalisation, local response normalisation after pool1 and conv2, a 5x5 branch, and all pooling in ceil mode.
torchvision's ``googlenet`` is a different network (batch normalisation, 3x3 instead of 5x5, no local response
normalisation) and cannot load these weights.
"""

from collections import OrderedDict

import torch
from torch import Tensor, nn

from grounding.attention.engine.dense import Descend
from grounding.attention.layers import rule
from grounding.attention.neurons import Neurons
from grounding.attention.rules import RuleSet
from proposals.errors import InputError

# output channels of the layers 1x1, 3x3 reduce, 3x3, 5x5 reduce, 5x5, pool projection (Table 1 of Szegedy et al.)
INCEPTIONS = {
    "inception_3a": (64, 96, 128, 16, 32, 32),
    "inception_3b": (128, 128, 192, 32, 96, 64),
    "inception_4a": (192, 96, 208, 16, 48, 64),
    "inception_4b": (160, 112, 224, 24, 64, 64),
    "inception_4c": (128, 128, 256, 24, 64, 64),
    "inception_4d": (112, 144, 288, 32, 64, 64),
    "inception_4e": (256, 160, 320, 32, 128, 128),
    "inception_5a": (256, 160, 320, 32, 128, 128),
    "inception_5b": (384, 192, 384, 48, 128, 128),
}
POOL_BEFORE = {"inception_4a": "pool3", "inception_5a": "pool4"}
CHANNELS = 1024


def conv(inputs: int, outputs: int, size: int, stride: int = 1, padding: int = 0) -> nn.Sequential:
    """A convolution followed by a ReLU.

    Args:
        inputs: number of input channels.
        outputs: number of output channels.
        size: height and width of the kernel.
        stride: step of the kernel, in pixels.
        padding: zeros added on each side, in pixels.

    Returns:
        The two layers, named ``conv`` and ``relu``.
    """
    convolution = nn.Conv2d(inputs, outputs, size, stride=stride, padding=padding)
    return nn.Sequential(OrderedDict(conv=convolution, relu=nn.ReLU(inplace=True)))


def pool(stride: int, padding: int = 0) -> nn.MaxPool2d:
    """Caffe's 3x3 max pooling, whose last window may extend beyond the edge.

    Args:
        stride: step of the window, in pixels.
        padding: padding on each side, in pixels.

    Returns:
        The pooling layer.
    """
    return nn.MaxPool2d(3, stride, padding, ceil_mode=True)


class ResponseNorm(nn.LocalResponseNorm):
    """Local response normalisation: x * (k + alpha / size * S)^(-3/4), with S the sum of x^2 over adjacent channels.

    The sum is computed as a 1x1 convolution with a band matrix of ones, and the power as two roots. This takes half
    the time of PyTorch's own layer, which takes as long as all convolutions of the network together.

    Args:
        channels: the number of channels; None reads it from the input. A network that reads the shape of its input is
            captured again for each size of photos.
    """

    def __init__(self, channels: int | None = None) -> None:
        super().__init__(5, 1e-4, 0.75)
        self._channels = channels

    def factor(self, x: Tensor) -> Tensor:
        """The factor by which the layer multiplies its input.

        Args:
            x: ``(N, C, h, w)``, the input.

        Returns:
            ``(N, C, h, w)`` in 0..1.
        """
        channels, reach = self._channels or x.shape[1], self.size // 2
        band = x.new_ones(channels, channels).tril(reach).triu(-reach)
        sums = nn.functional.conv2d(x.square(), band[:, :, None, None])
        if sums.requires_grad or torch.is_autocast_enabled():  # autocast computes the root in float32
            root = torch.rsqrt(self.k + self.alpha / self.size * sums)
            return root * root.sqrt()
        # the same in place: otherwise this layer takes the most memory of a forward pass
        root = sums.mul_(self.alpha / self.size).add_(self.k).rsqrt_()
        return root.sqrt().mul_(root)

    def forward(self, x: Tensor) -> Tensor:
        """Normalises the input.

        Args:
            x: ``(N, C, h, w)``.

        Returns:
            ``(N, C, h, w)``.
        """
        factor = self.factor(x)
        kept = factor.requires_grad or x.requires_grad or factor.dtype != x.dtype
        return x * factor if kept else factor.mul_(x)


@rule(ResponseNorm)
def response_norm(rules: RuleSet, module: ResponseNorm, x: Neurons) -> tuple[Neurons, Descend]:
    """A response norm: a scaling of each element; the factor counts as a constant."""
    return rules.scaled(x, module.factor(x.value), module)


class Inception(nn.Module):
    """Four branches over one input, concatenated: 1x1, 3x3, 5x5, and 3x3 max pooling with a projection.

    Args:
        inputs: number of input channels.
        one: output channels of the 1x1 convolution.
        three_in: output channels of the 1x1 convolution before the 3x3 one.
        three: output channels of the 3x3 convolution.
        five_in: output channels of the 1x1 convolution before the 5x5 one.
        five: output channels of the 5x5 convolution.
        project: output channels of the 1x1 convolution after the pooling.
    """

    def __init__(self, inputs: int, one: int, three_in: int, three: int, five_in: int, five: int, project: int) -> None:
        super().__init__()
        self.one = conv(inputs, one, 1)
        self.three_reduce = conv(inputs, three_in, 1)
        self.three = conv(three_in, three, 3, padding=1)
        self.five_reduce = conv(inputs, five_in, 1)
        self.five = conv(five_in, five, 5, padding=2)
        self.pool = pool(1, padding=1)
        self.project = conv(inputs, project, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Concatenates the outputs of the branches.

        Args:
            x: ``(N, inputs, h, w)``.

        Returns:
            ``(N, one + three + five + project, h, w)``.
        """
        branches = self.one(x), self.three(self.three_reduce(x)), self.five(self.five_reduce(x))
        return torch.cat([*branches, self.project(self.pool(x))], 1)


def googlenet() -> nn.Sequential:
    """The trunk from the image to pool5, with Caffe's layer names and He-initialised weights.

    Input: ``(N, 3, h, w)`` BGR in 0..255 minus the means, h and w at least 224. Output: ``(N, 1024, h', w')``, one
    position for 224 pixels and one more for every further 32 pixels, because pool5 is a 7x7 average of stride 1 and
    not a global average.

    Returns:
        The trunk, without a classifier.
    """
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    layers["conv1"] = conv(3, 64, 7, stride=2, padding=3)
    layers["pool1"] = pool(2)
    layers["norm1"] = ResponseNorm(64)
    layers["conv2_reduce"] = conv(64, 64, 1)
    layers["conv2"] = conv(64, 192, 3, padding=1)
    layers["norm2"] = ResponseNorm(192)
    layers["pool2"] = pool(2)
    inputs = 192
    for name, branches in INCEPTIONS.items():
        if name in POOL_BEFORE:
            layers[POOL_BEFORE[name]] = pool(2)
        layers[name] = Inception(inputs, *branches)
        inputs = branches[0] + branches[2] + branches[4] + branches[5]
    layers["pool5"] = nn.AvgPool2d(7, stride=1)
    trunk = nn.Sequential(layers)
    for module in trunk.modules():
        # on the meta device there are no values, and normal_ would import PyTorch's compiler, which takes seconds
        if isinstance(module, nn.Conv2d) and not module.weight.is_meta:
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return trunk


CAFFE_LAYERS = {"conv1/7x7_s2": "conv1.conv", "conv2/3x3_reduce": "conv2_reduce.conv", "conv2/3x3": "conv2.conv"}
CAFFE_BRANCHES = {
    "1x1": "one",
    "3x3_reduce": "three_reduce",
    "3x3": "three",
    "5x5_reduce": "five_reduce",
    "5x5": "five",
    "pool_proj": "project",
}


def from_caffe(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Converts tensors with Caffe's names to a state dict of the trunk.

    ``loss3/classifier``, the layer of ImageNet's 1000 classes, is left out, because the tag layer replaces it.

    Args:
        tensors: weights by Caffe's names, for example ``inception_3a/3x3_reduce.weight``. Convolutions are
            ``(output channels, input channels, h, w)``, as in PyTorch.

    Returns:
        The same tensors by the names of :func:`googlenet`.

    Raises:
        InputError: a tensor of the trunk is missing.
    """
    layers = dict(CAFFE_LAYERS)
    for block in INCEPTIONS:
        layers |= {f"{block}/{caffe}": f"{block}.{own}.conv" for caffe, own in CAFFE_BRANCHES.items()}
    names = [(f"{caffe}.{kind}", f"{own}.{kind}") for caffe, own in layers.items() for kind in ("weight", "bias")]
    missing = [caffe for caffe, _ in names if caffe not in tensors]
    if missing:
        raise InputError(
            f"{missing[0]} is missing: give all weights of the BVLC GoogLeNet, under the names of its Caffe layers"
        )
    return {own: tensors[caffe] for caffe, own in names}
