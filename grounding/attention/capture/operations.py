"""Operations of a captured network that ATen does not have, as plain functions of tensors."""

from collections.abc import Callable, Sequence
from functools import cache, reduce
from typing import Any

import torch
from torch import Tensor

from proposals.errors import InputError

# a dimension of a reshaping: a number, or the product of the input's dimensions with these indices
Size = int | tuple[int, ...]


def affine(x: Tensor, scale: Tensor | float | None, shift: Tensor | float | None) -> Tensor:
    """x * scale + shift: batch norms in evaluation mode, and sums and products with constants.

    Args:
        x: ``(N, *shape)``.
        scale: a constant that can be broadcast to x; None for 1.
        shift: a constant that can be broadcast to x; None for 0.
    """
    scaled = x if scale is None else x * scale
    return scaled if shift is None else scaled + shift


def signed_affine(x: Tensor, negated: Tensor, scale: Tensor | float, shift: Tensor | float | None) -> Tensor:
    """x * scale + shift, where the scale is negative for some elements and x is a weighted sum.

    Args:
        x: ``(N, *shape)``.
        negated: -x, computed by negated weights, whose excitation is that of the negative elements. It has no part in
            the value.
        scale: as for :func:`affine`.
        shift: as for :func:`affine`.
    """
    return affine(x, scale, shift)


def pointwise(x: Tensor, value: Tensor) -> Tensor:
    """A nonlinearity that is composed of several operations, such as x * sigmoid(x).

    Args:
        x: what it is a function of, element by element.
        value: its value, which is computed from x.
    """
    return value


def product(x: Tensor, gate: Tensor) -> Tensor:
    """x * gate, where the gate counts as a constant for Excitation Backprop.

    Args:
        x: ``(N, *shape)``, which gets the signal.
        gate: of the same shape.
    """
    return x * gate


def joint_product(left: Tensor, right: Tensor) -> Tensor:
    """left * right, where neither is computed from the other: each gets half of the mass.

    Args:
        left: ``(N, *shape)``.
        right: of the same shape.
    """
    return left * right


def choose(mask: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """left where the mask is true, right elsewhere."""
    return torch.where(mask, left, right)


def maximum(x: Tensor, dims: tuple[int, ...], keepdim: bool) -> Tensor:
    """The maximum over some dimensions.

    Args:
        x: ``(N, *shape)``.
        dims: indices >= 1.
        keepdim: whether to keep them, with length 1.
    """
    return x.amax(dims, keepdim)


def adaptive_maximum(x: Tensor, size: Sequence[int]) -> Tensor:
    """An adaptive max pool.

    Args:
        x: ``(N, C, h, w)``.
        size: rows and columns of the result.
    """
    pooled: Tensor = torch.ops.aten.adaptive_max_pool2d.default(x, size)[0]
    return pooled


def reshape(x: Tensor, sizes: Sequence[Size]) -> Tensor:
    """A reshaping whose sizes may refer to those of its input, so that it fits any number of images.

    Args:
        x: the input.
        sizes: for each dimension its length, -1 for the one that follows from the others, or the indices of the
            dimensions of x whose product it is.
    """
    lengths = []
    for size in sizes:
        length = 1
        for i in size if isinstance(size, tuple) else ():
            length *= x.shape[i]
        lengths.append(length if isinstance(size, tuple) else size)
    return x.reshape(lengths)


def chain(x: Tensor, steps: Sequence[tuple[str, tuple[Any, ...]]]) -> Tensor:
    """Several reshapings, one after the other. Between them, the first dimension does not count the images.

    Args:
        x: ``(N, *shape)``.
        steps: names of operations, as :func:`name_of` gives them, and their arguments after the first one.
    """
    for name, arguments in steps:
        x = _operation(name)(x, *arguments)
    return x


def name_of(operation: Callable[..., Any]) -> str:
    """The name by which a chain refers to an ATen overload or a function of this file."""
    return str(operation) if isinstance(operation, torch._ops.OpOverload) else operation.__name__


@cache
def _operation(name: str) -> Callable[..., Tensor]:
    function: Any = reduce(getattr, name.split("."), torch.ops) if "." in name else globals()[name]
    found: Callable[..., Tensor] = function
    return found


def refused(x: Tensor, reason: str) -> Tensor:
    """A value that no graph can express. It is an error only if the output depends on it.

    Args:
        x: what it was computed from.
        reason: what the message says.

    Raises:
        InputError: always.
    """
    raise InputError(reason)


def rows_like(constant: Tensor, x: Tensor) -> Tensor:
    """A constant ``(1, *shape)`` repeated for each of the N images of x."""
    return constant.expand(len(x), *constant.shape[1:])


def expand_like(x: Tensor, like: Tensor) -> Tensor:
    """A broadcast to the shape of another value."""
    return x.expand_as(like)
