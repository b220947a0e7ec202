"""Folds scales and shifts of channels into the convolution or linear layer before them.

A neuron is a weighted sum together with what follows it up to its nonlinearity. So a batch norm, a layer scale or a
bias after a convolution belongs to the convolution's weights, however it is written.
"""

from typing import Any

import torch
import torch.fx
from torch import Tensor

from grounding.attention.capture.capture import Captured
from grounding.attention.capture.constants import Constants, channels_last, constant_node
from grounding.attention.capture.graph import Node
from grounding.attention.capture.operations import affine

aten = torch.ops.aten
WEIGHTED = (aten.convolution.default, aten.linear.default)


def fold(captured: Captured, constants: Constants) -> None:
    """Folds every scale and shift that follows a weighted layer which nothing else reads.

    Args:
        captured: the network, which is changed.
        constants: keeps the new weights.
    """
    fold_ = _Folding(captured, constants)
    for node in list(captured.graph.nodes):
        if node.target is affine:
            fold_(node)


class _Folding:
    def __init__(self, captured: Captured, constants: Constants):
        self._captured, self._constants, self._count = captured, constants, 0

    def __call__(self, node: Node) -> None:
        """Folds one scale and shift, where that is possible."""
        before = node.args[0]
        assert isinstance(before, Node)
        if before.target not in WEIGHTED or len(before.users) > 1 or before in [n for n, _ in self._captured.outputs]:
            return
        rest = before.args[3:]
        transposed = bool(rest[3]) if len(rest) > 3 else False
        if transposed and rest[5] != 1:
            return
        channels = before.meta["shape"][1 if before.target is WEIGHTED[0] else -1]
        place = len(before.meta["shape"]) - 2 if before.target is WEIGHTED[0] else 0
        scale, shift = (self._channels(value, channels, place, before) for value in node.args[1:3])
        if scale is False or shift is False:
            return
        weight, bias = (self._value(value) for value in before.args[1:3])
        arguments = [
            weight if scale is None else self._constants.derive(_scaled_weight, weight, scale, dim=int(transposed))
        ]
        arguments.append(
            bias
            if scale is None and shift is None
            else self._constants.derive(_folded_bias, weight, bias, scale, shift, channels=channels)
        )
        with self._captured.graph.inserting_before(before):
            before.args = (before.args[0], *(a if a is None else self._node(a) for a in arguments), *rest)
        node.replace_all_uses_with(before)
        self._captured.names.update({path: before for path, named in self._captured.names.items() if named is node})
        self._captured.outputs[:] = [(before if n is node else n, value) for n, value in self._captured.outputs]
        self._captured.graph.erase_node(node)

    def _value(self, argument: Any) -> Any:
        """The tensor of a constant's node; None and numbers unchanged."""
        return self._captured.attributes[str(argument.target)] if isinstance(argument, Node) else argument

    def _channels(self, argument: Any, channels: int, place: int, like: Node) -> Any:
        """A constant as one number per channel; None for no constant, False if it is not of this kind."""
        value = self._value(argument)
        if value is None:
            return None
        weight = self._value(like.args[1])
        value = torch.as_tensor(value, dtype=torch.float64) if not isinstance(value, Tensor) else value
        trailing = value.shape[value.ndim - place :] if place else torch.Size()
        leading = value.shape[: max(0, value.ndim - place - 1)]
        if any(n != 1 for n in (*trailing, *leading)) or value.numel() not in (1, channels):
            return False
        return self._constants.derive(_per_channel, value if isinstance(self._value(argument), Tensor) else weight,
                                      number=None if isinstance(self._value(argument), Tensor) else float(value),
                                      channels=channels, dtype=weight.dtype)  # fmt: skip

    def _node(self, tensor: Tensor) -> Node:
        return constant_node(self._captured, tensor)


def _per_channel(value: Tensor, number: float | None, channels: int, dtype: torch.dtype) -> Tensor:
    whole = value if number is None else torch.full((), number, dtype=dtype, device=value.device)
    return whole.to(dtype).reshape(-1).expand(channels).contiguous()


def _scaled_weight(weight: Tensor, scale: Tensor, dim: int) -> Tensor:
    scaled = weight * scale.view(*[1] * dim, -1, *[1] * (weight.ndim - dim - 1))
    return channels_last(scaled) if scaled.ndim == 4 else scaled


def _folded_bias(
    weight: Tensor, bias: Tensor | None, scale: Tensor | None, shift: Tensor | None, channels: int
) -> Tensor:
    total = weight.new_zeros(channels) if bias is None else bias
    total = total if scale is None else total * scale
    return total if shift is None else total + shift
