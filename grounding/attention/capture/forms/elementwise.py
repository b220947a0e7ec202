"""The normal forms of nonlinearities, pools and reductions."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from grounding.attention.capture.forms.registry import form, other, shape_of
from grounding.attention.capture.forms.sums import larger
from grounding.attention.capture.graph import GraphBuilder, Like, Node, regular
from grounding.attention.capture.operations import adaptive_maximum, chain, maximum
from proposals.errors import InputError

aten = torch.ops.aten


@form(aten.clamp, aten.clamp_min, aten.threshold)
def clamp(builder: GraphBuilder, result: Tensor, x: Any, *args: Any, operation: Any = None, **more: Any) -> Any:
    """A clamp to values >= 0 is a ReLU."""
    low, high = (*args, None, None)[:2]
    low, high = more.get("min", low), more.get("max", high)
    is_relu = isinstance(low, int | float) and low == 0 and high is None
    if operation.overloadpacket is aten.threshold:
        is_relu = low == high == 0
    if is_relu:
        return other(builder, result, x, operation=aten.relu.default)
    return other(builder, result, x, *args, operation=operation, **more)


@form(aten.max_pool2d_with_indices)
def max_pool(builder: GraphBuilder, result: Any, x: Node, *args: Any, operation: Any = None, **more: Any) -> list[Node]:
    """A max pool whose indices are not used."""
    return [builder.call(aten.max_pool2d.default, x, *args, shape=result[0].shape, **more)]


@form(aten.amax)
def amax(
    builder: GraphBuilder, result: Tensor, x: Node, dim: Any = (), keepdim: bool = False, operation: Any = None
) -> Node:
    """The maximum over dimensions."""
    dims = tuple(sorted(d % len(shape_of(x)) for d in (dim if isinstance(dim, list | tuple) else [dim]))) or (0,)
    steps: Any = x.args[1] if x.target is chain else ()
    if not regular(x) and len(steps) == 1 and steps[0][0] == "aten.permute.default" and not keepdim:
        places = steps[0][1][0]
        source = x.args[0]
        assert isinstance(source, Node)
        kept = [p for d, p in enumerate(places) if d not in dims]
        if kept == sorted(kept):
            return amax(builder, result, source, [places[d] for d in dims])
    if not regular(x) or 0 in dims:
        raise InputError(f"{builder.place}a maximum over the images of a batch has no rule")
    return builder.call(maximum, x, dims, keepdim, shape=result.shape)


@form(aten.max)
def largest(builder: GraphBuilder, result: Any, x: Node, *args: Any, operation: Any = None) -> Node | list[Node]:
    """The maximum over a dimension, or over two values."""
    if args and isinstance(args[0], Node | Tensor):
        return larger(builder, result, x, args[0], operation=aten.maximum.default)
    value = result[0] if isinstance(result, tuple | list) else result
    node = amax(builder, value, x, *args)
    return [node] if isinstance(result, tuple | list) else node


@form(aten.adaptive_max_pool2d)
def adaptive_max_pool(
    builder: GraphBuilder, result: Any, x: Node, size: Sequence[int], operation: Any = None
) -> list[Node]:
    """A maximum over the whole image, or over parts of it."""
    if all(n == 1 for n in size):
        return [builder.call(maximum, x, (2, 3), True, shape=result[0].shape)]
    return [builder.call(adaptive_maximum, x, size, shape=result[0].shape)]


@form(aten.mean, aten.sum)
def reduction(
    builder: GraphBuilder,
    result: Tensor,
    x: Node,
    dim: Any = None,
    keepdim: bool = False,
    operation: Any = None,
    dtype: torch.dtype | None = None,
) -> Node:
    """A mean or a sum over dimensions."""
    x = conversion(builder, Like(torch.Size(shape_of(x))), x, dtype=dtype)
    length = len(shape_of(x))
    dims = sorted(d % length for d in ([dim] if isinstance(dim, int) else dim or range(length)))
    batch = x.meta["batch"]
    place = None if batch in dims else batch if keepdim else batch - sum(d < batch for d in dims)
    overload = aten.mean.dim if operation.overloadpacket is aten.mean else aten.sum.dim_IntList
    return builder.route(overload, x, dims, keepdim, shape=result.shape, batch=place)


@form(aten.upsample_nearest2d, aten.upsample_bilinear2d, aten._upsample_nearest_exact2d, aten.upsample_bicubic2d)
def upsampling(builder: GraphBuilder, result: Tensor, x: Node, *args: Any, operation: Any = None, **more: Any) -> Any:
    """An interpolation; to a size that is an argument, it fits images of one size only."""
    builder.sized |= args[0] is not None
    return other(builder, result, x, *args, operation=operation, **more)


@form(aten._to_copy, aten.to)
def conversion(
    builder: GraphBuilder, result: Tensor | Like, x: Node, *_: Any, operation: Any = None, **more: Any
) -> Node:
    """A conversion to another type; a copy to another device or layout changes nothing."""
    dtype = more.get("dtype")
    if dtype is None or dtype == x.meta.get("dtype"):
        return x
    whole = other(builder, result, x, dtype=dtype, operation=aten._to_copy.default)
    return builder.pointwise(whole, x) if isinstance(whole, Node) else whole
