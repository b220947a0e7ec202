"""Attention maps: where they come from, how they are blurred, and how they are resized so that their mass stays.

Maps are treated alike everywhere. They keep their signs while they are blurred and resized; what needs mass then sets
negative values to 0. So LRP and CAM, whose maps are signed, have their maximum at one place in the Pointing Game and in
a grounding. The paper blurs the maps of Grad, Deconv and LRP (Sec. 4.1), and does not say that negative relevance is
removed before.
"""

from collections.abc import Callable
from typing import Protocol, cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

SCORES = "scores"  # the name of the score maps in CachedScene.kept


class MapSource(Protocol):
    """Computes attention maps of one image at one target: a ``grounding.attention.topdown.Scene``, or a cache."""

    @property
    def score_maps(self) -> Tensor:
        """``(1, tags, h', w')``, the tagger's scores at each of its positions."""
        ...

    def attend(self, signals: Tensor, method: str, /) -> Tensor | list[Tensor]:
        """Returns the maps ``(1, W, h, w)`` of W words, given as distributions over the tags, ``(W, tags)``."""
        ...


class CachedScene:
    """A ``MapSource`` with the scores and some maps of a photo; it runs the network only for what it lacks.

    Args:
        kept: what is known: the score maps under ``SCORES``, and ``(h, w)`` maps by :func:`map_key`; float32.
        look: runs the forward pass.

    Attributes:
        kept: the scores and maps so far.
    """

    def __init__(self, kept: dict[str, NDArray[np.float32]], look: Callable[[], MapSource]) -> None:
        self.kept, self._look = kept, look
        self._scene: MapSource | None = None

    @property
    def score_maps(self) -> Tensor:
        """``(1, tags, h', w')`` float32, the tagger's scores at each of its positions."""
        if SCORES not in self.kept:
            self.kept[SCORES] = self._computed().score_maps.float().cpu().numpy()
        return torch.from_numpy(self.kept[SCORES])

    def attend(self, signals: Tensor, method: str, /) -> Tensor:
        """Returns the maps of words, as ``Scene.attend`` does.

        Args:
            signals: ``(W, tags)``, each word's distribution over the tags.
            method: the attention method.

        Returns:
            ``(1, W, h, w)`` float32.
        """
        keys = [map_key(method, signal) for signal in signals]
        missing = [number for number, key in enumerate(keys) if key not in self.kept]
        if missing:
            # one tensor, because there is one target
            maps = cast(Tensor, self._computed().attend(signals[missing], method))[0].float().cpu().numpy()
            self.kept |= zip([keys[number] for number in missing], maps, strict=True)
        return torch.from_numpy(np.stack([self.kept[key] for key in keys]))[None]

    def release(self) -> None:
        """Frees the network's activations."""
        self._scene = None

    def _computed(self) -> MapSource:
        self._scene = self._scene or self._look()
        return self._scene


def map_key(method: str, signal: Tensor) -> str:
    """The name of a word's map in a file of the cache: method, tags and their shares: "c-mwp 12:0.25 40:0.75".

    Args:
        method: the attention method.
        signal: ``(tags,)`` float64, the word's distribution over the tags.
    """
    tags = signal.nonzero()[:, 0].tolist()
    return " ".join([method, *(f"{tag}:{share!r}" for tag, share in zip(tags, signal[tags].tolist(), strict=True))])


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
