"""EfficientNet-Lite up to the classifier: EfficientNet (Tan and Le 2019), ReLU6, no squeeze-and-excitation.

Batch normalisation is folded into the convolutions. Strided convolutions pad as TensorFlow does for images whose sides
are multiples of 32.
"""

import math
from collections import OrderedDict
from collections.abc import Mapping

import torch
from torch import Tensor, nn

CHANNELS = 1280
EPSILON = 1e-3  # of the batch normalisation of the published weights
# expansion, output channels, number of blocks, stride of the first block, kernel size (Table 1 of the paper)
_STAGES = (
    (1, 16, 1, 1, 3),
    (6, 24, 2, 2, 3),
    (6, 40, 2, 2, 5),
    (6, 80, 3, 2, 3),
    (6, 112, 3, 1, 5),
    (6, 192, 4, 2, 5),
    (6, 320, 1, 1, 3),
)
_SCALES = {0: (1.0, 1.0), 1: (1.0, 1.1), 2: (1.1, 1.2)}  # width and depth


class Block(nn.Module):
    """An inverted residual: expansion, depthwise convolution, projection, and the input added where shapes agree.

    Args:
        inputs: number of input channels.
        outputs: number of output channels.
        expansion: the depthwise convolution has ``expansion * inputs`` channels.
        kernel: side of the depthwise kernel, odd.
        stride: 1 or 2.
    """

    def __init__(self, inputs: int, outputs: int, expansion: int, kernel: int, stride: int) -> None:
        super().__init__()
        inner = inputs * expansion
        self.expand = _conv(inputs, inner, 1) if expansion > 1 else nn.Identity()
        self.depthwise = _conv(inner, inner, kernel, stride, groups=inner)
        self.project = nn.Conv2d(inner, outputs, 1)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """Computes the output.

        Args:
            x: ``(N, inputs, h, w)``.

        Returns:
            ``(N, outputs, h', w')``.
        """
        y: Tensor = self.project(self.depthwise(self.expand(x)))
        return x + y if self.residual else y


def efficientnet_lite(size: int) -> nn.Sequential:
    """EfficientNet-Lite without its classifier.

    The global average is replaced by a 7x7 average of stride 1, so that larger images give more positions.

    Args:
        size: 0, 1 or 2.

    Returns:
        The trunk, 1280 output channels.
    """
    width, depth = _SCALES[size]
    layers: OrderedDict[str, nn.Module] = OrderedDict(stem=_conv(3, 32, 3, 2))
    inputs = 32
    for number, (expansion, channels, repeats, stride, kernel) in enumerate(_STAGES, 1):
        # the first and the last stage of EfficientNet-Lite are not deeper in the larger networks
        repeats = repeats if number in (1, len(_STAGES)) else math.ceil(repeats * depth)
        outputs = _round(channels * width)
        first = Block(inputs, outputs, expansion, kernel, stride)
        rest = [Block(outputs, outputs, expansion, kernel, 1) for _ in range(repeats - 1)]
        layers[f"stage{number}"], inputs = nn.Sequential(first, *rest), outputs
    return nn.Sequential(
        OrderedDict([*layers.items(), ("head", _conv(inputs, CHANNELS, 1)), ("avgpool", nn.AvgPool2d(7, stride=1))])
    )


def size_of(tensors: Mapping[str, Tensor]) -> int | None:
    """Which network published weights belong to.

    Args:
        tensors: tensors by their published PyTorch names.

    Returns:
        0, 1 or 2; None if they are not those of EfficientNet-Lite.
    """
    blocks = len({name.split(".")[1] for name in tensors if name.startswith("_blocks.")})
    head = tuple(tensors["_conv_head.weight"].shape) if "_conv_head.weight" in tensors else ()
    found = [
        size
        for size in _SCALES
        if (blocks, head) == (len(_blocks(size)), (CHANNELS, _round(320 * _SCALES[size][0]), 1, 1))
    ]
    return found[0] if found else None


def from_published(tensors: Mapping[str, Tensor], size: int) -> dict[str, Tensor]:
    """The trunk's weights, from tensors with their published PyTorch names.

    Args:
        tensors: the published tensors, with batch normalisation, in any floating-point dtype.
        size: 0, 1 or 2.

    Returns:
        The state of :func:`efficientnet_lite`, float32; batch normalisation is folded into the convolutions.

    Raises:
        KeyError: a tensor is missing.
    """
    state = _folded(tensors, "stem.conv", "_conv_stem", "_bn0") | _folded(tensors, "head.conv", "_conv_head", "_bn1")
    for number, name in enumerate(_blocks(size)):
        published = f"_blocks.{number}"
        if f"{published}._expand_conv.weight" in tensors:
            state |= _folded(tensors, f"{name}.expand.conv", f"{published}._expand_conv", f"{published}._bn0")
        state |= _folded(tensors, f"{name}.depthwise.conv", f"{published}._depthwise_conv", f"{published}._bn1")
        state |= _folded(tensors, f"{name}.project", f"{published}._project_conv", f"{published}._bn2")
    return state


def _folded(tensors: Mapping[str, Tensor], name: str, convolution: str, norm: str) -> dict[str, Tensor]:
    """Weight and bias of a convolution with the batch normalisation after it."""
    gain, shift, mean, variance = (
        tensors[f"{norm}.{part}"].double() for part in ("weight", "bias", "running_mean", "running_var")
    )
    scale = gain / (variance + EPSILON).sqrt()
    weight = tensors[f"{convolution}.weight"].double() * scale[:, None, None, None]
    return {f"{name}.weight": weight.float(), f"{name}.bias": (shift - mean * scale).float()}


def _blocks(size: int) -> list[str]:
    """The names of the blocks, in order."""
    with torch.device("meta"):
        return [name for name, module in efficientnet_lite(size).named_modules() if isinstance(module, Block)]


def _round(channels: float) -> int:
    """The multiple of 8 next to ``channels``, at least 90 % of it."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """A convolution and ReLU6."""
    half = kernel // 2
    pads = half if stride == 1 else 0
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, pads, groups=groups)
    layers: list[tuple[str, nn.Module]] = [("conv", convolution), ("relu", nn.ReLU6(inplace=True))]
    if stride > 1:
        layers.insert(0, ("pad", nn.ZeroPad2d((half - 1, half, half - 1, half))))
    return nn.Sequential(OrderedDict(layers))
