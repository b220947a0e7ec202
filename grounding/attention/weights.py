"""Layers that are linear except for their bias: convolutions, linear layers, scales, and the classifier's units.

layer.value(x)            # W x + b, as the network computes it
layer.positive.up(x)      # W+ x, the excitation z
layer.positive.down(g, s) # W+^T g for inputs of shape s
"""

import copy
from collections.abc import Sequence
from functools import cached_property
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor

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

    def kernel(self, x: Tensor) -> tuple[Tensor, Geometry] | None:
        """W as a convolution ``(outputs, inputs, height, width)`` and its (stride, padding, dilation), or None.

        Args:
            x: the inputs.
        """
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
    """A convolution with zero padding, of one, two or three dimensions, transposed or not.

    Args:
        weight: ``(outputs, inputs / groups, *kernel)``; of a transposed convolution ``(inputs, outputs / groups,
            *kernel)``.
        bias: ``(outputs,)``, or None.
        stride: steps of the kernel, one number per dimension.
        padding: zeros on each side.
        dilation: distances between the elements of the kernel.
        transposed: whether it is a transposed convolution.
        output_padding: rows and columns that a transposed convolution adds at the end.
        groups: the number of groups of channels.
    """

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None,
        stride: Sequence[int],
        padding: Sequence[int],
        dilation: Sequence[int],
        transposed: bool,
        output_padding: Sequence[int],
        groups: int,
    ):
        super().__init__(weight, bias)
        dims = weight.ndim - 2
        sizes = [tuple(n if len(n) == dims else [*n] * dims) for n in (stride, padding, dilation, output_padding)]
        self.stride, self.padding, self.dilation, self._output_padding = sizes
        self.transposed, self.groups = transposed, groups

    def kernel(self, x: Tensor) -> tuple[Tensor, Geometry] | None:
        if self.groups > 1 or self.transposed or self.weight.ndim != 4:
            return None
        stride, padding, dilation = ((n[0], n[1]) for n in (self.stride, self.padding, self.dilation))
        return self.weight, (stride, padding, dilation)

    def up(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        result: Tensor = torch.ops.aten.convolution.default(x, self.weight, bias, *self._geometry)
        return result

    def down(self, g: Tensor, shape: torch.Size) -> Tensor:
        # the values of the inputs are not read; an expanded tensor would be copied
        memory = torch.channels_last if len(shape) == 3 else torch.contiguous_format
        x = torch.empty((len(g), *shape), dtype=g.dtype, device=g.device, memory_format=memory)
        gradient: Tensor = torch.ops.aten.convolution_backward.default(
            g, x, self.weight, None, *self._geometry, (True, False, False)
        )[0]
        return gradient

    @property
    def _geometry(self) -> tuple[Any, ...]:
        return self.stride, self.padding, self.dilation, self.transposed, self._output_padding, self.groups


class Linear(Weights):
    """A linear layer on the last dimension of ``(N, ..., C)``."""

    def kernel(self, x: Tensor) -> tuple[Tensor, Geometry] | None:
        return (self.weight[:, :, None, None], ((1, 1), (0, 0), (1, 1))) if x.ndim == 2 else None

    def up(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        return F.linear(x, self.weight, bias)

    def down(self, g: Tensor, shape: torch.Size) -> Tensor:
        return g @ self.weight


class Diagonal(Weights):
    """A scale and a shift of each element: each neuron has one input.

    Args:
        weight: the scale, a constant that can be broadcast to the inputs.
        bias: the shift, such a constant or None.
    """

    def __init__(self, weight: Tensor | float, bias: Tensor | None = None):
        super().__init__(torch.as_tensor(weight), bias)

    def up(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        scaled = x * self.weight
        return scaled if bias is None else scaled + bias

    def down(self, g: Tensor, shape: torch.Size) -> Tensor:
        return g * self.weight


class Units(Weights):
    """Units of the classifier: weights ``(T, C)``, the same at every position of ``(N, C)`` or ``(N, C, h, w)``."""

    def up(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        scores = torch.einsum("tc,nc...->nt...", self.weight, x)
        return scores if bias is None else scores + bias.view(-1, *[1] * (x.ndim - 2))

    def down(self, g: Tensor, shape: torch.Size) -> Tensor:
        return torch.einsum("tc,nt...->nc...", self.weight, g)


def weights_of(operation: Any, weight: Tensor, bias: Tensor | None = None, *geometry: Any) -> Weights:
    """The weights of a convolution or of a linear layer. They are computed once and kept with the tensor.

    Args:
        operation: ``aten.convolution`` or ``aten.linear``.
        weight: its weights.
        bias: its bias.
        *geometry: its other arguments.
    """
    kept = weight.__dict__.setdefault("_grounding_weights", {})
    key = (id(bias), repr(geometry))
    if key not in kept:
        kept[key] = Convolution(weight, bias, *geometry) if geometry else Linear(weight, bias)
    weights: Weights = kept[key]
    return weights
