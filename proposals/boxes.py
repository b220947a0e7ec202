"""Boxes: proposals that are rectangles."""

import numpy as np
from numba import njit

from proposals.errors import InputError
from proposals.proposals import Proposals
from proposals.segments import SegmentProposer


class Boxes(Proposals):
    """Rectangular proposals.

    A map is integrated over the cells between a box's edges, each rounded to the nearest line of the grid (half a cell
    goes up) and moved apart where nothing would be left; ``mask``, ``areas`` and ``integrate`` all mean these cells.

    Args:
        boxes: (N, 4) xyxy half-open in pixels of the image, best first.
        scores: (N,) non-increasing.
        size: (height, width) of the image; shape: (h, w) of the working grid.

    Raises:
        InputError: boxes and scores do not match, a box is empty or leaves the image, or scores increase.
    """

    def __init__(self, boxes: np.ndarray, scores: np.ndarray, size: tuple[int, int], shape: tuple[int, int]):
        self.boxes, self.scores = np.asarray(boxes, np.float64), np.asarray(scores, np.float64)
        self.size, self.shape = (int(size[0]), int(size[1])), (int(shape[0]), int(shape[1]))
        _check(self.boxes, self.scores, self.size)
        self._cells = self._round()
        x1, y1, x2, y2 = self._cells.T
        self.areas = (x2 - x1) * (y2 - y1) / (self.shape[0] * self.shape[1])

    def mask(self, index: int) -> np.ndarray:
        """The cells of one box: (h, w) bool."""
        x1, y1, x2, y2 = self._cells[index]
        mask = np.zeros(self.shape, bool)
        mask[y1:y2, x1:x2] = True
        return mask

    def _round(self) -> np.ndarray:
        """(N, 4) int64 lines of the grid, each box at least one cell wide and high."""
        limits = np.array([self.shape[1], self.shape[0]])
        lines = np.floor(self.boxes.reshape(-1, 2, 2) * limits / (self.size[1], self.size[0]) + 0.5).astype(np.int64)
        low = np.clip(lines[:, 0], 0, limits - 1)
        high = np.clip(lines[:, 1], low + 1, limits)
        return np.concatenate([low, high], 1)

    def _integrate(self, maps: np.ndarray) -> np.ndarray:
        integral = _integral_images(maps)
        x1, y1, x2, y2 = self._cells.T
        return integral[:, y2, x2] - integral[:, y1, x2] - integral[:, y2, x1] + integral[:, y1, x1]


@njit(cache=True, nogil=True)
def _integral_images(maps):
    """(W, h + 1, w + 1): the mass of each map above and left of each crossing of the grid's lines."""
    count, h, w = maps.shape
    integral = np.zeros((count, h + 1, w + 1))
    for m in range(count):
        for y in range(h):
            row = 0.0
            for x in range(w):
                row += maps[m, y, x]
                integral[m, y + 1, x + 1] = integral[m, y, x + 1] + row
    return integral


class BoxProposer:
    """Proposes the tight boxes of segments (see ``SegmentProposer``) as boxes.

    Args:
        count: the most boxes of an image; side, seed: as in ``SegmentProposer``.
    """

    def __init__(self, count: int = 500, side: int = 300, seed: int = 0):
        self.segments = SegmentProposer(count, side, seed)

    def __call__(self, image: np.ndarray, name: str | None = None) -> Boxes:
        """The boxes of an image (H, W, 3) uint8 RGB; its name is not used.

        Raises:
            InputError: the image has another shape or type.
        """
        found = self.segments(image)
        return Boxes(found.boxes, found.scores, found.size, found.shape)


def _check(boxes: np.ndarray, scores: np.ndarray, size: tuple[int, int]) -> None:
    if boxes.shape != (len(scores), 4):
        raise InputError(f"boxes {boxes.shape} and scores {scores.shape} do not match; give (N, 4) and (N,)")
    inside = (boxes >= 0) & (boxes <= (size[1], size[0], size[1], size[0]))
    if not inside.all() or (boxes[:, :2] >= boxes[:, 2:]).any():
        raise InputError(f"a box is empty or leaves the image {size[1]}x{size[0]}; clip the boxes and drop empty ones")
    if not np.isfinite(scores).all() or (np.diff(scores) > 0).any():
        raise InputError("the scores are not sorted; give boxes best first")
