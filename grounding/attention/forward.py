"""The forward pass: the network runs once. Each layer above the targets keeps the function that sends a signal back."""

from collections.abc import Callable
from typing import Any

import torch
import torch.fx
from torch import Tensor

from grounding.attention.engine.dense import Descend
from grounding.attention.layers import RULES, Rule
from grounding.attention.network import Network, is_item, measures
from grounding.attention.neurons import Neurons
from grounding.attention.rules import RuleSet
from grounding.attention.tracing import refusal
from proposals.errors import InputError

Node = torch.fx.Node


class ForwardPass:
    """Images that went through the network, ready for signals to go down.

    Args:
        net: the network.
        rules: one method's rules, with the engine that executes them.
        targets: the nodes whose neurons' mass is wanted.
        images: ``(N, 3, h, w)``, preprocessed.

    Attributes:
        images: N.
        steps: for each node above the targets, in the order of the forward pass: the node, its inputs, and its
            ``descend``; None for a node that picks one of several values.
        neurons: the neurons of each target.
        features: the neurons of the classifier's inputs.
        counts: for nodes whose value is a tuple, the number of its parts.
        scores: ``(N, tags, h', w')``, the classifier's scores at each of its positions.
        logits: ``(N, tags)``, the output of the model.
        density: the share of the neurons above the targets that a signal visits; 0 if the engine always visits all.
        densifies: whether a top-down pass has to turn sparse signals into dense ones; None before the first pass.
    """

    densifies: bool | None = None

    def __init__(self, net: Network, rules: RuleSet, targets: tuple[Node, ...], images: Tensor):
        self.net, self.rules, self.targets, self.images = net, rules, targets, len(images)
        self.steps: list[tuple[Node, list[Node], Descend | None]] = []
        self.neurons: dict[Node, Neurons] = {}
        self.counts: dict[Node, int] = {}
        above, split = net.above(targets), net.split(targets)
        values: dict[Node, object] = {}
        for node, value in zip(split.outputs, split.stem(images), strict=True):
            values[node] = self._note(node, value)
        for node in split.rest:
            values[node] = self._note(node, self._apply(node, values) if node in above else self._run(node, values))
        self.scores = _at_positions(_tensor(values[net.head]))
        self.logits = _logits(_plain(values[net.output]), self.scores)
        self.density = rules.engine.density([value for value in values.values() if isinstance(value, Neurons)])

    def _note(self, node: Node, value: object) -> object:
        """Returns a node's value, and keeps it if the node is a target or the classifier's input."""
        if node in self.targets:
            value = self.rules.target(value) if isinstance(value, Neurons) else self.rules.source(_tensor(value))
            self.neurons[node] = value
        if node is self.net.features:
            self.features = value if isinstance(value, Neurons) else self.rules.source(_tensor(value))
        return value

    def _run(self, node: Node, values: dict[Node, object]) -> object:
        """Computes a node that no signal passes."""
        return self.net.run(node, _filled(node, lambda n: _plain(values[n])))

    def _apply(self, node: Node, values: dict[Node, object]) -> object:
        """Computes a node that signals pass, by its rule."""
        arguments, keywords = _filled(node, lambda n: self._neurons(values[n]))
        sources = [n for n in _arguments(node) if isinstance(values[n], Neurons | Tensor | tuple)]
        if measures(node) or not sources:
            return self._run(node, values)
        if is_item(node):
            self.steps.append((node, sources, None))
            self.counts[sources[0]] = len(arguments[0])
            return arguments[0][arguments[1]]
        value, descend = rule_of(self.net, node)(self.rules, self.net.operation(node), *arguments, **keywords)
        self.steps.append((node, sources, descend))
        return value

    def _neurons(self, value: object) -> object:
        """A value from a branch that bypasses the targets becomes a source. Mass sent into it is discarded."""
        return self.rules.source(value) if isinstance(value, Tensor) else value


def rule_of(net: Network, node: Node) -> Rule:
    """The function of ``grounding.attention.layers`` for a node.

    Raises:
        InputError: the operation has no rule.
    """
    kind = net.kind(node)
    if kind not in RULES:
        raise InputError(f"{node.name}: {refusal(kind)}; choose a target above it, or add a rule with "
                         "grounding.attention.layers.rule")  # fmt: skip
    return RULES[kind]


def _plain(value: object) -> object:
    """The value as the network itself sees it."""
    if isinstance(value, tuple):
        return tuple(map(_plain, value))
    return value.value if isinstance(value, Neurons) else value


def _tensor(value: object) -> Tensor:
    value = _plain(value)
    assert isinstance(value, Tensor)
    return value


def _filled(node: Node, value_of: Callable[[Node], Any]) -> tuple[Any, Any]:
    """A call's positional and keyword arguments, with values in place of nodes."""
    filled: Any = torch.fx.node.map_arg((node.args, node.kwargs), value_of)
    return filled[0], filled[1]


def _arguments(node: Node) -> list[Node]:
    """The nodes among a call's arguments, in order, with repetitions."""
    found: list[Node] = []
    torch.fx.node.map_arg((node.args, node.kwargs), found.append)
    return found


def _at_positions(scores: Tensor) -> Tensor:
    return scores if scores.ndim == 4 else scores[:, :, None, None]


def _logits(output: object, scores: Tensor) -> Tensor:
    fits = isinstance(output, Tensor) and output.shape[:2] == scores.shape[:2]
    logits = output if isinstance(output, Tensor) and fits else scores
    return logits.flatten(2).mean(2) if not fits or logits.ndim > 2 else logits
