"""Negations of weighted sums, for scales that are negative and could not be folded.

Where a sum is multiplied by s < 0, the inputs with negative weights can win. For this, the graph gets a second sum,
with negated weights. The signal of elements with a negative scale goes to the second sum, all other signals to the
first.
"""

from typing import Any

import torch
import torch.fx

from grounding.attention.capture.capture import Captured
from grounding.attention.capture.constants import Constants, constant_node
from grounding.attention.capture.folding import WEIGHTED
from grounding.attention.capture.graph import Node
from grounding.attention.capture.operations import affine, chain, expand_like, product, reshape, signed_affine

aten = torch.ops.aten
# operations through which a negation passes
LINEAR = (affine, signed_affine, product, reshape, chain, expand_like, aten.add.Tensor, aten.cat.default,
          aten.permute.default, aten.slice.Tensor, aten.select.int, aten.expand.default, aten.mean.dim,
          aten.sum.dim_IntList, aten.avg_pool2d.default, aten._adaptive_avg_pool2d.default, aten.flip.default,
          aten.roll.default, aten.pixel_shuffle.default, aten.upsample_nearest2d.default,
          aten.upsample_bilinear2d.default)  # fmt: skip


def negate(captured: Captured, constants: Constants) -> None:
    """Gives every scale that could not be folded, and is negative somewhere, the negation of its input."""
    negations = Negations(captured, constants)
    for node in list(captured.graph.nodes):
        if node.target is affine and negations.has_negative(node):
            x, scale, shift = node.args
            assert isinstance(x, Node)
            if negations.is_sum(x):
                with captured.graph.inserting_before(node):
                    node.target, node.args = signed_affine, (x, negations.of(x), scale, shift)


class Negations:
    """Builds the negation of weighted sums: a sum with negated weights, so that the inputs that lower it can win.

    Args:
        captured: the network, to which nodes are added.
        constants: keeps the negated weights.
    """

    def __init__(self, captured: Captured, constants: Constants):
        self._captured, self._constants = captured, constants
        self._known: dict[Node, Node] = {}

    def _value(self, argument: Any) -> Any:
        return self._captured.attributes[str(argument.target)] if isinstance(argument, Node) else argument

    def has_negative(self, node: Node) -> bool:
        """Whether a scale is negative somewhere."""
        scale = self._value(node.args[1])
        return scale is not None and bool((torch.as_tensor(scale) < 0).any())

    def is_sum(self, node: Node) -> bool:
        """Whether a value is made of weighted sums without a nonlinearity after them."""
        if node.target in WEIGHTED:
            return True
        return node.target in LINEAR and any(self.is_sum(n) for n in node.all_input_nodes)

    def of(self, node: Node) -> Node:
        """The negation of a value."""
        if node not in self._known:
            negated = self._negated(node)
            negated.meta.update(node.meta, negated=True)
            self._known[node] = negated
        return self._known[node]

    def _negated(self, node: Node) -> Node:
        graph, target, args = self._captured.graph, node.target, node.args
        if target in WEIGHTED:
            weights = [a and self._constant(a) for a in args[1:3]]
            return graph.call_function(target, (args[0], *weights, *args[3:]))
        if target in LINEAR and self.is_sum(node):
            inputs = [n for n in node.all_input_nodes if n.op != "get_attr"]
            turned = {n: self.of(n) for n in (inputs[:1] if target is product else inputs)}
            parts: Any = torch.fx.node.map_arg(args, lambda n: turned.get(n, n))
            if target in (affine, signed_affine):
                x, scale, shift = args[0], *args[-2:]
                assert isinstance(x, Node)
                scale = -1 if scale is None else self._constant(scale)
                return graph.call_function(signed_affine, (x, self.of(x), scale, shift and self._constant(shift)))
            return graph.call_function(target, parts, node.kwargs)
        return graph.call_function(affine, (node, -1, None))

    def _constant(self, argument: Any) -> Any:
        """The negation of a constant."""
        if not isinstance(argument, Node):
            return -argument
        return constant_node(self._captured, self._constants.derive(torch.neg, self._value(argument)))
