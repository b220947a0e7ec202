"""Compares a captured network with the model itself, so that a map is never that of another network."""

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
import torch.fx
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from grounding.attention.network import Network
from proposals.errors import InputError


def verify(network: Network, model: nn.Module, image: Tensor) -> None:
    """Checks the logits of a captured network.

    Args:
        network: the network, with the logits that the model returned for the image.
        model: the private copy of the model.
        image: ``(1, C, h, w)``, the image for which the network was captured.

    Raises:
        InputError: they differ by more than rounding; the message names the first layer that differs.
    """
    expected = network.expected
    try:
        logits = dict(zip(network.outputs, network.module(image), strict=True)).get(network.output)
    except RuntimeError as error:
        raise InputError(f"the captured network cannot be run: {str(error).splitlines()[0]}") from error
    if expected is None or logits is None:
        return
    if not close(logits, expected):
        gap = float((logits - expected).abs().max())
        raise InputError(f"the captured network computes other logits than the model (they differ by {gap:.3g}); the "
                         f"first layer that differs is {_first(network, model, image)}. Does the model change from one "
                         "call to the next?")  # fmt: skip


def close(ours: Tensor, expected: Tensor) -> bool:
    """Whether two results differ by rounding only, which grows with the number of layers."""
    if ours.shape != expected.shape:
        return False
    scale = expected.abs().max().clamp(min=1e-30)
    tolerance = 4 * torch.finfo(expected.dtype).eps ** 0.5
    return bool(((ours - expected).abs().max() / scale) <= tolerance)


@torch.no_grad()
def _first(network: Network, model: nn.Module, image: Tensor) -> str:
    """The name of the first module whose output differs."""
    expected = _outputs(model, image)
    values = _Values(network.module)
    values.run(image)
    for node in network.nodes:
        for path, named in network.names.items():
            known = expected.get(path)
            if named is node and known is not None and not close(values.found[node], known):
                return path
    return "its last operation"


def _outputs(model: nn.Module, image: Tensor) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}

    def noting(path: str) -> Callable[..., None]:
        def note(_: object, __: object, output: object) -> None:
            tensors = [t for t in tree_leaves(output) if isinstance(t, Tensor)]
            if tensors:
                found[path] = tensors[0][:1].clone()

        return note

    with ExitStack() as stack:
        for path, module in model.named_modules():
            if path and not isinstance(module, torch.jit.ScriptModule):
                stack.callback(module.register_forward_hook(noting(path)).remove)
        model(image.repeat(2, 1, 1, 1))
    return found


class _Values(torch.fx.Interpreter):
    """Runs a network and keeps all values in ``found``."""

    def __init__(self, module: torch.fx.GraphModule):
        super().__init__(module)
        self.found: dict[torch.fx.Node, Any] = {}

    def run_node(self, n: torch.fx.Node) -> object:
        self.found[n] = super().run_node(n)
        return self.found[n]
