"""How much of a word's mass arrives at the target, and where the rest is lost.

A neuron passes its mass on to the inputs that excite it. Mass is lost where there are none (Z = 0 in Eq. 2): in a
neuron that only its bias makes positive, in a scale < 0 that is no part of a weighted sum, or in an input below 0 (a
linear bottleneck, a SiLU). Mass also leaves the network at branches that bypass the target.
"""

from dataclasses import dataclass

import torch
import torch.fx
from torch import Tensor

from grounding.attention.descent import TopDownPass
from grounding.attention.engine.runs import Run
from grounding.attention.forward import ForwardPass

Node = torch.fx.Node


class LostMassWarning(UserWarning):
    """Less than half of a word's mass arrives at the target."""


@dataclass(frozen=True)
class Kept:
    """The mass of words.

    Attributes:
        share: ``(N, W)``, the share of each word's mass that arrives at the target, 1 if nothing is lost.
        lost: ``(N, W)`` for each layer at which mass is lost, the largest loss first. The shares that are lost and the
            one that is kept add up to 1.
    """

    share: Tensor
    lost: dict[str, Tensor]

    def __str__(self) -> str:
        """The kept share of each word, and the five layers that lose most."""
        words = ", ".join(f"{share:.1%}" for share in self.share.flatten().tolist())
        layers = [f"{name}: {float(part.mean()):.1%}" for name, part in list(self.lost.items())[:5]]
        return f"kept {words}; lost at {', '.join(layers) or 'no layer'}"


def account(forward: ForwardPass, signals: Tensor, used: Tensor) -> Kept:
    """Sends mass down and balances it at every layer.

    Args:
        forward: images that went through the network by the rules of Excitation Backprop with the dense engine, all
            neurons kept.
        signals: ``(W, T)``, >= 0, over the T tags in use.
        used: ``(T,)``, their indices.
    """
    balance = _Balance(forward, signals, used)
    total = signals.sum(1)
    shares = {name: part / total for name, part in balance.lost.items()}
    order = sorted(shares, key=lambda name: -float(shares[name].mean()))
    # what rounding leaves is no loss
    lost = {name: shares[name] for name in order if float(shares[name].abs().max()) > 1e-6}
    return Kept(balance.kept / total, lost)


class _Balance:
    """One pass, in which the mass that enters each node is compared with the mass that leaves it."""

    def __init__(self, forward: ForwardPass, signals: Tensor, used: Tensor):
        self._forward, self._net = forward, forward.net
        self.lost: dict[str, Tensor] = {}
        begin = TopDownPass(forward, Run()).enter(signals, used)
        waiting: dict[Node, Tensor] = {self._net.features: begin}
        self._lose(self._net.head, signals.sum(1) - self._mass(self._net.features, begin))
        self.kept = torch.zeros_like(self._mass(self._net.features, begin))
        for node, sources, descend in reversed(forward.steps):
            if node not in waiting:
                continue
            g = waiting.pop(node)
            if node in forward.targets:
                self.kept = self.kept + self._mass(node, g)
                continue
            parts = [(s, part) for s, part in zip(sources, descend(g), strict=True) if part is not None]
            arrived = [self._mass(source, part) for source, part in parts]
            self._lose(node, self._mass(node, g) - torch.stack([torch.zeros_like(self.kept), *arrived]).sum(0))
            for source, part in parts:
                waiting[source] = waiting[source] + part if source in waiting else part
        for node, g in waiting.items():
            if node in forward.targets:
                self.kept = self.kept + self._mass(node, g)
            else:
                self._lose(node, self._mass(node, g), " (bypasses the target)")

    def _mass(self, node: Node, g: Tensor) -> Tensor:
        """p = x . g, summed: ``(N, W)``."""
        # a part of the network may have another precision
        x = self._forward.kept[node].z.to(self._net.weight)
        g = g.to(self._net.weight)
        return torch.einsum("nk,nvk->nv", x.flatten(1), g.unflatten(0, (len(x), -1)).flatten(2))

    def _lose(self, node: Node, mass: Tensor, how: str = "") -> None:
        name = self._net.place(node) + how
        self.lost[name] = self.lost.get(name, 0) + mass
