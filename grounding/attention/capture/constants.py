"""The constants of a captured network: its weights, and what is computed from them."""

from typing import Any

import torch
from torch import Tensor

from grounding.attention.capture.capture import Captured
from grounding.attention.capture.graph import Node


class Constants:
    """The constants of the captures of one model. Captures of other sizes share equal tensors and what is computed."""

    def __init__(self) -> None:
        self._known: dict[str, Tensor] = {}
        self._derived: dict[tuple[Any, ...], tuple[Any, Tensor]] = {}

    def share(self, captured: Captured) -> None:
        """Replaces the constants of a capture by equal ones of an earlier capture."""
        for name, value in captured.attributes.items():
            if isinstance(value, Tensor):
                known = self._known.setdefault(name, value)
                same = known.shape == value.shape and known.dtype == value.dtype and torch.equal(known, value)
                captured.attributes[name] = known if same else value

    def derive(self, function: Any, *tensors: Tensor | None, **more: Any) -> Tensor:
        """``function(*tensors, **more)``, computed once for the same tensors."""
        key = (function, *map(id, tensors), *more.items())
        if key not in self._derived:
            # the arguments are kept, too, so that their ids stay theirs
            self._derived[key] = (tensors, function(*tensors, **more))
        return self._derived[key][1]


def constant_node(captured: Captured, tensor: Tensor) -> Node:
    """A node of a constant, at the graph's place of insertion."""
    known = [name for name, value in captured.attributes.items() if value is tensor]
    name = known[0] if known else f"folded_{len(captured.attributes)}"
    captured.attributes[name] = tensor
    node = captured.graph.create_node("get_attr", name, name=name)
    node.meta.update(shape=tuple(tensor.shape), module="")
    return node


def channels_last(weight: Tensor) -> Tensor:
    """The same numbers in the memory format that convolutions are fastest in."""
    return weight.contiguous(memory_format=torch.channels_last)
