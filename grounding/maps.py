"""Operations on attention maps: to blur them, and to resize them so that their mass stays.

Maps are treated alike everywhere. They keep their signs while they are blurred and resized; what needs mass then sets
negative values to 0. So LRP and CAM, whose maps are signed, have their maximum at one place in the Pointing Game and in
a grounding. The paper blurs the maps of Grad, Deconv and LRP (Sec. 4.1), and does not say that negative relevance is
removed before.
"""

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor


class MapSource(Protocol):
    """Computes attention maps of one image at one target: a ``grounding.attention.topdown.Scene``, or a cache."""

    @property
    def score_maps(self) -> Tensor:
        """``(1, tags, h', w')``, the tagger's scores at each of its positions."""
        ...

    def attend(self, signals: Tensor, method: str, /) -> Tensor | list[Tensor]:
        """Returns the maps ``(1, W, h, w)`` of W words, given as distributions over the tags, ``(W, tags)``."""
        ...


def blur(maps: Tensor, share: float = 0.02) -> Tensor:
    """Blurs maps with a Gaussian, as the paper does for Grad, Deconv and LRP (Zhang et al. 2016, Sec. 4.1).

    Args:
        maps: ``(N, W, h, w)``.
        share: the Gaussian's sigma as a share of the longer side of the map.

    Returns:
        ``(N, W, h, w)``.
    """
    # imported here, because torchvision takes longer to import than all the rest, and only a few methods blur
    from torchvision.transforms.v2 import functional as transforms

    sigma = share * max(maps.shape[2:])
    reach = min(int(4 * sigma + 0.5), min(maps.shape[2:]) - 1)
    blurred: Tensor = transforms.gaussian_blur(maps, [2 * reach + 1] * 2, [sigma] * 2) if reach else maps
    return blurred


def resize(maps: Tensor, shape: tuple[int, int]) -> Tensor:
    """Resizes maps bicubically, with the kernel of Pillow and Matlab (Keys 1981, a = -0.5).

    ``F.interpolate`` without ``antialias`` has another kernel (a = -0.75), whose maximum may lie at another pixel.

    Args:
        maps: ``(W, h, w)``.
        shape: (height, width) of the new grid.

    Returns:
        ``(W, *shape)``. The interpolation overshoots, also below 0.
    """
    return F.interpolate(maps[None], shape, mode="bicubic", antialias=True)[0]


def resize_mass(maps: Tensor, shape: tuple[int, int]) -> Tensor:
    """Resizes maps to another grid and keeps the positive mass of each.

    Values below 0 are set to 0 after the interpolation, and then the mass is restored.

    Args:
        maps: ``(W, h, w)``.
        shape: (height, width) of the new grid.

    Returns:
        ``(W, *shape)``, >= 0.
    """
    mass = maps.clamp(min=0).sum((1, 2), keepdim=True)
    resized = resize(maps, shape).clamp(min=0)
    total = resized.sum((1, 2), keepdim=True)
    return resized * torch.where(total > 0, mass / total, 0)
