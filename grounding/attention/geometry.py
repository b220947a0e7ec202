"""Receptive fields: where the cells of a layer are in the image, and how much of it each of them sees.

From Araujo et al., *Computing Receptive Fields of Convolutional Neural Networks*, Distill 2019. A window of k cells
with dilation d, stride s and padding p, over cells with stride S, field R and offset O, has

    R' = R + d (k - 1) S        O' = O + (d (k - 1) / 2 - p) S        S' = s S
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.fx

from grounding.attention import layers
from grounding.attention.network import Network

Node = torch.fx.Node
aten = torch.ops.aten

# operations without a window that change where cells are
PADS = (aten.constant_pad_nd, aten.reflection_pad2d, aten.replication_pad2d)
UPSAMPLINGS = (aten.upsample_nearest2d, aten._upsample_nearest_exact2d, aten.upsample_bilinear2d)


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

    def after(self, start: int, step: int) -> "Cell":
        """The cells of a slice of these cells."""
        return Cell(self.stride * step, self.field, self.offset + start * self.stride)

    def finer(self, factor: float) -> "Cell":
        """The cells of an enlargement of these cells."""
        return Cell(self.stride / factor, self.field, self.offset - (factor - 1) * self.stride / (2 * factor))

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

    A value of several inputs sees from the first to the last pixel that any of them sees. Gates do not count, because
    no signal goes to them (``RuleSet.product``). A global or adaptive pool sees the whole image, and so does a value
    without a grid. Any other operation without a window counts as element-wise.

    Args:
        network: the network.
        axis: 0 for rows (heights), 1 for columns (widths).

    Returns:
        The cells of each node that depends on the image.
    """
    found: dict[Node, Cell] = {}
    for node in network.nodes:
        below = [found[source] for source in network.sources(node) if source in found]
        if node.op == "placeholder":
            found[node] = Cell()
        elif below:
            found[node] = _cell(network, node, below, axis)
    return found


def _cell(network: Network, node: Node, below: Sequence[Cell], axis: int) -> Cell:
    kind, place = network.kind(node), 2 + axis
    if len(node.meta["shape"]) != 4 or network.rule(node) in (layers.maximum, layers.adaptive_maximum):
        return WHOLE
    if kind in layers.AVERAGES + layers.SUMS and kind is not aten.avg_pool2d:
        return WHOLE
    if kind is aten.slice and node.args[1] == place:
        return _hull(below).after(max(0, node.args[2] or 0), node.args[4])  # type: ignore[arg-type,type-var]
    if kind in UPSAMPLINGS:
        source = node.all_input_nodes[0].meta["shape"]
        return _hull(below).finer(node.meta["shape"][place] / source[place])
    window = _window(node, kind, axis)
    return _hull(below) if window is None else _hull(below).above(window)


def _hull(parts: Sequence[Cell]) -> Cell:
    """From the first to the last pixel that any of them sees; exact if their strides are equal."""
    if any(part.whole for part in parts):
        return WHOLE
    first = min(part.offset - part.field / 2 for part in parts)
    last = max(part.offset + part.field / 2 for part in parts)
    return Cell(max(part.stride for part in parts), round(last - first), (first + last) / 2)


def _window(node: Node, kind: object, axis: int) -> Window | None:
    """The window of a convolution or a pool, or the padding before a cell; None for other operations."""
    if kind in PADS:
        sizes: Any = node.args[1]
        return Window(1, 1, sizes[2 - 2 * axis] if len(sizes) > 2 - 2 * axis else 0, 1)
    if kind is aten.convolution:
        _, weight, _, *rest = node.args
        size = weight.meta["shape"][2 + axis]  # type: ignore[union-attr]
        return Window(int(size), *(_along(n, axis) for n in rest[:3]))
    if kind in (aten.max_pool2d, aten.avg_pool2d):
        size, stride, padding, dilation = (*node.args[1:], *(None,) * 4)[:4]
        stride, dilation = stride or size, dilation if kind is aten.max_pool2d else None
        return Window(
            *(_along(n, axis, default) for n, default in ((size, 1), (stride, 1), (padding, 0), (dilation, 1)))
        )
    return None


def _along(sizes: Any, axis: int, default: int = 1) -> int:
    if sizes is None or sizes == []:
        return default
    return int(sizes if isinstance(sizes, int) else sizes[min(axis, len(sizes) - 1)])
