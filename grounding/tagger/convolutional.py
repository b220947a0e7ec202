"""Converts the linear layers behind a flatten to convolutions, so that a classifier takes images of other sizes.

A linear layer over the flattened features of a C x h x w grid is an h x w convolution with the same weights, as in the
fully convolutional networks that Sec. 4.1 refers to. On a larger image, the converted network has one position for each
window of the grid: the original classifier, slid over the features.
"""

import copy
import math
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import fx, nn

from proposals.errors import InputError

FLATTENS = (torch.flatten, nn.Flatten, "flatten", "view", "reshape", torch.reshape)
ADAPTIVE = (nn.AdaptiveAvgPool2d, F.adaptive_avg_pool2d)
DROPOUTS = (nn.Dropout, nn.Identity, F.dropout)
# layers and functions that treat each number on its own
POINTWISE = (*DROPOUTS, nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Hardswish, nn.Sigmoid, nn.Tanh,
             F.relu, torch.relu, "relu", "relu_", torch.sigmoid, torch.tanh)  # fmt: skip


def as_convolution(
    dense: nn.Linear, inputs: int, size: tuple[int, int], spacing: tuple[int, int] = (1, 1)
) -> nn.Conv2d:
    """A linear layer over flattened features as a convolution with the same weights.

    Args:
        dense: the linear layer, of ``inputs * height * width`` inputs.
        inputs: number of channels of the features.
        size: (height, width) of the grid of features that the layer reads.
        spacing: rows and columns between two features that the layer reads.

    Returns:
        The convolution. It shares the memory of the weights.
    """
    with torch.device("meta"):
        convolution = nn.Conv2d(inputs, dense.out_features, size, dilation=spacing, bias=dense.bias is not None)
    weight = dense.weight.detach().view(dense.out_features, inputs, *size)
    convolution.weight = nn.Parameter(weight, dense.weight.requires_grad)
    if dense.bias is not None:
        convolution.bias = nn.Parameter(dense.bias.detach(), dense.bias.requires_grad)
    return convolution.train(dense.training)


def fully_convolutional(model: nn.Module, size: tuple[int, int] = (224, 224)) -> fx.GraphModule:
    """A copy of a classifier whose linear layers behind a flatten are convolutions.

    An adaptive average pool before the flatten, as in torchvision's VGG and AlexNet, becomes an average of stride 1
    over the features that it averages at the declared size. So images of that size have the same logits as before, and
    larger ones have one position for each window of that size. The names of the layers stay, and ``TopDown`` knows the
    architecture.

    Args:
        model: a classifier that torch.fx can trace: each of its linear layers behind one flatten.
        size: (height, width) of the images that the classifier was made for, in pixels.

    Returns:
        The copy, in evaluation mode. Its output is ``(N, tags, h', w')``.

    Raises:
        InputError: the model cannot be traced or does not take images of this size; it has no linear layer behind a
            flatten, or another operation behind it; or its adaptive pool does not divide the features evenly.
    """
    module = _traced(model)
    _measure(module, size)
    conversion = _Conversion(module)
    for node in list(module.graph.nodes):
        conversion.visit(node)
    if not conversion.converted:
        raise InputError(f"{type(model).__name__} has no linear layer behind a flatten: give it to TopDown as it is")
    module.graph.eliminate_dead_code()
    module.delete_all_unused_submodules()
    module.recompile()
    return module


def _traced(model: nn.Module) -> fx.GraphModule:
    name = type(model).__name__
    try:
        private = copy.deepcopy(model).eval()
        return fx.GraphModule(private, fx.Tracer().trace(private), name)
    except Exception as error:  # tracing runs the model's own code, which may raise anything
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"torch.fx cannot trace {name} ({reason}): write its linear layers as convolutions") from error


def _measure(module: fx.GraphModule, size: tuple[int, int]) -> None:
    """Notes the shape of each node's value for an image of a size."""
    from torch.fx.passes.shape_prop import ShapeProp  # its import takes time, and a tagger does not need it

    weights = [layer for layer in module.modules() if isinstance(layer, nn.Conv2d)]
    if not weights:
        raise InputError("the model has no nn.Conv2d: only convolutional networks can be converted")
    first = weights[0]
    image = first.weight.new_zeros(1, first.in_channels, *size)
    try:
        with torch.no_grad():
            ShapeProp(module).propagate(image)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise InputError(f"the model does not take images of {size[0]} x {size[1]} pixels ({reason}): give the size "
                         "that it was made for as size=(height, width)") from error  # fmt: skip


@dataclass
class _Conversion:
    """The conversion of one traced model, node by node.

    Attributes:
        module: the traced model; it is changed.
        windows: for each value that was flat, the channels, rows and columns of the grid that a linear layer reads, and
            the spacing of these rows and columns.
        converted: the paths of the linear layers that are convolutions now.
    """

    module: fx.GraphModule
    windows: dict[fx.Node, tuple[tuple[int, int, int], tuple[int, int]]] = field(default_factory=dict)
    converted: set[str] = field(default_factory=set)

    def visit(self, node: fx.Node) -> None:
        """Changes a node if it is a flatten or behind one.

        Raises:
            InputError: it is behind a flatten and is neither a linear layer nor pointwise.
        """
        if self._is_flatten(node):
            self._flatten(node)
            return
        behind = [source for source in node.all_input_nodes if source in self.windows]
        if not behind or node.op == "output":
            return
        kind = self._kind(node)
        if kind is nn.Linear or node.target in self.converted:
            self._linear(node, *self.windows[behind[0]])
        elif kind in POINTWISE and len(node.all_input_nodes) == 1:
            self.windows[node] = self.windows[behind[0]]
        else:
            raise InputError(f"{node.target} is behind a flatten, and is neither nn.Linear nor a pointwise function: "
                             "write it as a convolution")  # fmt: skip

    def _kind(self, node: fx.Node) -> object:
        return type(self.module.get_submodule(str(node.target))) if node.op == "call_module" else node.target

    def _is_flatten(self, node: fx.Node) -> bool:
        if self._kind(node) not in FLATTENS or not isinstance(node.args[0], fx.Node):
            return False
        before, after = _shape(node.args[0]), _shape(node)
        return len(before) == 4 and after == (1, math.prod(before[1:]))

    def _flatten(self, node: fx.Node) -> None:
        """Removes a flatten, and replaces an adaptive pool before it."""
        grid = node.args[0]
        assert isinstance(grid, fx.Node)
        channels, rows, columns = _shape(grid)[1:]
        spacing = self._replace_pool(grid)
        # a pool that did nothing is removed, so the value that was flattened may be another node now
        grid = node.all_input_nodes[0]
        node.replace_all_uses_with(grid)
        self.windows[grid] = (channels, rows, columns), spacing

    def _replace_pool(self, node: fx.Node) -> tuple[int, int]:
        """Replaces an adaptive pool, also before dropouts, by an average of stride 1. Returns its step."""
        while self._kind(node) in DROPOUTS:
            node = node.all_input_nodes[0]
        if self._kind(node) not in ADAPTIVE:
            return 1, 1
        before, after = _shape(node.all_input_nodes[0])[2:], _shape(node)[2:]
        if any(b % a for b, a in zip(before, after, strict=True)):
            raise InputError(f"{node.target} averages {before[0]} x {before[1]} features to {after[0]} x {after[1]}, "
                             "in unequal windows: choose a size= for which it divides them evenly")  # fmt: skip
        step = before[0] // after[0], before[1] // after[1]
        source = node.all_input_nodes[0]
        if step != (1, 1):
            name = f"{node.name}_of_stride_1"
            self.module.add_submodule(name, nn.AvgPool2d(step, stride=1))
            with self.module.graph.inserting_after(node):
                source = self.module.graph.call_module(name, (source,))
        node.replace_all_uses_with(source, lambda user: user is not source)
        return step

    def _linear(self, node: fx.Node, window: tuple[int, int, int], spacing: tuple[int, int]) -> None:
        """Replaces a linear layer by a convolution."""
        path = str(node.target)
        if path in self.converted:
            raise InputError(f"the model calls {path} more than once: write it as a convolution")
        dense = self.module.get_submodule(path)
        assert isinstance(dense, nn.Linear)
        parent, _, name = path.rpartition(".")
        setattr(self.module.get_submodule(parent), name, as_convolution(dense, window[0], window[1:], spacing))
        self.converted.add(path)
        self.windows[node] = (dense.out_features, 1, 1), (1, 1)


def _shape(node: fx.Node) -> tuple[int, ...]:
    """The shape of a node's value, of an image of the declared size; () if it is no tensor."""
    return tuple(getattr(node.meta.get("tensor_meta"), "shape", ()))
