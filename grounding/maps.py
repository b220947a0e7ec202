"""Operations on attention maps: to blur them, and to resize them so that their mass stays."""

import torch
import torch.nn.functional as F
from torch import Tensor


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


def resize_mass(maps: Tensor, shape: tuple[int, int]) -> Tensor:
    """Resizes maps to another grid and keeps the mass of each.

    Bicubic interpolation undershoots; values below 0 are set to 0 before the mass is restored.

    Args:
        maps: ``(W, h, w)``, >= 0.
        shape: (height, width) of the new grid.

    Returns:
        ``(W, *shape)``, >= 0.
    """
    mass = maps.sum((1, 2), keepdim=True)
    resized = F.interpolate(maps[None], shape, mode="bicubic", antialias=True)[0].clamp(min=0)
    total = resized.sum((1, 2), keepdim=True)
    return resized * torch.where(total > 0, mass / total, 0)
