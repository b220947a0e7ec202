"""The normal forms of reshapings, slices and concatenations."""

import sys
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from grounding.attention.capture.forms.registry import form, other, shape_of
from grounding.attention.capture.graph import GraphBuilder, Like, Node, regular, title
from proposals.errors import InputError

aten = torch.ops.aten


@form(aten.view, aten._unsafe_view, aten.reshape, aten.squeeze, aten.unsqueeze)
def reshaping(builder: GraphBuilder, result: Tensor, x: Node, *_: Any, operation: Any, **__: Any) -> Node:
    """The same values in another shape. A squeeze of a batch of one would drop the batch; it is captured with two."""
    if result.dtype != torch.float64 and operation is aten.view.dtype:
        raise InputError(f"{builder.place}the bits of a value are read as another type, which has no rule")
    return builder.reshape(x, result.shape)


@form(aten.permute, aten.transpose, aten.t)
def permutation(builder: GraphBuilder, result: Tensor | Like, x: Node, *args: Any, operation: Any) -> Node:
    """Dimensions in another order."""
    places = _permuted(len(shape_of(x)), operation, args)
    batch = places.index(x.meta["batch"])
    return builder.route(aten.permute.default, x, places, shape=result.shape, batch=batch)


def _permuted(dims: int, operation: Any, args: Any) -> list[int]:
    if operation.overloadpacket is aten.permute:
        return [d % dims for d in args[0]]
    places = list(range(dims))
    first, second = (d % dims for d in args) if args else (0, dims - 1)
    places[first], places[second] = places[second], places[first]
    return places


@form(aten.rot90)
def rotation(builder: GraphBuilder, result: Tensor, x: Node, *args: Any, operation: Any = None, **more: Any) -> Node:
    """A rotation by quarter turns."""
    builder.sized = True
    return builder.route(operation, x, *args, shape=result.shape, **more)


@form(aten.expand, aten.expand_copy)
def expansion(builder: GraphBuilder, result: Tensor, x: Node, *_: Any, operation: Any, **__: Any) -> Node:
    """A broadcast."""
    return builder.expand(x, result.shape)


@form(aten.as_strided)
def restriding(
    builder: GraphBuilder, result: Tensor, x: Node, size: Any, stride: Any, *_: Any, operation: Any = None
) -> Node:
    """The same values in another memory format."""
    if tuple(size) != shape_of(x) or sorted(s for s, n in zip(stride, size, strict=True) if n > 1)[:1] not in ([], [1]):
        raise InputError(f"{builder.place}as_strided has no rule: use slices and reshapings")
    return x


@form(aten.alias, aten.detach, aten.clone, aten.contiguous, aten.lift_fresh, aten.lift_fresh_copy, aten.dropout)
def same(builder: GraphBuilder, result: Tensor, x: Node, *_: Any, **__: Any) -> Node:
    """Nothing is changed."""
    return x


@form(aten.slice)
def slicing(
    builder: GraphBuilder,
    result: Tensor,
    x: Node,
    dim: int = 0,
    start: int | None = None,
    end: int | None = None,
    step: int = 1,
    operation: Any = None,
) -> Node:
    """A part of a dimension."""
    dim %= len(shape_of(x))
    if tuple(result.shape) == shape_of(x):
        # of a larger image, the same slice may be a part
        builder.sized |= dim >= 2 and (bool(start) or (end is not None and end < sys.maxsize))
        return x
    batch = None if dim == x.meta["batch"] else x.meta["batch"]
    return builder.route(aten.slice.Tensor, x, dim, start, end, step, shape=result.shape, batch=batch)


@form(aten.select)
def selection(builder: GraphBuilder, result: Tensor, x: Node, dim: int, index: int, operation: Any = None) -> Node:
    """One index of a dimension."""
    dim, batch = dim % len(shape_of(x)), x.meta["batch"]
    batch = None if dim == batch else batch - (dim < batch)
    return builder.route(aten.select.int, x, dim, index, shape=result.shape, batch=batch)


@form(aten.split, aten.split_with_sizes, aten.chunk, aten.tensor_split)
def splitting(
    builder: GraphBuilder, result: Sequence[Tensor], x: Node, *args: Any, operation: Any, **more: Any
) -> list[Node]:
    """Parts of a dimension, as slices."""
    dim = more.get("dim", args[1] if len(args) > 1 else 0) % len(shape_of(x))
    builder.sized |= dim >= 2
    parts, start = [], 0
    for part in result:
        end = start + part.shape[dim]
        parts.append(slicing(builder, part, x, dim, start, end))
        start = end
    return parts


@form(aten.unbind)
def unbinding(
    builder: GraphBuilder, result: Sequence[Tensor], x: Node, dim: int = 0, operation: Any = None
) -> list[Node]:
    """Each index of a dimension."""
    builder.sized |= dim % len(shape_of(x)) >= 2
    return [selection(builder, part, x, dim, i) for i, part in enumerate(result)]


@form(aten.index, aten._unsafe_index)
def indexing(builder: GraphBuilder, result: Tensor, x: Any, where: Sequence[Any], operation: Any = None) -> Any:
    """Elements at constant indices."""
    if not isinstance(x, Node) or any(isinstance(index, Node) for index in where):
        raise InputError(f"{builder.place}indices that depend on the image have no rule")
    first = where[0] if where else None
    if first is not None and len(where) == 1 and torch.equal(first.cpu(), torch.arange(_images(x))):
        return x
    if first is not None or not regular(x):
        raise InputError(f"{builder.place}indexing picks or mixes images of a batch: each image must be computed by "
                         "itself")  # fmt: skip
    return other(builder, result, x, where, operation=operation)


def _images(x: Node) -> int:
    return shape_of(x)[0]


@form(aten.index_select, aten.flip, aten.roll)
def along(builder: GraphBuilder, result: Tensor, x: Any, *args: Any, operation: Any = None, **more: Any) -> Any:
    """Elements of some dimensions in another order."""
    dims = args[-1] if operation.overloadpacket is aten.roll else args[0]
    dims = [dims] if isinstance(dims, int) else dims
    if not isinstance(x, Node) or x.meta["batch"] in [d % len(shape_of(x)) for d in dims]:
        raise InputError(f"{builder.place}{title(operation)} picks or mixes images of a batch: each image must be "
                         "computed by itself")  # fmt: skip
    return other(builder, result, x, *args, operation=operation, **more)


@form(aten.cat, aten.concat)
def concatenation(
    builder: GraphBuilder, result: Tensor, parts: Sequence[Any], dim: int = 0, operation: Any = None
) -> Node:
    """Parts side by side. A part that does not depend on the images is repeated for each of them."""
    dim %= result.ndim
    parts = [part for part in parts if isinstance(part, Node) or part.numel()]
    nodes = [part if isinstance(part, Node) else builder.rows(part, part.shape) for part in parts]
    return joined(builder, aten.cat.default, nodes, dim, result)


@form(aten.stack)
def stacking(builder: GraphBuilder, result: Tensor, parts: Sequence[Any], dim: int = 0, operation: Any = None) -> Node:
    """Parts along a new dimension."""
    dim %= result.ndim
    place = max(dim, 1)
    shape = list(result.shape) if dim else [result.shape[1], result.shape[0], *result.shape[2:]]
    shape[place] = 1
    nodes = [builder.reshape(p if isinstance(p, Node) else builder.rows(p, p.shape), shape) for p in parts]
    shape[place] = len(parts)
    whole = joined(builder, aten.cat.default, nodes, place, Like(torch.Size(shape)))
    return whole if dim else permutation(builder, result, whole, 0, 1, operation=aten.transpose.int)


def joined(builder: GraphBuilder, target: Any, nodes: list[Node], dim: int, result: Tensor | Like) -> Node:
    """Values side by side.

    Raises:
        InputError: the first dimension of one of them does not count the images, or they are joined along it.
    """
    if not all(map(regular, nodes)) or dim == 0:
        raise InputError(f"{builder.place}a concatenation of values whose first dimension does not count the images, "
                         "or of images, has no rule: keep the batch in front")  # fmt: skip
    return nodes[0] if len(nodes) == 1 else builder.call(target, nodes, dim, shape=result.shape)
