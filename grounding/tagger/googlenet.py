"""The BVLC GoogLeNet (Caffe Model Zoo), the network that the paper fine-tunes, as a plain module.

Szegedy et al., *Going deeper with convolutions*, 2014, as Caffe built it: ReLU after every convolution, no batch norm,
local response normalisation after pool1 and conv2, a true 5x5 branch, and every pool in ceil mode. torchvision's
``googlenet`` is another network (batch norm, 3x3 in place of 5x5, no LRN) and cannot hold its weights.
"""

from collections import OrderedDict

import torch
from torch import Tensor, nn

from proposals.errors import InputError

# outputs of the branches 1x1, 3x3 reduce, 3x3, 5x5 reduce, 5x5, pool projection (Table 1 of Szegedy et al.)
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


def conv(inputs: int, outputs: int, size: int, **kwargs: int) -> nn.Sequential:
    """A convolution and its ReLU."""
    return nn.Sequential(OrderedDict(conv=nn.Conv2d(inputs, outputs, size, **kwargs), relu=nn.ReLU(inplace=True)))


def pool(stride: int, padding: int = 0) -> nn.MaxPool2d:
    """Caffe's 3x3 maximum: the last window may hang over the edge."""
    return nn.MaxPool2d(3, stride, padding, ceil_mode=True)


class ResponseNorm(nn.LocalResponseNorm):
    """x . (k + alpha / size . sum over neighbouring channels of x^2)^-3/4.

    The sum is a 1x1 convolution with a band of ones, the power two roots: half the time of PyTorch's own, which took as
    long as all the convolutions.
    """

    def __init__(self):
        super().__init__(5, 1e-4, 0.75)

    def factor(self, x: Tensor) -> Tensor:
        """What x (N, C, h, w) is multiplied by: the same shape, in 0..1."""
        channels, reach = x.shape[1], self.size // 2
        band = x.new_ones(channels, channels).tril(reach).triu(-reach)
        sums = nn.functional.conv2d(x.square(), band[:, :, None, None])
        root = torch.rsqrt(self.k + self.alpha / self.size * sums)
        return root * root.sqrt()

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, h, w) to the same shape."""
        return x * self.factor(x)


class Inception(nn.Module):
    """Four branches over one input, concatenated: 1x1, 3x3, 5x5 and a projected 3x3 maximum."""

    def __init__(self, inputs: int, one: int, three_in: int, three: int, five_in: int, five: int, project: int):
        super().__init__()
        self.one = conv(inputs, one, 1)
        self.three_reduce = conv(inputs, three_in, 1)
        self.three = conv(three_in, three, 3, padding=1)
        self.five_reduce = conv(inputs, five_in, 1)
        self.five = conv(five_in, five, 5, padding=2)
        self.pool = pool(1, padding=1)
        self.project = conv(inputs, project, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, h, w) to (N, one + three + five + project, h, w)."""
        branches = self.one(x), self.three(self.three_reduce(x)), self.five(self.five_reduce(x))
        return torch.cat([*branches, self.project(self.pool(x))], 1)


def googlenet() -> nn.Sequential:
    """The trunk, from the image to pool5, under Caffe's layer names and with He-initialised weights.

    Input (N, 3, h, w), BGR, 0..255 minus the means, h and w at least 224; output (N, 1024, h', w'), one position at
    224 and one more for each further 32 pixels: pool5 is a 7x7 average of stride 1, not a global one.
    """
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    layers["conv1"] = conv(3, 64, 7, stride=2, padding=3)
    layers["pool1"] = pool(2)
    layers["norm1"] = ResponseNorm()
    layers["conv2_reduce"] = conv(64, 64, 1)
    layers["conv2"] = conv(64, 192, 3, padding=1)
    layers["norm2"] = ResponseNorm()
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
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
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
    """The trunk's state dict out of tensors under Caffe's names (``inception_3a/3x3_reduce.weight``).

    Convolutions are OIHW as in PyTorch. ``loss3/classifier``, the 1000 classes of ImageNet, is left out: the tag layer
    takes its place.

    Raises:
        InputError: a tensor of the trunk is missing.
    """
    names = dict(CAFFE_LAYERS)
    for block in INCEPTIONS:
        names |= {f"{block}/{theirs}": f"{block}.{ours}.conv" for theirs, ours in CAFFE_BRANCHES.items()}
    wanted = [(f"{theirs}.{kind}", f"{ours}.{kind}") for theirs, ours in names.items() for kind in ("weight", "bias")]
    missing = [theirs for theirs, _ in wanted if theirs not in tensors]
    if missing:
        raise InputError(f"these weights are not the BVLC GoogLeNet's: {missing[0]} is missing")
    return {ours: tensors[theirs] for theirs, ours in wanted}
