"""A captured network as a module that is ready for top-down passes."""

from typing import Any

import torch
import torch.fx
from torch import Tensor

from grounding.attention.capture.capture import Captured
from grounding.attention.capture.constants import Constants, channels_last
from grounding.attention.capture.folding import fold
from grounding.attention.capture.negation import negate


def prepare(captured: Captured, constants: Constants) -> torch.fx.GraphModule:
    """The captured network as a module, folded, with weights in the memory format that is fastest.

    Args:
        captured: the network, which is changed.
        constants: keeps what captures of several sizes share.
    """
    constants.share(captured)
    fold(captured, constants)
    negate(captured, constants)
    _erase_unused(captured)
    root: dict[str, Any] = {}
    for name, value in captured.attributes.items():
        four = (
            isinstance(value, Tensor) and value.ndim == 4 and not value.is_contiguous(memory_format=torch.channels_last)
        )
        root[name] = constants.derive(channels_last, value) if four else value
    captured.graph.output(tuple(node for node, _ in captured.outputs))
    used = {str(node.target) for node in captured.graph.nodes if node.op in ("get_attr", "call_module")}
    return torch.fx.GraphModule({name: value for name, value in root.items() if name in used}, captured.graph)


def _erase_unused(captured: Captured) -> None:
    """Erases operations whose value nothing reads, unless a module returns it."""
    kept = {*captured.names.values(), *(node for node, _ in captured.outputs)}
    for node in reversed(list(captured.graph.nodes)):
        if node.op in ("get_attr", "call_function") and not node.users and node not in kept:
            captured.graph.erase_node(node)
