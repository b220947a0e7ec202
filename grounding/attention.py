"""The attention methods by name: which signal goes down, and what is kept of the map that arrives."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from grounding.topdown import Scene

Method = Callable[["Scene", Tensor, Tensor], Tensor]


def mwp(scene: "Scene", signals: Tensor, used: Tensor) -> Tensor:
    """Marginal winning probability (Eq. 1 and 2): a histogram over positions that sums to its signal.

    Args:
        signals: (W, T) over the T tags in use; used: (T,) the indices of these tags.

    Returns:
        (N, W, h, w), >= 0.
    """
    return scene.descend(scene.prior(signals, used))


def contrast(scene: "Scene", signals: Tensor, used: Tensor) -> Tensor:
    """The MWP of the units minus that of their duals, in one pass (Sec. 3.3): (N, W, h, w), sums to 0."""
    return scene.descend(scene.prior(signals, used) - scene.prior(signals, used, dual=True))


def contrastive_mwp(scene: "Scene", signals: Tensor, used: Tensor) -> Tensor:
    """c-MWP: the contrast, truncated at 0 at the very end and nowhere before: (N, W, h, w), >= 0."""
    return contrast(scene, signals, used).clamp(min=0)


METHODS: dict[str, Method] = {"mwp": mwp, "c-mwp": contrastive_mwp}
