"""The two parts of a network: below the targets, where it only computes values, and above them, where signals pass."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch.fx
from torch import Tensor

Node = torch.fx.Node


@dataclass(frozen=True)
class Split:
    """A network in two parts.

    Attributes:
        stem: computes, from the images, the values of ``outputs``.
        outputs: the nodes of the stem that the rest needs, and the targets among them.
        rest: the other nodes, in the order of the forward pass.
        last: for each of these, the nodes whose values are not needed after it.
    """

    stem: Callable[[Tensor], tuple[object, ...]]
    outputs: list[Node]
    rest: list[Node]
    last: dict[Node, list[Node]]


def last_uses(nodes: Sequence[Node], rest: Sequence[Node], kept: set[Node]) -> dict[Node, list[Node]]:
    """The nodes whose values are not needed any more, for each node of a forward pass.

    Args:
        nodes: all nodes that have a value.
        rest: those that are computed one after another.
        kept: the nodes whose values are needed at the end.

    Returns:
        For each node of the rest, the nodes that no later one reads.
    """
    latest = {node: node for node in nodes if node in rest}  # a value that nobody reads is not needed at all
    for node in rest:
        latest |= {source: node for source in node.all_input_nodes if source in nodes}
    found: dict[Node, list[Node]] = {node: [] for node in rest}
    for node, user in latest.items():
        if node not in kept:
            found[user].append(node)
    return found
