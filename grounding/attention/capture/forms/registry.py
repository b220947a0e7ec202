"""The normal form of each ATen operation, so that networks written in different ways become the same graph.

The normal form of an operation is what the graph has in its place: itself, or other operations that compute the same.
Batch norms, and sums, differences, products and quotients with constants, become :func:`operations.affine`. Matrix
products become ``linear``. The parts of a split or a chunk become slices. In a product of two activations, the one from
which the other is computed is the value, and the other is its gate. Broadcasts are written out.

It is made by a function ``(builder, result, *arguments, **keywords)``. The arguments are those of the operation, with
nodes in place of tensors that depend on the images. ``result`` is what the operation returned. The function returns the
node of the result, or of each result.
"""

import operator
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from grounding.attention.capture.graph import BATCH, GraphBuilder, Node, regular, title
from grounding.attention.capture.operations import chain, refused
from proposals.errors import InputError

Form = Callable[..., Node | list[Node]]
AnyForm = TypeVar("AnyForm", bound=Form)
FORMS: dict[object, Form] = {}
Number = int | float


def form(*operations: object) -> Callable[[AnyForm], AnyForm]:
    """Registers the form of operations."""

    def register(function: AnyForm) -> AnyForm:
        FORMS.update(dict.fromkeys(operations, function))
        return function

    return register


def normal(builder: GraphBuilder, operation: Any, result: Any, args: Any, kwargs: Any) -> Node | list[Node]:
    """The node of an operation in its normal form.

    Args:
        builder: gets the node.
        operation: an ATen overload.
        result: what it returned.
        args: its arguments.
        kwargs: its keyword arguments.

    Raises:
        InputError: the operation cannot be part of a graph for any number of images.
    """
    broken = [node for node in nodes_in((args, kwargs)) if node.target is refused]
    try:
        if broken:
            raise InputError(str(broken[0].args[1]))
        made: Form = FORMS.get(operation.overloadpacket, other)
        nodes: Node | list[Node] = made(builder, result, *args, **kwargs, operation=operation)
        return nodes
    except InputError as error:
        # the result may not be needed: a statistic that is noted, or only the size of a part
        source = nodes_in((args, kwargs))[0]
        results = result if isinstance(result, tuple | list) else [result]
        return [builder.call(refused, source, str(error), shape=getattr(one, "shape", ())) for one in results]


def other(builder: GraphBuilder, result: Any, *args: Any, operation: Any, **kwargs: Any) -> Any:
    """An operation without a form, as it is. If its input is a chain of reshapings, it is applied before the chain."""
    node = next(a for a in flat(args, kwargs) if isinstance(a, Node))
    several = isinstance(result, tuple | list)
    if not several:
        args = tuple(constant_for(builder, a, result.ndim) if isinstance(a, Tensor) and a.ndim else a for a in args)
    if several or all(regular(a) for a in flat(args, kwargs) if isinstance(a, Node)):
        whole = builder.call(operation, *args, shape=() if several else result.shape, **kwargs)
        if several:
            return _parts(builder, whole, result)
        return builder.pointwise(whole, *args) if torch.Tag.pointwise in operation.tags else whole
    if node is args[0] and node.meta["shape"] == tuple(result.shape) and not nodes_in((args[1:], kwargs)):
        return before_chain(builder, node, lambda x: builder.call(operation, x, *args[1:], shape=shape_of(x), **kwargs))
    raise InputError(f"{builder.place}{title(operation)} of a value whose first dimension does not count the images "
                     "has no rule: keep the batch in front")  # fmt: skip


def before_chain(builder: GraphBuilder, node: Node, function: Callable[[Node], Node]) -> Node:
    """Applies an element-wise operation to the value before a chain of reshapings.

    Args:
        builder: gets the nodes.
        node: the chain.
        function: from a node to the node of the operation's result.
    """
    source, steps = node.args[0], node.args[1]
    assert isinstance(source, Node)
    return builder.call(chain, function(source), steps, shape=shape_of(node), batch=node.meta["batch"])


def _parts(builder: GraphBuilder, whole: Node, result: Sequence[Any]) -> list[Node]:
    tensors = [(i, part) for i, part in enumerate(result) if isinstance(part, Tensor)]
    return [builder.call(operator.getitem, whole, i, shape=part.shape) for i, part in tensors]


def flat(*values: Any) -> list[Any]:
    """All values in nested tuples, lists and dictionaries."""
    found: list[Any] = []
    torch.fx.node.map_aggregate(values, found.append)
    return found


def nodes_in(values: Any) -> list[Node]:
    """The nodes in nested tuples, lists and dictionaries."""
    return [value for value in flat(values) if isinstance(value, Node)]


def shape_of(x: Node) -> tuple[int, ...]:
    """The shape of a node's value, with ``BATCH`` images."""
    shape: tuple[int, ...] = x.meta["shape"]
    return shape


def constant_for(builder: GraphBuilder, value: Any, dims: int) -> Any:
    """A constant that fits any number of images."""
    if isinstance(value, Tensor) and value.numel() == 1:
        return value.reshape(())
    if isinstance(value, Tensor) and value.ndim == dims and len(value) == BATCH:
        if (value[:1] != value).any():
            raise InputError(f"{builder.place}a constant differs between the images of a batch: each image must be "
                             "computed by itself")  # fmt: skip
        return value[:1]
    return value
