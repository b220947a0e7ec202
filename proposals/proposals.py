"""Proposals: the regions of a photo that may hold an object, and the mass of maps inside them."""

from abc import ABC, abstractmethod
from typing import Protocol

import numpy as np

from proposals.errors import InputError


class Proposals(ABC):
    """Regions of one image, best first, on a working grid of (h, w) cells that covers the image.

    Attributes:
        boxes: (N, 4) float64, half-open xyxy in pixels of the input image, the tight box of each region.
        scores: (N,) float64, non-increasing, the proposer's own belief.
        areas: (N,) float64 in (0, 1], A_R, each region's share of the grid.
        size: (height, width) of the input image in pixels.
        shape: (h, w) of the working grid.
    """

    boxes: np.ndarray
    scores: np.ndarray
    areas: np.ndarray
    size: tuple[int, int]
    shape: tuple[int, int]

    def __len__(self) -> int:
        return len(self.scores)

    def integrate(self, maps: np.ndarray) -> np.ndarray:
        """S_R: the mass of each map inside each region.

        Args:
            maps: (W, h, w) float64 on the working grid.

        Returns:
            (W, N) float64, exact up to the rounding of float64 sums.

        Raises:
            InputError: the maps do not lie on the working grid.
        """
        if maps.ndim != 3 or maps.shape[1:] != self.shape:
            raise InputError(f"maps of shape {maps.shape} are not on the grid (W, *{self.shape}); resize them to it")
        return self._integrate(np.ascontiguousarray(maps, np.float64))

    @abstractmethod
    def mask(self, index: int) -> np.ndarray:
        """The cells of one region: (h, w) bool."""

    @abstractmethod
    def _integrate(self, maps: np.ndarray) -> np.ndarray:
        """``integrate`` for contiguous float64 maps on the grid."""


class Proposer(Protocol):
    """What gives an image's proposals: made from its pixels, or read from where they are kept under its name."""

    def __call__(self, image: np.ndarray, name: str | None = None) -> Proposals:
        """The proposals of an image.

        Args:
            image: (H, W, 3) uint8 RGB; name: of the image, its file's without the suffix, where it has one.

        Raises:
            InputError: the image has another shape or type, or nothing is kept under this name.
        """


def check_image(image: np.ndarray) -> None:
    """Raises InputError unless the image is (H, W, 3) uint8 and not empty."""
    if not isinstance(image, np.ndarray):
        raise InputError(f"an image must be an array (H, W, 3) uint8, not {type(image).__name__}; read the file first")
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise InputError(f"an image must be (H, W, 3) uint8 RGB, not {image.shape} {image.dtype}; convert it")
