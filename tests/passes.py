"""Top-down passes for tests that look inside of one."""

from torch import Tensor

from grounding import TopDown
from grounding.attention.descent import TopDownPass
from grounding.attention.engine.dense import DenseEngine
from grounding.attention.engine.runs import Run
from grounding.attention.engine.sparse import SparseEngine
from grounding.attention.forward import ForwardPass
from grounding.attention.methods import METHODS


def one_pass(topdown: TopDown, images: Tensor, method: str, engine: type[DenseEngine] = SparseEngine) -> TopDownPass:
    """A pass over all images together. Of several images, signals are dense in either engine."""
    chosen = METHODS[method]
    forward = ForwardPass(topdown.network, chosen.rules(engine()), topdown.targets(chosen), images)
    return TopDownPass(forward, Run())
