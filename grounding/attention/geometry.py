"""Where a layer's cells lie in the image, and how much of it each of them sees.

The arithmetic of receptive fields (Araujo et al., *Computing Receptive Fields of Convolutional Neural Networks*,
Distill 2019): a window of k cells, dilated by d, every s cells, behind a padding of p on the left, over cells of stride
S, field R and offset O gives

    R' = R + d (k - 1) S        O' = O + (d (k - 1) / 2 - p) S        S' = s S
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.fx
import torch.nn.functional as F
from torch import nn

from grounding.attention.layers import AVERAGES, RULES, SUMS, multiply
from grounding.attention.network import Network, measures

Node = torch.fx.Node

POOLS = (nn.MaxPool2d, nn.AvgPool2d)
# a pool that is called as a function: its module, and the order of its arguments
POOL_FUNCTIONS = {
    F.max_pool2d: (nn.MaxPool2d, ("kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices")),
    F.avg_pool2d: (nn.AvgPool2d, ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad")),
}
# after these a value belongs to no place of the image any more
GLOBAL = {*AVERAGES, *SUMS, nn.AdaptiveMaxPool2d, F.adaptive_max_pool2d, nn.Flatten, torch.flatten, "flatten"}
GLOBAL -= {*POOLS, *POOL_FUNCTIONS}


class Window(NamedTuple):
    """The cells below that one cell looks at, along one axis."""

    size: int
    stride: int
    padding: int
    dilation: int


@dataclass(frozen=True)
class Cell:
    """The cells of a layer along one axis of the image, by default the image's own pixels.

    Cell i sees ``field`` pixels around the one at ``offset + i * stride``, pixel 0 being the first; a centre may lie
    between two pixels or, behind a padding, outside of the image.

    Attributes:
        stride: pixels from one cell to the next, >= 1.
        field: pixels from the first that a cell sees to the last, >= 1; infinite where it sees the whole image.
        offset: the centre of what cell 0 sees, in pixels.
    """

    stride: float = 1
    field: float = 1
    offset: float = 0.0

    @property
    def whole(self) -> bool:
        """Whether it sees the whole image, wherever that ends."""
        return math.isinf(self.field)

    def above(self, window: Window) -> "Cell":
        """The cell of a layer that looks at these cells through a window."""
        if self.whole:
            return self
        reach = window.dilation * (window.size - 1)
        offset = self.offset + (reach / 2 - window.padding) * self.stride
        return Cell(self.stride * window.stride, self.field + reach * self.stride, offset)

    def span(self, cells: int) -> tuple[float, float]:
        """The image's part that a row of cells divides up, as (start, end) in pixels, half-open."""
        start = self.offset + 0.5 - self.stride / 2
        return start, start + cells * self.stride


WHOLE = Cell(math.inf, math.inf, 0.0)


def cells(network: Network, axis: int) -> dict[Node, Cell]:
    """What the cells of each node see of the image.

    A value of several inputs sees what any of them sees, from the first pixel to the last; of a product the larger side
    counts alone, for the other, a gate, is a factor held fixed (``grounding.attention.rules.Table.product``). A global
    or adaptive pool and a flattening see the whole image. Whatever is no window and not global counts as element-wise.

    Args:
        network: the network; axis: 0 for rows (heights), 1 for columns (widths).

    Returns:
        One cell for each node that the image reaches; what only measures a size has none.
    """
    found: dict[Node, Cell] = {}
    for node in network.nodes:
        below = [found[source] for source in node.all_input_nodes if source in found]
        if node.op == "placeholder":
            found[node] = Cell()
        elif below and not measures(node):
            found[node] = _cell(network, node, below, axis)
    return found


def _cell(network: Network, node: Node, below: Sequence[Cell], axis: int) -> Cell:
    kind = network.kind(node)
    if kind in GLOBAL or (kind in ("view", "reshape") and len(node.args) == 3):
        return WHOLE
    if RULES.get(kind) is multiply:
        return _hull([cell for cell in below if not cell.whole] or below)
    window = _window(network, node, axis)
    return _hull(below) if window is None else _hull(below).above(window)


def _hull(parts: Sequence[Cell]) -> Cell:
    """From the first pixel that any of them sees to the last; exact where their strides agree."""
    if any(part.whole for part in parts):
        return WHOLE
    first = min(part.offset - part.field / 2 for part in parts)
    last = max(part.offset + part.field / 2 for part in parts)
    return Cell(max(part.stride for part in parts), round(last - first), (first + last) / 2)


def _window(network: Network, node: Node, axis: int) -> Window | None:
    """A convolution's or a pool's window, None of anything else."""
    layer = network.operation(node)
    if layer in POOL_FUNCTIONS:
        layer = _pool(node)
    if isinstance(layer, nn.Conv2d):
        # as PyTorch itself resolves "same" and "valid": (left, right, top, bottom)
        padding = layer._reversed_padding_repeated_twice[2 - 2 * axis]
        return Window(layer.kernel_size[axis], layer.stride[axis], padding, layer.dilation[axis])
    if isinstance(layer, POOLS):
        sizes = (layer.kernel_size, layer.stride, layer.padding, getattr(layer, "dilation", 1))
        return Window(*(size if isinstance(size, int) else size[axis] for size in sizes))
    return None


def _pool(node: Node) -> nn.Module:
    """The module of a pool that is called as a function."""
    module, names = POOL_FUNCTIONS[node.target]
    keywords = {name: value for name, value in node.kwargs.items() if name != "input"}
    return module(**dict(zip(names, node.args[1:], strict=False)), **keywords)
