"""The normal forms of convolutions, linear layers and matrix products."""

import math
from typing import Any

import torch
from torch import Tensor

from grounding.attention.capture.forms.registry import Number, form, nodes_in, shape_of
from grounding.attention.capture.forms.shapes import permutation
from grounding.attention.capture.forms.sums import addition, scale_and_shift
from grounding.attention.capture.graph import BATCH, GraphBuilder, Like, Node, regular, title
from grounding.attention.capture.operations import chain
from proposals.errors import InputError

aten = torch.ops.aten


@form(aten.convolution, aten._convolution)
def convolution(
    builder: GraphBuilder, result: Tensor, x: Any, weight: Any, *rest: Any, operation: Any = None, **more: Any
) -> Node:
    """A convolution with constant weights."""
    if not isinstance(x, Node) or nodes_in((weight, rest, more)):
        return dynamic_product(builder, result, operation, x, weight, *rest)
    return builder.call(aten.convolution.default, x, weight, *rest[:7], shape=result.shape)


@form(aten.linear)
def linear(builder: GraphBuilder, result: Tensor, x: Any, weight: Any, bias: Any = None, operation: Any = None) -> Node:
    """A linear layer with constant weights."""
    if not isinstance(x, Node) or nodes_in((weight, bias)):
        return dynamic_product(builder, result, operation, x, weight, bias)
    return linear_layer(builder, x, weight, bias, result)


@form(aten.addmm, aten.baddbmm)
def matrix_product_and_sum(
    builder: GraphBuilder,
    result: Tensor,
    bias: Any,
    left: Any,
    right: Any,
    operation: Any = None,
    beta: Number = 1,
    alpha: Number = 1,
) -> Node:
    """beta * bias + alpha * left @ right."""
    if isinstance(left, Node) and not nodes_in((right, bias)) and right.ndim == 2:
        return linear_layer(
            builder, left, alpha * right.t() if alpha != 1 else right.t(), bias * beta if beta != 1 else bias, result
        )
    plain = aten.mm.default if result.ndim == 2 else aten.bmm.default
    whole = matrix_product(builder, result, left, right, operation=plain)
    return addition(builder, result, scale_and_shift(builder, whole, None if alpha == 1 else alpha, None), bias, beta)


@form(aten.mm, aten.mv, aten.bmm, aten.matmul)
def matrix_product(builder: GraphBuilder, result: Tensor, left: Any, right: Any, operation: Any = None) -> Node:
    """left @ right. If one of them is constant, this is a linear layer."""
    left, right = _one_matrix(left), _one_matrix(right)
    if isinstance(left, Node) and not isinstance(right, Node) and right.ndim == 2:
        return linear_layer(builder, left, right.t(), None, result)
    if isinstance(right, Node) and not isinstance(left, Node) and left.ndim == 2 and len(shape_of(right)) > 1:
        turned = permutation(
            builder, torch.empty(shape_of(right)).transpose(-1, -2), right, -1, -2, operation=aten.transpose.int
        )
        whole = linear_layer(builder, turned, left, None, result.transpose(-1, -2))
        return permutation(builder, result, whole, -1, -2, operation=aten.transpose.int)
    return dynamic_product(builder, result, operation, left, right)


def _one_matrix(value: Any) -> Any:
    """A constant that is repeated for each matrix of a batch, once."""
    repeated = isinstance(value, Tensor) and value.ndim == 3 and (len(value) == 1 or value.stride(0) == 0)
    return value[0] if repeated else value


def dynamic_product(builder: GraphBuilder, result: Tensor, operation: Any, *args: Any) -> Node:
    """A product of two activations. It has no rule, but may be part of the computation of a gate."""
    if not all(map(regular, nodes_in(args))) or (result.ndim and result.shape[0] != BATCH):
        raise InputError(
            f"{builder.place}{title(operation)} multiplies activations with one another, which has no rule"
        )
    return builder.call(operation, *args, shape=result.shape)


def linear_layer(builder: GraphBuilder, x: Node, weight: Tensor, bias: Any, result: Tensor) -> Node:
    """A linear layer. Where its input was reshaped to a matrix, it is applied to the value before the reshaping."""
    bias = bias.reshape(-1) if isinstance(bias, Tensor) else bias
    source = x if regular(x) else _unchained(builder, x)
    shape = (*shape_of(source)[:-1], len(weight))
    whole = builder.call(aten.linear.default, source, weight.contiguous(), bias, shape=shape)
    return builder.reshape(whole, result.shape)


def _unchained(builder: GraphBuilder, x: Node) -> Node:
    """The value before a chain of reshapings, with the dimension that is last after the chain moved to the end."""
    source, steps = x.args[:2]
    assert isinstance(source, Node)
    places = torch.arange(math.prod(shape_of(source))).view(shape_of(source))
    rows = chain(places, steps)  # type: ignore[arg-type]
    rows = rows.reshape(-1, rows.shape[-1])
    for dim in reversed(range(1, len(shape_of(source)))):
        turned = places.movedim(dim, -1)
        if turned.shape[-1] == rows.shape[1] and torch.equal(turned.reshape(-1, rows.shape[1]), rows):
            order = [d for d in range(len(shape_of(source))) if d != dim] + [dim]
            return permutation(builder, Like(turned.shape), source, order, operation=aten.permute.default)
    raise InputError(f"{builder.place}a linear layer over a value whose first dimension does not count the images has "
                     "no rule: keep the batch in front")  # fmt: skip
