"""The normal forms of sums, products, quotients and choices."""

from typing import Any

import torch
from torch import Tensor

from grounding.attention.capture.forms.registry import Number, before_chain, constant_for, form, shape_of
from grounding.attention.capture.forms.shapes import slicing
from grounding.attention.capture.graph import GraphBuilder, Node, regular
from grounding.attention.capture.operations import affine, choose, joint_product, product
from proposals.errors import InputError

aten = torch.ops.aten


def scale_and_shift(builder: GraphBuilder, x: Node, scale: Any, shift: Any) -> Node:
    """x * scale + shift, with constants; None for a scale of 1 or a shift of 0."""
    if scale is None and shift is None:
        return x
    if not regular(x):
        numbers = all(c is None or isinstance(c, int | float) or c.numel() == 1 for c in (scale, shift))
        if not numbers:
            raise InputError(f"{builder.place}a constant is added to, or multiplied with, a value whose first "
                             "dimension does not count the images: keep the batch in front")  # fmt: skip
        return before_chain(builder, x, lambda s: builder.call(affine, s, scale, shift, shape=shape_of(s)))
    return builder.pointwise(builder.call(affine, x, scale, shift, shape=shape_of(x)), x)


@form(aten.mul, aten.multiply)
def multiplication(builder: GraphBuilder, result: Tensor, left: Any, right: Any, operation: Any = None) -> Node:
    """A product with a constant, a square, or a product of two values."""
    if not (isinstance(left, Node) and isinstance(right, Node)):
        x, factor = (left, right) if isinstance(left, Node) else (right, left)
        return scale_and_shift(
            builder, builder.expand(x, result.shape), constant_for(builder, factor, result.ndim), None
        )
    left, right = (as_number(builder, x, result) for x in (left, right))
    if left is right:
        return builder.pointwise(builder.call(aten.square.default, left, shape=result.shape), left)
    order = builder.order(left, right)
    wide = broadcast(builder, result, left, right)
    if order == 0:
        return builder.pointwise(builder.call(joint_product, *wide, shape=result.shape), *wide)
    wide = wide if order > 0 else wide[::-1]
    return builder.pointwise(builder.call(product, *wide, shape=result.shape), *wide)


def broadcast(builder: GraphBuilder, result: Tensor, *values: Any) -> list[Node]:
    """Values in the shape of the result."""
    like = next((x for x in values if isinstance(x, Node) and shape_of(x) == tuple(result.shape)), None)
    return [builder.expand(x, result.shape, like) for x in values]


@form(aten.div, aten.divide, aten.true_divide)
def division(builder: GraphBuilder, result: Tensor, left: Any, right: Any, operation: Any = None, **more: Any) -> Node:
    """A quotient, as a product with the reciprocal of the divisor."""
    if more.get("rounding_mode"):
        raise InputError(f"{builder.place}a division that rounds has no rule")
    if not isinstance(right, Node):
        divisor = constant_for(builder, right, result.ndim)
        return scale_and_shift(builder, builder.expand(left, result.shape), 1 / divisor, None)
    inverse = builder.pointwise(builder.call(aten.reciprocal.default, right, shape=shape_of(right)), right)
    if not isinstance(left, Node):
        return scale_and_shift(
            builder, builder.expand(inverse, result.shape), constant_for(builder, left, result.ndim), None
        )
    wide = broadcast(builder, result, left, inverse)
    return builder.pointwise(builder.call(product, *wide, shape=result.shape), *wide)


@form(aten.add)
def addition(
    builder: GraphBuilder, result: Tensor, left: Any, right: Any, alpha: Number = 1, operation: Any = None
) -> Node:
    """A sum of two values, or of a value and a constant."""
    if isinstance(left, Node) and isinstance(right, Node):
        right = scale_and_shift(builder, right, None if alpha == 1 else alpha, None)
        nodes = broadcast(builder, result, left, right)
        return builder.pointwise(builder.call(aten.add.Tensor, *nodes, shape=result.shape), *nodes)
    if isinstance(left, Node):
        return scale_and_shift(
            builder, builder.expand(left, result.shape), None, constant_for(builder, right, result.ndim) * alpha
        )
    return scale_and_shift(
        builder,
        builder.expand(right, result.shape),
        None if alpha == 1 else alpha,
        constant_for(builder, left, result.ndim),
    )


@form(aten.sub, aten.subtract)
def subtraction(
    builder: GraphBuilder, result: Tensor, left: Any, right: Any, alpha: Number = 1, operation: Any = None
) -> Node:
    """A difference, as a sum with the negated second value."""
    return addition(builder, result, left, right, -alpha)


@form(aten.rsub)
def reversed_subtraction(
    builder: GraphBuilder, result: Tensor, left: Any, right: Any, alpha: Number = 1, operation: Any = None
) -> Node:
    """right - alpha * left."""
    return addition(builder, result, right, left, -alpha)


@form(aten.neg)
def negation(builder: GraphBuilder, result: Tensor, x: Node, operation: Any = None) -> Node:
    """-x."""
    return scale_and_shift(builder, x, -1, None)


def as_number(builder: GraphBuilder, x: Node, result: Tensor) -> Node:
    """A mask as ones and zeros."""
    if x.meta.get("floats", True):
        return x
    return builder.pointwise(builder.call(aten._to_copy.default, x, dtype=result.dtype, shape=shape_of(x)), x)


@form(aten.masked_fill)
def masked(builder: GraphBuilder, result: Tensor, x: Any, mask: Any, value: Any, operation: Any = None) -> Node:
    """A constant where a mask is true."""
    return choice(builder, result, mask, value, x)


@form(aten.index_put)
def masked_write(
    builder: GraphBuilder, result: Tensor, x: Any, where: Any, value: Any, *_: Any, operation: Any = None
) -> Node:
    """A constant where a mask is true, written as an assignment."""
    mask = where[0]
    is_mask = isinstance(mask, Node) and not mask.meta.get("floats", True) and shape_of(mask) == tuple(result.shape)
    if len(where) != 1 or not is_mask or isinstance(value, Node) or value.numel() != 1:
        raise InputError(f"{builder.place}an assignment to indices has no rule: use torch.where")
    return choice(builder, result, mask, value.reshape(()), x)


@form(aten.lerp)
def interpolation(
    builder: GraphBuilder, result: Tensor, left: Any, right: Any, weight: Any, operation: Any = None
) -> Node:
    """(1 - weight) * left + weight * right."""
    if isinstance(weight, Node) or not isinstance(left, Node) or not isinstance(right, Node):
        raise InputError(f"{builder.place}lerp has a rule for two activations and a constant weight only")
    left, right = scale_and_shift(builder, left, 1 - weight, None), scale_and_shift(builder, right, weight, None)
    return addition(builder, result, left, right)


@form(aten.gather)
def gathering(
    builder: GraphBuilder, result: Tensor, x: Any, dim: int, index: Any, operation: Any = None, **_: Any
) -> Node:
    """Values at constant positions."""
    if isinstance(index, Node) or not regular(x) or dim % result.ndim == 0:
        raise InputError(f"{builder.place}gather has a rule for constant positions only")
    return builder.call(aten.gather.default, x, dim, builder.rows(index, index.shape), shape=result.shape)


@form(aten.glu)
def gated_linear_unit(builder: GraphBuilder, result: Tensor, x: Node, dim: int = -1, operation: Any = None) -> Node:
    """One half of the channels times the sigmoid of the other half."""
    half = shape_of(x)[dim] // 2
    left, right = (slicing(builder, result, x, dim, start, start + half) for start in (0, half))
    gate = builder.call(aten.sigmoid.default, right, shape=shape_of(right))
    return builder.call(product, left, gate, shape=result.shape)


@form(aten.log_sigmoid_forward)
def log_sigmoid(builder: GraphBuilder, result: Any, x: Node, operation: Any = None) -> list[Node]:
    """log(sigmoid(x))."""
    return [builder.call(aten.log_sigmoid.default, x, shape=shape_of(x))]


@form(aten.rrelu_with_noise)
def randomised_relu(
    builder: GraphBuilder,
    result: Tensor,
    x: Node,
    noise: Any,
    low: Number = 0.125,
    high: Number = 1 / 3,
    *_: Any,
    operation: Any = None,
) -> Node:
    """A randomised ReLU, which has its mean slope in evaluation mode."""
    return builder.call(aten.leaky_relu.default, x, (low + high) / 2, shape=shape_of(x))


@form(aten.where)
def choice(builder: GraphBuilder, result: Tensor, mask: Any, left: Any, right: Any, operation: Any = None) -> Node:
    """One of two values for each element."""
    nodes = broadcast(builder, result, *(_as_tensor(part, result) for part in (mask, left, right)))
    return builder.pointwise(builder.call(choose, *nodes, shape=result.shape), mask, left, right)


@form(aten.maximum, aten.minimum)
def larger(builder: GraphBuilder, result: Tensor, left: Any, right: Any, operation: Any = None) -> Node:
    """The larger (or smaller) of two values."""
    compare = aten.ge.Tensor if operation.overloadpacket is aten.maximum else aten.le.Tensor
    nodes = broadcast(builder, result, *(_as_tensor(part, result) for part in (left, right)))
    mask = builder.call(compare, *nodes, shape=result.shape)
    builder.type(mask, torch.bool)
    return builder.pointwise(builder.call(choose, mask, *nodes, shape=result.shape), left, right)


def _as_tensor(value: Any, like: Tensor) -> Any:
    if isinstance(value, Node):
        return value
    if not isinstance(value, Tensor):
        return torch.tensor(value, dtype=like.dtype, device=like.device)
    return value if value.dtype == torch.bool else value.to(like.dtype)
