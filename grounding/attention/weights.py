"""Layers that are linear except for their bias: convolutions, linear layers, batch norms, and the classifier's units.

layer.value(x)            # W x + b, as the network computes it
layer.positive.up(x)      # W+ x, the excitation z
layer.positive.down(g, s) # W+^T g for inputs of shape s
"""

import copy
from functools import cached_property
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.grad import conv2d_input

from proposals.errors import InputError

Pair = tuple[int, int]
Geometry = tuple[Pair, Pair, Pair]


class Weights:
    """A matrix W of a layer, and its bias.

    Attributes:
        weight: the numbers of W, in the layout of the layer.
        bias: b, one number per output, or None.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None = None):
        self.weight, self.bias = weight, bias

    @cached_property
    def positive(self) -> Self:
        """W+ = max(W, 0)."""
        return self._with(self.weight.clamp(min=0))

    @cached_property
    def negative(self) -> Self:
        """W- = max(-W, 0)."""
        return self._with((-self.weight).clamp(min=0))

    @property
    def kernel(self) -> tuple[Tensor, Geometry] | None:
        """W as a convolution ``(outputs, inputs, height, width)`` and its (stride, padding, dilation), or None."""
        return None

    def value(self, x: Tensor) -> Tensor:
        """W x + b."""
        return self.up(x, self.bias)

    def up(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """W x, plus a bias.

        Args:
            x: ``(N, *inputs)``.
            bias: one number per output.
        """
        raise NotImplementedError

    def down(self, g: Tensor, shape: torch.Size) -> Tensor:
        """W^T g.

        Args:
            g: ``(M, *outputs)``.
            shape: the shape of one input, without the batch dimension.

        Returns:
            ``(M, *shape)``.
        """
        raise NotImplementedError

    def _with(self, weight: Tensor) -> Self:
        other = copy.copy(self)
        other.__dict__.pop("positive", None)
        other.__dict__.pop("negative", None)
        other.weight, other.bias = weight, None
        return other


class Convolution(Weights):
    """A convolution with zero padding.

    Args:
        module: the convolution.

    Raises:
        InputError: the padding is not zeros, or differs between the two sides.
    """

    def __init__(self, module: nn.Conv2d):
        super().__init__(module.weight.contiguous(memory_format=torch.channels_last), module.bias)
        if module.padding_mode != "zeros":
            raise InputError(f"a convolution pads with {module.padding_mode!r}: only zero padding is supported")
        # PyTorch resolves "same" and "valid" to (left, right, top, bottom)
        reach = module._reversed_padding_repeated_twice
        if reach[0] != reach[1] or reach[2] != reach[3]:
            raise InputError("a convolution pads one side more than the other: only equal padding is supported")
        self.padding: Pair = (reach[2], reach[0])
        self.stride: Pair = (module.stride[0], module.stride[1])
        self.dilation: Pair = (module.dilation[0], module.dilation[1])
        self.groups = module.groups

    @property
    def kernel(self) -> tuple[Tensor, Geometry] | None:
        return (self.weight, (self.stride, self.padding, self.dilation)) if self.groups == 1 else None

    def up(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        return F.conv2d(x, self.weight, bias, self.stride, self.padding, self.dilation, self.groups)

    def down(self, g: Tensor, shape: torch.Size) -> Tensor:
        size = (len(g), *shape)
        gradient: Tensor = conv2d_input(size, self.weight, g, self.stride, self.padding, self.dilation, self.groups)
        return gradient


class Linear(Weights):
    """A linear layer on ``(N, C)``."""

    @property
    def kernel(self) -> tuple[Tensor, Geometry] | None:
        return self.weight[:, :, None, None], ((1, 1), (0, 0), (1, 1))

    def up(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        return F.linear(x, self.weight, bias)

    def down(self, g: Tensor, shape: torch.Size) -> Tensor:
        return g @ self.weight


class Diagonal(Weights):
    """A batch norm that is not folded into a convolution: each neuron has one input, and its weight is the scale."""

    def up(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        scaled = x * self.weight[:, None, None]
        return scaled if bias is None else scaled + bias[:, None, None]

    def down(self, g: Tensor, shape: torch.Size) -> Tensor:
        return g * self.weight[:, None, None]


class Units(Weights):
    """Units of the classifier: weights ``(T, C)``, the same at every position of ``(N, C)`` or ``(N, C, h, w)``."""

    def up(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        scores = torch.einsum("tc,nc...->nt...", self.weight, x)
        return scores if bias is None else scores + bias.view(-1, *[1] * (x.ndim - 2))

    def down(self, g: Tensor, shape: torch.Size) -> Tensor:
        return torch.einsum("tc,nt...->nc...", self.weight, g)


def weights_of(module: nn.Module) -> Weights:
    """The weights of a convolution, a linear layer or a batch norm.

    They are computed once and kept on the module, which belongs to a private copy of the model.

    Args:
        module: an ``nn.Conv2d``, ``nn.Linear`` or ``nn.BatchNorm2d``.
    """
    if "grounding_weights" not in module.__dict__:
        module.__dict__["grounding_weights"] = _weights_of(module)
    weights: Weights = module.__dict__["grounding_weights"]
    return weights


def _weights_of(module: nn.Module) -> Weights:
    if isinstance(module, nn.Conv2d):
        return Convolution(module)
    if isinstance(module, nn.Linear):
        return Linear(module.weight, module.bias)
    assert isinstance(module, nn.BatchNorm2d)
    assert module.running_var is not None
    assert module.running_mean is not None
    scale = (module.running_var + module.eps).rsqrt() * (1 if module.weight is None else module.weight)
    shift = 0 if module.bias is None else module.bias
    return Diagonal(scale, shift - module.running_mean * scale)
