"""Records what a model does: runs it once, and builds the graph of the ATen operations that depend on the images.

Python code of the model runs as it is, so control flow, hooks and parametrisations need no support of their own. What
does not depend on the images (a normalised weight, a masked one) is computed and becomes a constant.

In-place operations become operations that return a new value. For this, every tensor that is a view of another one
remembers how it was made: after the memory has changed, its node is computed from the changed value.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from threading import get_ident
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from grounding.attention.capture.forms import normal
from grounding.attention.capture.forms.shapes import permutation
from grounding.attention.capture.graph import GraphBuilder, Like, Node, title
from grounding.attention.capture.operations import refused
from proposals.errors import InputError

aten = torch.ops.aten
# operations whose result has the shape of an argument, but none of its values
SHAPE_ONLY = {aten.zeros_like, aten.ones_like, aten.full_like, aten.empty_like, aten.new_zeros, aten.new_ones,
              aten.new_full, aten.new_empty, aten.new_empty_strided}  # fmt: skip
# operations whose result has no values yet
EMPTY = {aten.empty, aten.new_empty, aten.empty_like, aten.new_empty_strided, aten.empty_strided}
# operations by which Python code reads values, or whose results' shapes depend on values
VALUES = {aten._local_scalar_dense, aten.equal, aten.is_nonzero, aten.allclose, aten.nonzero, aten.masked_select}


ATTRIBUTE = "_grounding_alias"  # of a tensor; a dictionary of tensors would keep all of them in memory


@dataclass
class Memory:
    """A block of memory that depends on the images.

    Attributes:
        node: its present value, in the shape of the tensor that was first in it; None for a constant.
        version: how often it was changed.
    """

    node: Node | None
    version: int = 0


@dataclass
class Alias:
    """A tensor: a block of memory, and the views that lead to the tensor.

    Attributes:
        memory: the block.
        root: the constant that was first in it, or None.
        steps: the views, with their arguments and results' shapes.
        node: its value at ``version``.
        version: the version of the memory.
    """

    memory: Memory
    root: Tensor | None = None
    steps: tuple[tuple[Any, tuple[Any, ...], dict[str, Any], Like], ...] = ()
    node: Node | None = None
    version: int = 0


class Recorder(TorchDispatchMode):
    """While it is active, operations on tensors that depend on the images are added to a graph.

    Args:
        builder: builds the graph.
    """

    def __init__(self, builder: GraphBuilder):
        super().__init__()  # type: ignore[no-untyped-call]
        self.builder = builder
        self.suspended = False
        self._thread = get_ident()
        self._noted: list[Tensor] = []

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # PyTorch's hook: with True, the default, it would import its compiler, which takes seconds
        return False

    @property
    def here(self) -> bool:
        """Whether this is the thread that records. Others may run the same modules at the same time."""
        return get_ident() == self._thread

    def begin(self, images: Tensor) -> None:
        """Makes a tensor the images."""
        node = self.builder.image(images)
        self._set(images, Alias(Memory(node), node=node))

    def node(self, tensor: object) -> Node | None:
        """The node of a tensor's present value, or None if it does not depend on the images."""
        alias = self._get(tensor)
        if alias is None or alias.memory.node is None:
            return None
        if alias.node is None or alias.version != alias.memory.version:
            node = alias.memory.node
            for operation, args, kwargs, like in alias.steps:
                node = self._single(normal(self.builder, operation, like, (node, *args), kwargs))
            alias.node, alias.version = node, alias.memory.version
        return alias.node

    def depends(self, tensor: object) -> bool:
        """Whether a tensor depends on the images. In contrast to ``node``, it may be a view that has no rule."""
        alias = self._get(tensor)
        return alias is not None and alias.memory.node is not None

    def add(self, tensor: Tensor, node: Node) -> None:
        """Makes a node the value of a new tensor."""
        self.builder.type(node, tensor.dtype)
        self._set(tensor, Alias(Memory(node), node=node))

    def _get(self, tensor: object) -> Alias | None:
        recorder, alias = getattr(tensor, ATTRIBUTE, (None, None))
        return alias if recorder is self else None

    def end(self) -> None:
        """Forgets what was noted about constants, which outlive the recorder."""
        for tensor in self._noted:
            tensor.__dict__.pop(ATTRIBUTE, None)

    def _set(self, tensor: Tensor, alias: Alias) -> None:
        if alias.root is not None:
            self._noted.append(tensor)
        setattr(tensor, ATTRIBUTE, (self, alias))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self.suspended:
            return func(*args, **kwargs)
        if torch.is_inference_mode_enabled():  # composite operations arrive whole
            with self:
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        # in evaluation mode, a randomised ReLU writes no noise
        training = kwargs.get("training", (*args, *[False] * 5)[4])
        evaluated = func.overloadpacket is aten.rrelu_with_noise and not training
        # attention draws its dropout only in training
        exact = evaluated or "scaled_dot_product" in func.overloadpacket.__name__
        if not exact and torch.Tag.nondeterministic_seeded in func.tags:
            raise InputError(f"{self.builder.place}{title(func)} draws random numbers, so no two passes are equal: a "
                             "network in evaluation mode must not (F.dropout needs training=False)")  # fmt: skip
        written = [a for a in func._schema.arguments if a.alias_info is not None and a.alias_info.is_write]
        if written and not evaluated:
            return self._change(func, args, kwargs)
        return self._record(func, args, kwargs)

    def _traced(self, *values: Any) -> bool:
        return any(self.node(value) is not None for value in tree_leaves(values) if isinstance(value, Tensor))

    def _record(self, func: Any, args: Any, kwargs: Any) -> Any:
        packet, traced = func.overloadpacket, self._traced(args, kwargs)
        if traced and packet in VALUES:
            raise InputError(f"{self.builder.place}the model's Python code reads values that depend on the image "
                             f"({title(func)}), so it may do something else for another image")  # fmt: skip
        result = func(*args, **kwargs)
        if packet in EMPTY:
            result.zero_()  # so that what is never read is not random
        if packet in SHAPE_ONLY:
            self.builder.sized |= traced and result.ndim > 2
        elif any(a.alias_info is not None for a in func._schema.arguments):
            self._view(func, args, kwargs, result)
        elif traced:
            self._note(result, self._normal(func, result, args, kwargs))
        return result

    def _normal(self, func: Any, result: Any, args: Any, kwargs: Any) -> Any:
        filled, keywords = tree_map(self._filled, (args, kwargs))
        return normal(self.builder, func, result, filled, keywords)

    def _filled(self, value: Any) -> Any:
        node = self.node(value) if isinstance(value, Tensor) else None
        return value if node is None else node

    def _note(self, result: Any, nodes: Node | list[Node]) -> None:
        tensors = [value for value in tree_leaves(result) if isinstance(value, Tensor)]
        nodes = nodes if isinstance(nodes, list) else [nodes]
        for i, tensor in enumerate(tensors):
            # such as the indices of a max pool
            reason = f"{self.builder.place}the second result of {title(nodes[0].target)} has no rule"
            self.add(
                tensor, nodes[i] if i < len(nodes) else self.builder.call(refused, nodes[0], reason, shape=tensor.shape)
            )

    @staticmethod
    def _single(nodes: Node | list[Node]) -> Node:
        return nodes[0] if isinstance(nodes, list) else nodes

    def _view(self, func: Any, args: Any, kwargs: Any, result: Any) -> None:
        """Notes how views were made; the parts of a split are slices."""
        base = args[0]
        alias = self._get(base)
        if alias is None:
            alias = Alias(Memory(None), root=base)
            self._set(base, alias)
        if not isinstance(result, Tensor):
            self._parts(func, args, kwargs, result)
        else:
            self._set(
                result, Alias(alias.memory, alias.root, (*alias.steps, (func, args[1:], kwargs, Like.of(result))))
            )

    def _parts(self, func: Any, args: Any, kwargs: Any, parts: Sequence[Tensor]) -> None:
        unbind = func.overloadpacket is aten.unbind
        place = kwargs.get("dim", (args[1:] or (0,))[0] if unbind else (args[2:] or (0,))[0]) % args[0].ndim
        if self.node(args[0]) is not None:
            self.builder.sized |= place >= 2
        start = 0
        for i, part in enumerate(parts):
            length = 1 if unbind else part.shape[place]
            step = (place, i) if unbind else (place, start, start + length)
            self._view(aten.select.int if unbind else aten.slice.Tensor, (args[0], *step), {}, part)
            start += length

    # In-place operations

    def _change(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Records an in-place operation as one that returns a new value, which the memory then has."""
        schema = func._schema
        target = args[0] if schema.arguments[0].alias_info is not None else kwargs.get("out")
        if not self._traced(args, kwargs):
            if isinstance(target, Tensor):
                self.builder.freeze(target)
            return func(*args, **kwargs)
        functional = getattr(aten, schema.name.split("::")[1].removesuffix("_"), None)
        if not isinstance(target, Tensor) or functional is None or target is not args[0]:
            raise InputError(f"{self.builder.place}{title(func)} writes into a given tensor, which has no rule: use "
                             "the tensor that it returns instead of out=")  # fmt: skip
        try:
            self._adopt(target)
            node = self._changed(functional, func, args, kwargs, target)
        except InputError as error:
            # perhaps a statistic that is only noted, in a buffer without a row for each image
            node = self._refuse(args, kwargs, str(error), target)
        result = func(*args, **kwargs)
        self._write(target, node)
        return result

    def _refuse(self, args: Any, kwargs: Any, reason: str, target: Tensor) -> Node:
        source = next(node for node in map(self.node, tree_leaves((args, kwargs))) if node is not None)
        node = self.builder.call(refused, source, reason, shape=target.shape)
        alias = self._get(target)
        assert alias is not None
        alias.memory.node = alias.memory.node or node
        return node

    def _changed(self, functional: Any, func: Any, args: Any, kwargs: Any, target: Tensor) -> Node:
        like = Like.of(target)
        if functional in (aten.copy, aten.fill, aten.zero):
            value = args[1] if len(args) > 1 else 0
            node = self.node(value)
            full = (
                value if isinstance(value, Tensor) else torch.full((), value, dtype=target.dtype, device=target.device)
            )
            if node is None:
                return self.builder.rows(full.to(target.dtype).expand(target.shape), target.shape)
            return self.builder.expand(node, target.shape)
        overload = getattr(functional, func._overloadname, None)
        if overload is None:
            raise InputError(f"{self.builder.place}{title(func)} changes a shape in place, which has no rule")
        return self._single(self._normal(overload, like, args, kwargs))

    def _adopt(self, target: Tensor) -> None:
        """Makes the memory of a constant depend on the images, before something that does is written into it."""
        alias = self._get(target) or Alias(Memory(None), root=target)
        self._set(target, alias)
        if alias.memory.node is None:
            assert alias.root is not None
            whole = alias.root.detach().clone()
            alias.memory.node = self.builder.rows(whole, whole.shape)
            alias.memory.version += 1

    def _write(self, target: Tensor, node: Node) -> None:
        self._adopt(target)
        alias = self._get(target)
        assert alias is not None
        assert alias.memory.node is not None
        alias.memory.node = self._put(alias.memory.node, alias.steps, node)
        alias.memory.version += 1
        alias.node, alias.version = node, alias.memory.version

    def _put(self, base: Node, steps: Any, new: Node) -> Node:
        """The value of a whole, part of which was replaced."""
        if not steps:
            return new
        if new.target is refused or base.target is refused:
            return new if new.target is refused else base
        (operation, args, kwargs, like), rest = steps[0], steps[1:]
        part = self._single(normal(self.builder, operation, like, (base, *args), kwargs)) if rest else new
        return inverse(self.builder, operation, base, self._put(part, rest, new), args)


def inverse(builder: GraphBuilder, operation: Any, base: Node, new: Node, args: Any) -> Node:
    """The value of which a view was replaced.

    Args:
        builder: the graph.
        operation: the view.
        base: the value before.
        new: the new value of the view.
        args: the arguments of the view after the first one.

    Raises:
        InputError: there is no rule for this view.
    """
    shape, packet = base.meta["shape"], operation.overloadpacket
    like = Like(torch.Size(shape))
    if new.meta["shape"] == shape and packet in (aten.alias, aten.detach, aten.slice, aten.expand):
        return new
    if packet in (aten.view, aten._unsafe_view, aten.squeeze, aten.unsqueeze):
        return builder.reshape(new, shape)
    if packet in (aten.transpose, aten.t):
        return permutation(builder, like, new, *args, operation=operation)
    if packet is aten.permute:
        back = sorted(range(len(shape)), key=lambda i: args[0][i] % len(shape))
        return permutation(builder, like, new, back, operation=operation)
    if packet in (aten.slice, aten.select) and base.meta["batch"] == new.meta["batch"] == 0 and args[0] % len(shape):
        scatter = aten.slice_scatter.default if packet is aten.slice else aten.select_scatter.default
        return builder.call(scatter, base, new, *args, shape=shape)
    raise InputError(f"{builder.place}an in-place change of a view ({title(operation)}) has no rule: use an operation "
                     "that returns a new value")  # fmt: skip
