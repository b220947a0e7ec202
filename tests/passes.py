"""Top-down passes for tests that look inside of one."""

import torch
from torch import Tensor, nn

from grounding import TopDown
from grounding.attention.descent import TopDownPass
from grounding.attention.engine.dense import DenseEngine
from grounding.attention.engine.runs import Run
from grounding.attention.engine.sparse import SparseEngine
from grounding.attention.forward import ForwardPass
from grounding.attention.methods import METHODS
from grounding.attention.network import Network


def one_pass(topdown: TopDown, images: Tensor, method: str, engine: type[DenseEngine] = SparseEngine) -> TopDownPass:
    """A pass over all images together. Of several images, signals are dense in either engine."""
    chosen = METHODS[method]
    network = topdown.networks(images)
    forward = ForwardPass(network, chosen.rules(engine()), topdown.targets(network, chosen), images)
    return TopDownPass(forward, Run())


def captured(model: nn.Module, images: Tensor, classifier: str | None = None) -> Network:
    """The captured network of a model."""
    return TopDown(model, classifier=classifier).networks(images)


def assert_same(ours: Tensor, expected: Tensor):
    scale = float(expected.abs().max())
    torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-12 * scale + 1e-14)
