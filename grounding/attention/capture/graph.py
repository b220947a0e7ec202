"""The graph of a captured network: ATen operations, with the shapes of their results and the modules that call them.

A graph is captured with a batch of ``BATCH`` images, and then used for any number. So no argument of an operation may
contain the number of images: :meth:`GraphBuilder.reshape` replaces it.

A value is *regular* if its first dimension counts the images. Values on which other operations work are regular. Some
models move the images to another dimension for a while, or merge them with another one, for instance in a reshaping to
``(N * C, h, w)``. All reshapings up to the next regular value are then one node, a *chain* (``operations.chain``).

What a node's ``meta`` has:

    shape     of its value, with ``BATCH`` images
    batch     which dimension of it counts the images, or a multiple of them
    module    the path of the module that calls it
    dtype     of its value
    floats    whether that is a floating point type
    roots     the values of which it is an element-wise function, the nearest first; itself may be one of them
    negated   whether it was added by ``negation.py``
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.fx
from torch import Tensor, nn

from grounding.attention.capture.operations import (
    Size,
    affine,
    chain,
    choose,
    expand_like,
    name_of,
    pointwise,
    reshape,
    rows_like,
)
from proposals.errors import InputError

Node = torch.fx.Node
BATCH = 2


@dataclass(frozen=True)
class Like:
    """The shape and type of a tensor, which may have been freed.

    Attributes:
        shape: its shape.
        dtype: its type.
        device: where it is.
    """

    shape: torch.Size
    dtype: torch.dtype | None = None
    device: torch.device | None = None

    @classmethod
    def of(cls, tensor: Tensor) -> "Like":
        """Those of a tensor."""
        return cls(tensor.shape, tensor.dtype, tensor.device)

    @property
    def ndim(self) -> int:
        """The number of dimensions."""
        return len(self.shape)


class GraphBuilder:
    """Builds the graph of a network.

    Attributes:
        graph: the nodes so far.
        attributes: constants and modules, by the name under which the graph refers to them.
        module: the path of the module that runs now.
        sized: whether a node depends on the size of the images, so that the graph fits images of this size only.
    """

    def __init__(self) -> None:
        self.graph = torch.fx.Graph()
        self.attributes: dict[str, Tensor | nn.Module] = {}
        self.module = ""
        self.sized = False
        # by id; the tensor is kept, so that its id stays its own
        self._constants: dict[int, tuple[Tensor, Node]] = {}
        self._changed: set[int] = set()

    def image(self, images: Tensor) -> Node:
        """The node of the images."""
        return self._noted(self.graph.placeholder("image"), images.shape, 0)

    def constant(self, tensor: Tensor) -> Node:
        """The node of a constant."""
        if id(tensor) not in self._constants:
            name = f"constant_{len(self.attributes)}"
            # a buffer that this pass has changed will change again in the next one
            self.attributes[name] = tensor.clone() if _memory(tensor) in self._changed else tensor
            node = self.graph.create_node("get_attr", name, name=name)
            node.meta.update(shape=tuple(tensor.shape), module=self.module)
            self._constants[id(tensor)] = (tensor, node)
        return self._constants[id(tensor)][1]

    def freeze(self, tensor: Tensor) -> None:
        """Keeps the present values of the constants in a tensor's memory, which is about to change."""
        self._changed.add(_memory(tensor))
        for key, (constant, node) in list(self._constants.items()):
            if _memory(constant) in self._changed:
                self.attributes[str(node.target)] = constant.clone()
                del self._constants[key]

    def leaf(self, module: nn.Module, path: str, x: Node, shape: Sequence[int]) -> Node:
        """The node of a leaf: a module whose class has a rule, and which is not taken apart."""
        name = "leaf_" + path.replace(".", "_")
        self.attributes[name] = module
        return self._noted(self.graph.create_node("call_module", name, (x,), name=name), shape, 0)

    def call(self, target: Callable[..., Any], *args: Any, shape: Sequence[int], batch: int = 0, **more: Any) -> Node:
        """The node of an operation whose tensor arguments are nodes or constants.

        Args:
            target: the operation.
            *args: its arguments.
            shape: the shape of its result.
            batch: which dimension of the result counts the images.
            **more: its keyword arguments.
        """
        filled, keywords = (torch.fx.node.map_aggregate(part, self._filled) for part in (args, more))
        node = self.graph.create_node("call_function", target, filled, keywords, name=title(target))  # type: ignore[arg-type]
        return self._noted(node, shape, batch)

    def _filled(self, value: Any) -> Any:
        return self.constant(value) if isinstance(value, Tensor) else value

    def _noted(self, node: Node, shape: Sequence[int], batch: int) -> Node:
        node.meta.update(shape=tuple(shape), batch=batch, module=self.module)
        return node

    def type(self, node: Node, dtype: torch.dtype) -> None:
        """Notes the type of a node's value."""
        node.meta.setdefault("dtype", dtype)
        node.meta.setdefault("floats", dtype.is_floating_point)

    def pointwise(self, node: Node, *inputs: object) -> Node:
        """Notes that a node is computed element by element from its inputs.

        Its roots are the earlier values of which all inputs are element-wise functions. A node of several operations
        with a common root, such as x * sigmoid(x), is a nonlinearity of the root: a node ``operations.pointwise``.

        Args:
            node: the node.
            *inputs: its inputs; those that are no nodes are constants.
        """
        nodes = [x for x in inputs if isinstance(x, Node)]
        chains = [x.meta.get("roots", (x,)) for x in nodes]
        common = [r for r in chains[0] if all(r in chain for chain in chains) and r.meta["shape"] == node.meta["shape"]]
        if not common or not regular(node):
            return node
        node.meta["roots"] = (node, *common) if node.target is affine else tuple(common)
        linear = title(node.target) == "add" and all(x is common[0] or x.target is affine for x in nodes)
        if linear or (len(nodes) == 1 and node.target is not choose):
            return node
        whole = self.call(pointwise, common[0], node, shape=node.meta["shape"])
        whole.meta["roots"] = (whole, *common)
        return whole

    def route(
        self, target: Callable[..., Any], x: Node, *args: Any, shape: Sequence[int], batch: int | None = 0
    ) -> Node:
        """The node of an operation that moves, sums or averages values. Between regular values, several become a chain.

        Args:
            target: the operation.
            x: its input.
            *args: its other arguments.
            shape: the shape of its result.
            batch: which dimension of the result counts the images, or a multiple of them; None if none does.

        Raises:
            InputError: the operation picks one of the images, or mixes them.
        """
        if batch is None:
            raise InputError(f"{self.place}{title(target)} picks or mixes images of a batch: each image must be "
                             "computed by itself")  # fmt: skip
        source, steps = x, ((name_of(target), args),)
        if not regular(x):
            source, earlier = x.all_input_nodes[0], x.args[1]
            steps = (*earlier, *steps)  # type: ignore[misc]
        if len(steps) == 1 and batch == 0 and shape[0] == BATCH:
            return self.call(target, x, *args, shape=shape)
        return self.call(chain, source, steps, shape=shape, batch=batch)

    def reshape(self, x: Node, shape: Sequence[int]) -> Node:
        """The node of a reshaping to a shape that was seen with ``BATCH`` images."""
        shape, here = tuple(shape), tuple(x.meta["shape"])
        if x.target is reshape and regular(x):
            before = x.args[0]
            assert isinstance(before, Node)
            return self.reshape(before, shape)
        if shape == here:
            return x
        if x.target is chain and [name for name, _ in x.args[1]] == ["reshape"]:  # type: ignore[union-attr,misc]
            return self.reshape(x.all_input_nodes[0], shape)
        sizes, batch, sized = _sizes(here, shape, x.meta["batch"])
        self.sized |= sized
        return self.route(reshape, x, sizes, shape=shape, batch=batch)

    def expand(self, x: Node | Tensor, shape: Sequence[int], like: object = None) -> Node:
        """The node of a broadcast.

        Args:
            x: the value, or a constant.
            shape: the shape of the result.
            like: a value of this shape, if there is one; the broadcast then fits images of any size.
        """
        if isinstance(x, Tensor):
            return self.rows(x.expand(tuple(shape)), shape)
        here = tuple(x.meta["shape"])
        if here == tuple(shape):
            return x
        if not regular(x) or shape[0] != BATCH or here[0] != BATCH or len(here) != len(shape):
            raise InputError(f"{self.place}a broadcast from {here} to {tuple(shape)} changes which dimension counts "
                             "the images: give both values the same number of dimensions")  # fmt: skip
        if isinstance(like, Node) and like.meta["shape"] == tuple(shape):
            return self.call(expand_like, x, like, shape=shape)
        sizes = [-1 if a == b else b for a, b in zip(here, shape, strict=True)]
        self.sized |= any(size > 1 for size in sizes[2:])
        return self.route(torch.ops.aten.expand.default, x, sizes, shape=shape)

    def rows(self, constant: Tensor, shape: Sequence[int]) -> Node:
        """The node of a constant that has a row for each image.

        Raises:
            InputError: its rows differ.
        """
        if constant.ndim != len(shape) or not shape or shape[0] != BATCH or (constant[:1] != constant).any():
            raise InputError(f"{self.place}a constant differs between the images of a batch: each image must be "
                             "computed by itself")  # fmt: skip
        (image,) = (node for node in self.graph.nodes if node.op == "placeholder")
        return self.call(rows_like, constant[:1].contiguous(), image, shape=shape)

    def order(self, left: Node, right: Node) -> int:
        """Which factor of a product is the value, and which is its gate: 1 for the left one, -1 for the right one.

        A value is what its gate is computed from. Otherwise the gate is the factor that has fewer elements, or else the
        one that ends in a squashing function such as a sigmoid. 0: none of this decides, so neither is a gate.
        """
        if self._depends(right, left) != self._depends(left, right):
            return 1 if self._depends(right, left) else -1
        small, squashed = (math.prod(x.meta["shape"]) for x in (left, right)), (_squashed(x) for x in (left, right))
        (a, b), (c, d) = small, squashed
        return (a > b) - (a < b) or d - c

    def _depends(self, node: Node, source: Node) -> bool:
        """Whether a value is computed from another."""
        waiting, seen = [node], {node}
        while waiting:
            inputs = waiting.pop().all_input_nodes
            if source in inputs:
                return True
            waiting += [x for x in inputs if x not in seen]
            seen.update(inputs)
        return False

    @property
    def place(self) -> str:
        """The start of a message: the module that runs now."""
        return f"{self.module}: " if self.module else ""


def _memory(tensor: Tensor) -> int:
    """The address of the memory that a tensor shares with its views."""
    return tensor.untyped_storage().data_ptr()


def regular(node: Node) -> bool:
    """Whether the first dimension of a value counts the images."""
    shape = node.meta["shape"]
    return bool(node.meta["batch"] == 0 and shape and shape[0] == BATCH)


def _squashed(node: Node) -> bool:
    """Whether a value ends in a function such as a sigmoid, perhaps moved, scaled or broadcast."""
    while node.target in (affine, reshape, chain, expand_like, torch.ops.aten.expand.default):
        node = node.all_input_nodes[0]
    return title(node.target) in SQUASHERS


SQUASHERS = {"sigmoid", "hardsigmoid", "tanh", "softmax", "hardtanh", "gt", "ge", "lt", "le"}


def title(target: object) -> str:
    """A readable name of an operation."""
    packet = getattr(target, "overloadpacket", target)
    name = str(getattr(packet, "__name__", packet))
    return TITLES.get(name, name.strip("_"))


TITLES = {"convolution": "conv2d", "addmm": "linear", "native_layer_norm": "layer_norm",
          "native_group_norm": "group_norm"}  # fmt: skip


def _sizes(old: tuple[int, ...], new: tuple[int, ...], batch: int) -> tuple[tuple[Size, ...], int | None, bool]:
    """The sizes of a reshaping, which dimension of the result counts the images, and whether it fits one size only."""
    sizes: list[Size] = []
    place: int | None = None
    sized = False
    for inside, outside in _groups(old, new):
        ones = [i for i in outside if new[i] == 1]
        rest = [i for i in outside if new[i] > 1] or ones[:1]
        part: dict[int, Size] = dict.fromkeys(ones, 1)
        if len(rest) == 1 and inside:
            part[rest[0]] = tuple(inside)
        else:
            part |= {i: new[i] for i in rest}
            sized |= any(i >= 2 or (i == batch and old[i] != BATCH) for i in inside)
        if batch in inside and rest:
            # within a group, the images must come first
            first = next(i for i in inside if old[i] > 1)
            place = rest[0] if first == batch and new[rest[0]] % BATCH == 0 else None
            if len(rest) > 1:
                part[rest[0]] = -1
        sizes += [part[i] for i in outside]
    return tuple(sizes), place, sized


def _groups(old: tuple[int, ...], new: tuple[int, ...]) -> list[tuple[list[int], list[int]]]:
    """The smallest groups of dimensions with equal products; (2, 8, 7, 7) to (2, 8, 49) are 2|2, 8|8, 7 7|49."""
    groups: list[tuple[list[int], list[int]]] = []
    i = j = 0
    while i < len(old) and j < len(new):
        inside, outside = [i], [j]
        i, j = i + 1, j + 1
        while (a := math.prod(old[k] for k in inside)) != (b := math.prod(new[k] for k in outside)):
            if a < b:
                inside.append(i)
                i += 1
            else:
                outside.append(j)
                j += 1
        groups.append((inside, outside))
    if groups:
        groups[-1][0].extend(range(i, len(old)))
        groups[-1][1].extend(range(j, len(new)))
    return groups
