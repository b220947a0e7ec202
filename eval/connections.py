"""The number of multiply-adds of a top-down signal, from which the benchmark computes a lower bound of the time."""

import numpy as np
import torch
import torch.fx
import torch.nn.functional as F
from torch import Tensor

from grounding import TopDown
from grounding.attention.descent import TopDownPass
from grounding.attention.engine.runs import Run
from grounding.attention.engine.sparse import SparseEngine, SparseSignal
from grounding.attention.engine.winners import Winners
from grounding.attention.forward import ForwardPass
from grounding.attention.methods import METHODS
from grounding.attention.weights import Geometry


@torch.no_grad()
def node_values(topdown: TopDown, image: Tensor) -> dict[torch.fx.Node, Tensor]:
    """The output of each node of the captured network.

    Args:
        topdown: holds the network.
        image: ``(1, 3, H, W)``.
    """
    interpreter = torch.fx.Interpreter(topdown.networks(image).module, garbage_collect_values=False)
    interpreter.run(image)
    return interpreter.env


def multiply_adds(target: str, topdown: TopDown, image: Tensor) -> int:
    """The multiply-adds of one dense top-down signal, from the classifier's input to the target.

    Args:
        target: the name of the layer of the maps.
        topdown: holds the network.
        image: ``(1, 3, H, W)``.
    """
    network, values = topdown.networks(image), node_values(topdown, image)
    weighted = (torch.ops.aten.convolution, torch.ops.aten.linear)
    layers = [n for n in network.above((network.find(target),)) if network.kind(n) in weighted]
    return sum(values[n].numel() * network.constant(n.args[1])[0].numel() for n in layers)


def winning_connections(topdown: TopDown, image: Tensor) -> int:
    """The multiply-adds of one sparse top-down signal: connections whose two neurons are both winners.

    Args:
        topdown: holds the network.
        image: ``(1, 3, H, W)``.
    """
    chosen, engine = METHODS["mwp"], CountingEngine()
    network = topdown.networks(image)
    forward = ForwardPass(network, chosen.rules(engine), topdown.targets(network, chosen), image)
    with torch.no_grad():
        chosen.maps(TopDownPass(forward, Run()), torch.ones(1, 1), torch.tensor([0]))
    return engine.connections


class CountingEngine(SparseEngine):
    """A sparse engine that counts the connections between winners.

    Attributes:
        connections: their number.
    """

    connections = 0

    def convolve(self, g: SparseSignal, weight: Tensor, geometry: Geometry, winners: Winners) -> SparseSignal:
        """Counts the connections, then does what the sparse engine does."""
        above, below = (
            torch.from_numpy(np.diff(w.layout[0])).double().view(1, 1, *w.layout[3:]) for w in (g.winners, winners)
        )
        window = torch.ones(1, 1, *weight.shape[2:], dtype=torch.float64)
        self.connections += int((F.conv2d(below, window, None, *geometry) * above).sum())
        return super().convolve(g, weight, geometry, winners)
