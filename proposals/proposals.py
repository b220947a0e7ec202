"""The interface of region proposals, and of the proposers that compute them."""

from abc import ABC, abstractmethod
from typing import Protocol

import numpy as np

from proposals.errors import InputError


class Proposals(ABC):
    """Regions of one image, sorted by score, on a working grid of (h, w) cells that covers the image.

    Attributes:
        boxes: ``(N, 4)`` float64, the tight bounding box of each region: xyxy in pixels of the input image, half-open.
        scores: ``(N,)`` float64, non-increasing, the proposer's own scores.
        areas: ``(N,)`` float64 in (0, 1], A_R: the share of the grid's cells that each region covers.
        size: (height, width) of the input image in pixels.
        shape: (h, w) of the working grid in cells.
    """

    boxes: np.ndarray
    scores: np.ndarray
    areas: np.ndarray
    size: tuple[int, int]
    shape: tuple[int, int]

    def __len__(self) -> int:
        return len(self.scores)

    def integrate(self, maps: np.ndarray) -> np.ndarray:
        """Computes S_R, the mass of each map inside each region.

        Args:
            maps: ``(W, h, w)`` float64 on the working grid.

        Returns:
            ``(W, N)`` float64, exact up to the rounding of float64 sums.

        Raises:
            InputError: If the maps have another shape than the working grid.
        """
        if maps.ndim != 3 or maps.shape[1:] != self.shape:
            raise InputError(f"maps of shape {maps.shape} are not on the grid (W, *{self.shape}); resize them to it")
        return self._integrate(np.ascontiguousarray(maps, np.float64))

    @abstractmethod
    def mask(self, index: int) -> np.ndarray:
        """The cells of one region.

        Args:
            index: number of the region, 0..N-1.

        Returns:
            ``(h, w)`` bool, true inside the region.
        """

    @abstractmethod
    def _integrate(self, maps: np.ndarray) -> np.ndarray:
        """``integrate`` for contiguous float64 maps of the right shape."""


class Proposer(Protocol):
    """Returns the proposals of an image: computes them from its pixels, or reads those stored under its name."""

    def __call__(self, image: np.ndarray, name: str | None = None) -> Proposals:
        """Returns the proposals of one image.

        Args:
            image: ``(H, W, 3)`` uint8 RGB.
            name: file name of the image without its suffix; only proposers that read stored proposals need it.

        Raises:
            InputError: If the image has another shape or type, or if no proposals are stored under its name.
        """


def check_image(image: np.ndarray) -> None:
    """Checks that an image is a non-empty uint8 array of shape ``(H, W, 3)``.

    Args:
        image: the array to check.

    Raises:
        InputError: If the image has another shape or type, or is empty.
    """
    if not isinstance(image, np.ndarray):
        raise InputError(f"an image must be an array (H, W, 3) uint8, not {type(image).__name__}; read the file first")
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise InputError(f"an image must be (H, W, 3) uint8 RGB, not {image.shape} {image.dtype}; convert it")
