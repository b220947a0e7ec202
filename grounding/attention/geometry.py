"""Receptive fields: where the cells of a layer are in the image, and how much of it each of them sees.

From Araujo et al., *Computing Receptive Fields of Convolutional Neural Networks*, Distill 2019. A window of k cells
with dilation d, stride s and padding p, over cells with stride S, field R and offset O, has

    R' = R + d (k - 1) S        O' = O + (d (k - 1) / 2 - p) S        S' = s S
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.fx
import torch.nn.functional as F
from torch import nn

from grounding.attention.layers import AVERAGES, RULES, SUMS, multiply
from grounding.attention.network import Network, measures

Node = torch.fx.Node

POOLS = (nn.MaxPool2d, nn.AvgPool2d)
# pools that are called as functions: their module, and the order of their arguments
POOL_FUNCTIONS: dict[object, tuple[Callable[..., nn.Module], tuple[str, ...]]] = {
    F.max_pool2d: (nn.MaxPool2d, ("kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices")),
    F.avg_pool2d: (nn.AvgPool2d, ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad")),
}
# after these operations a value has no position in the image
GLOBAL = {*AVERAGES, *SUMS, nn.AdaptiveMaxPool2d, F.adaptive_max_pool2d, nn.Flatten, torch.flatten, "flatten"}
GLOBAL -= {*POOLS, *POOL_FUNCTIONS}


class Window(NamedTuple):
    """The cells below that one cell depends on, along one axis."""

    size: int
    stride: int
    padding: int
    dilation: int


@dataclass(frozen=True)
class Cell:
    """The cells of a layer along one axis of the image; by default the pixels of the image.

    Cell i sees ``field`` pixels around the pixel ``offset + i * stride``, where pixel 0 is the first. A centre may be
    between two pixels or, because of padding, outside of the image.

    Attributes:
        stride: pixels between neighbouring cells, >= 1.
        field: length of the receptive field in pixels, >= 1; infinite if it is the whole image.
        offset: centre of the receptive field of cell 0, in pixels.
    """

    stride: float = 1
    field: float = 1
    offset: float = 0.0

    @property
    def whole(self) -> bool:
        """Whether a cell sees the whole image."""
        return math.isinf(self.field)

    def above(self, window: Window) -> "Cell":
        """The cells of a layer whose windows are over these cells."""
        if self.whole:
            return self
        reach = window.dilation * (window.size - 1)
        offset = self.offset + (reach / 2 - window.padding) * self.stride
        return Cell(self.stride * window.stride, self.field + reach * self.stride, offset)

    def span(self, cells: int) -> tuple[float, float]:
        """The part of the image that a row of cells divides up.

        Args:
            cells: the length of the row.

        Returns:
            (start, end) in pixels, half-open.
        """
        start = self.offset + 0.5 - self.stride / 2
        return start, start + cells * self.stride


WHOLE = Cell(math.inf, math.inf, 0.0)


def cells(network: Network, axis: int) -> dict[Node, Cell]:
    """The cells of each node.

    A value of several inputs sees from the first to the last pixel that any of them sees. In a product, an input that
    sees the whole image does not count, because it is a gate, to which no signal goes (``RuleSet.product``). A global
    or adaptive pool and a flattening see the whole image. Any other operation without a window counts as element-wise.

    Args:
        network: the network.
        axis: 0 for rows (heights), 1 for columns (widths).

    Returns:
        The cells of each node that depends on the image; nodes that compute sizes are left out.
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
    """From the first to the last pixel that any of them sees; exact if their strides are equal."""
    if any(part.whole for part in parts):
        return WHOLE
    first = min(part.offset - part.field / 2 for part in parts)
    last = max(part.offset + part.field / 2 for part in parts)
    return Cell(max(part.stride for part in parts), round(last - first), (first + last) / 2)


def _window(network: Network, node: Node, axis: int) -> Window | None:
    """The window of a convolution or a pool; None for other operations."""
    layer = network.operation(node)
    if layer in POOL_FUNCTIONS:
        layer = _pool(node)
    if isinstance(layer, nn.Conv2d):
        # PyTorch resolves "same" and "valid" to (left, right, top, bottom)
        padding = layer._reversed_padding_repeated_twice[2 - 2 * axis]
        return Window(layer.kernel_size[axis], layer.stride[axis], padding, layer.dilation[axis])
    if isinstance(layer, POOLS):
        sizes = (layer.kernel_size, layer.stride, layer.padding, getattr(layer, "dilation", 1))
        return Window(*(size if isinstance(size, int) else size[axis] for size in sizes))
    return None


def _pool(node: Node) -> nn.Module:
    """The module of a pool that is called as a function."""
    module, names = POOL_FUNCTIONS[node.target]
    keywords: dict[str, Any] = {name: value for name, value in node.kwargs.items() if name != "input"}
    return module(**dict(zip(names, node.args[1:], strict=False)), **keywords)
