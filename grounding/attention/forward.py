"""The forward pass: the network runs once. Each layer above the targets keeps the function that sends a signal back."""

import operator
from collections.abc import Callable
from typing import Any

import torch
import torch.fx
from torch import Tensor

from grounding.attention.engine.dense import Descend
from grounding.attention.layers import Rule, differentiated, reason
from grounding.attention.network import Network
from grounding.attention.neurons import Neurons
from grounding.attention.rules import RuleSet
from proposals.errors import InputError

Node = torch.fx.Node


class ForwardPass:
    """Images that went through the network, ready for signals to go down.

    Args:
        net: the network.
        rules: one method's rules, with the engine that executes them.
        targets: the nodes whose neurons' mass is wanted.
        images: ``(N, C, h, w)``, preprocessed.
        keep: whether to keep the neurons of all nodes that a signal can reach.

    Attributes:
        images: N.
        kept: these neurons, if ``keep``.
        steps: for each node above the targets, in the order of the forward pass: the node, its inputs, and its
            ``descend``.
        neurons: the neurons of each target.
        features: the neurons of the classifier's inputs.
        averaged: ``(N, C, h, w)``, the values of ``net.average``; None if there is no such layer, or if it is below the
            targets.
        scores: ``(N, tags, h', w')``, the classifier's scores at each of its positions.
        logits: ``(N, tags)``, the output of the model.
        density: the share of the neurons above the targets that a signal visits; 0 if the engine always visits all.
        densifies: whether a top-down pass has to turn sparse signals into dense ones; None before the first pass.
    """

    averaged: Tensor | None = None
    densifies: bool | None = None

    def __init__(self, net: Network, rules: RuleSet, targets: tuple[Node, ...], images: Tensor, keep: bool = False):
        self.net, self.rules, self.targets, self.images = net, rules, targets, len(images)
        self.steps: list[tuple[Node, list[Node], Descend]] = []
        self.neurons: dict[Node, Neurons] = {}
        gates = rules.differentiable
        above, split = net.above(targets, gates), net.split(targets, gates)
        values: dict[Node, object] = {}
        self._active, self._all = 0, 0
        for node, value in zip(split.outputs, split.stem(images), strict=True):
            values[node] = self._note(node, value)
        for node in split.rest:
            values[node] = self._note(node, self._apply(node, values) if node in above else self._run(node, values))
            # all values together would take the most memory of a photo
            for used in [] if keep else split.last[node]:
                del values[used]
        self.scores = _at_positions(_tensor(values[net.head]))
        self.logits = _logits(_plain(values[net.output]))
        above_or_source = {n for node, sources, _ in self.steps for n in (node, *sources)} | {net.features}
        self.kept = {n: self._whole(values[n]) for n in above_or_source} if keep else {}
        self.density = self._active / max(1, self._all)

    def _note(self, node: Node, value: object) -> object:
        """Returns a node's value, and keeps it if the node is a target or the classifier's input."""
        if node in self.targets:
            value = self.rules.target(value) if isinstance(value, Neurons) else self.rules.source(_tensor(value))
            self.neurons[node] = value
        if node is self.net.average:
            self.averaged = _tensor(value)
        if node is self.net.features:
            self.features = value if isinstance(value, Neurons) else self.rules.source(_tensor(value))
        if isinstance(value, Neurons):
            active, number = self.rules.engine.visited(value)
            self._active, self._all = self._active + active, self._all + number
        return value

    def _run(self, node: Node, values: dict[Node, object]) -> object:
        """Computes a node that no signal passes."""
        return self.net.run(node, self._filled(node, lambda n: _plain(values.get(n))))

    def _apply(self, node: Node, values: dict[Node, object]) -> object:
        """Computes a node that signals pass, by its rule."""
        arguments, keywords = self._filled(node, lambda n: self._neurons(values.get(n)))
        found = _arguments(node)
        sources = [n for n in found if n.op != "get_attr" and isinstance(self._neurons(values.get(n)), Neurons)]
        value, descend = self._rule(node)(self.rules, self.net.operation(node), *arguments, **keywords)
        self.steps.append((node, sources, descend))
        return value

    def _whole(self, value: object) -> Neurons:
        return value if isinstance(value, Neurons) else self.rules.source(_tensor(value))

    def _rule(self, node: Node) -> Rule:
        if self.rules.differentiable and self.net.rule(node) is None:
            return differentiated
        return rule_of(self.net, node)

    def _neurons(self, value: object) -> object:
        """A value from a branch that bypasses the targets becomes a source. Mass sent into it is discarded."""
        floats = isinstance(value, Tensor) and value.is_floating_point()
        return self.rules.source(value) if isinstance(value, Tensor) and floats else value

    def _filled(self, node: Node, value_of: Callable[[Node], Any]) -> tuple[Any, Any]:
        """A call's positional and keyword arguments, with values in place of nodes."""

        def filled(n: Node) -> Any:
            return self.net.constant(n) if n.op == "get_attr" else value_of(n)

        arguments: Any = torch.fx.node.map_arg((node.args, node.kwargs), filled)
        return arguments[0], arguments[1]


def rule_of(net: Network, node: Node) -> Rule:
    """The function of ``grounding.attention.layers`` for a node.

    Raises:
        InputError: the operation has no rule.
    """
    rule = net.rule(node)
    if rule is None:
        node = node.all_input_nodes[0] if node.target is operator.getitem else node
        raise InputError(f"{net.place(node)}: {reason(net.kind(node))}; choose a target above it, or add a rule with "
                         "grounding.attention.layers.rule")  # fmt: skip
    return rule


def _plain(value: object) -> object:
    """The value as the network itself sees it."""
    if isinstance(value, tuple):
        return tuple(map(_plain, value))
    return value.value if isinstance(value, Neurons) else value


def _tensor(value: object) -> Tensor:
    value = _plain(value)
    assert isinstance(value, Tensor)
    return value


def _arguments(node: Node) -> list[Node]:
    """The nodes among a call's arguments, in order, with repetitions."""
    found: list[Node] = []
    torch.fx.node.map_arg((node.args, node.kwargs), found.append)
    return found


def _at_positions(scores: Tensor) -> Tensor:
    return scores if scores.ndim == 4 else scores[:, :, None, None]


def _logits(output: object) -> Tensor:
    logits = _tensor(output)
    return logits.flatten(2).mean(2) if logits.ndim > 2 else logits
