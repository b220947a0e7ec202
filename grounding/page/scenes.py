"""Scenes of photos that use little memory: the network's activations are kept for the last few photos only."""

import math
import threading
from collections.abc import Sequence
from typing import cast
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from grounding.attention.methods import IMAGE, METHODS
from grounding.attention.topdown import Scene
from grounding.grounder import Grounder
from grounding.page.limits import Limits
from grounding.scene import GroundingScene
from grounding.tagger.preprocessing import SMALLEST_SIDE

WIDEST = 3  # longer side / shorter side of the photos that the network sees in full detail
SLOW_WORDS_AT_ONCE = 2  # each takes about 100 MB


def is_slow(method: str) -> bool:
    """Whether a method propagates dense signals down to the image, which takes about 0.5 s and 100 MB for each word.

    Args:
        method: a name in ``METHODS``.

    Returns:
        True if it does.
    """
    return METHODS[method].target == IMAGE


def max_words(method: str, limits: Limits) -> int:
    """The number of different words that a request may have.

    Args:
        method: a name in ``METHODS``.
        limits: ``words`` and ``slow_words`` are used.

    Returns:
        The maximum number of words.
    """
    return limits.slow_words if is_slow(method) else limits.words


def seen_size(shape: Sequence[int], side: int) -> list[int]:
    """The size at which the server's network sees a photo: at most the pixels of one of 3:1, so that memory is limited.

    Args:
        shape: height and width of the photo in pixels.
        side: the shorter side of the result in pixels, for a photo up to 3:1.

    Returns:
        ``[side]``; for a longer photo ``[height, width]``. Its shorter side is reduced, but not below
        ``SMALLEST_SIDE``. Beyond this, the photo is squeezed along its longer side.
    """
    short, long = sorted(shape)
    if long <= WIDEST * short:
        return [side]
    most = WIDEST * side * side
    reduced = max(min(side, SMALLEST_SIDE), math.isqrt(most * short // long))
    longer = min(most // reduced, reduced * long // short)
    return [reduced, longer] if shape[0] < shape[1] else [longer, reduced]


class SceneCache:
    """Makes scenes as ``Grounder.look`` does, and keeps the activations of the last few photos only.

    The activations of a square photo take 95 MB. Each :class:`GroundingScene` keeps the photo, its proposals and the
    maps of the words so far. A new word for a photo without activations needs another forward pass.

    Args:
        grounder: has the network and the proposer.
        size: number of photos whose activations are kept.
    """

    def __init__(self, grounder: Grounder, size: int) -> None:
        self._grounder, self._size = grounder, size
        # weak references: the activations of a photo are dropped together with the photo
        self._recent: WeakKeyDictionary[LazyScene, Scene] = WeakKeyDictionary()
        self._lock = threading.Lock()

    def look(self, pixels: np.ndarray) -> GroundingScene:
        """Makes the scene of a photo.

        Args:
            pixels: ``(H, W, 3)`` uint8 RGB.

        Returns:
            The scene, with proposals. The forward pass follows with the first word.
        """
        grounder = self._grounder
        proposals, lazy = grounder.proposer(pixels), LazyScene(self, pixels)
        return GroundingScene(pixels, proposals, lazy, grounder.tagger, grounder.topdown, grounder.settings)

    def activations(self, lazy: "LazyScene", method: str) -> Scene:
        """The network's activations for a photo, from the cache or by a forward pass.

        Those for a slow method are never kept, because they are the largest and the least requested.

        Args:
            lazy: the photo.
            method: a name in ``METHODS``.

        Returns:
            The activations.
        """
        if is_slow(method):
            return self._forward(lazy, method)
        with self._lock:
            scene = self._recent.pop(lazy, None)
        scene = scene or self._forward(lazy, "c-mwp")
        with self._lock:
            self._recent[lazy] = scene
            while len(self._recent) > self._size:
                del self._recent[next(iter(self._recent.keys()))]
        return scene

    def _forward(self, lazy: "LazyScene", method: str) -> Scene:
        size = seen_size(lazy.pixels.shape[:2], self._grounder.settings.side)
        prepared = self._grounder.tagger.prepare(lazy.pixels, size)
        return self._grounder.topdown.look(prepared, method)


class LazyScene:
    """Computes maps as ``Scene`` does, and gets the activations from a cache.

    Args:
        cache: keeps the activations.
        pixels: ``(H, W, 3)`` uint8 RGB, the photo.
    """

    def __init__(self, cache: SceneCache, pixels: np.ndarray) -> None:
        self._cache, self.pixels = cache, pixels

    @property
    def score_maps(self) -> Tensor:
        """``(1, tags, h', w')``, the tagger's scores at each of its positions. They take megabytes, and a scene reads
        them once, so they are not kept.
        """
        return self._cache.activations(self, "c-mwp").score_maps

    def attend(self, signals: Tensor, method: str, /) -> Tensor:
        """The attention maps of words.

        Args:
            signals: ``(W, tags)``, each word's distribution over the tags.
            method: a name in ``METHODS``.

        Returns:
            ``(1, W, h, w)``, as ``Scene.attend`` returns them.
        """
        scene = self._cache.activations(self, method)
        parts = signals.split(SLOW_WORDS_AT_ONCE) if is_slow(method) else [signals]
        return torch.cat([cast(Tensor, scene.attend(part, method)) for part in parts], 1)
