"""Rectangular proposals."""

import numpy as np
from numba import njit

from proposals.errors import InputError
from proposals.proposals import Proposals
from proposals.segments import SegmentProposer


class Boxes(Proposals):
    """Rectangular proposals.

    On the working grid, each edge of a box is rounded to the nearest grid line (halves are rounded up), and a box
    always keeps at least one cell. ``mask``, ``areas`` and ``integrate`` use these rounded boxes; ``boxes`` keeps the
    exact ones.

    Args:
        boxes: ``(N, 4)`` xyxy in pixels of the image, half-open, sorted by score.
        scores: ``(N,)`` non-increasing.
        size: (height, width) of the image in pixels.
        shape: (h, w) of the working grid in cells.

    Raises:
        InputError: If boxes and scores have different lengths, a box is empty or leaves the image, or the scores are
            not sorted or not finite.
    """

    def __init__(self, boxes: np.ndarray, scores: np.ndarray, size: tuple[int, int], shape: tuple[int, int]):
        self.boxes, self.scores = np.asarray(boxes, np.float64), np.asarray(scores, np.float64)
        self.size, self.shape = (int(size[0]), int(size[1])), (int(shape[0]), int(shape[1]))
        _check(self.boxes, self.scores, self.size)
        self._cells = self._round()
        x1, y1, x2, y2 = self._cells.T
        self.areas = (x2 - x1) * (y2 - y1) / (self.shape[0] * self.shape[1])

    def mask(self, index: int) -> np.ndarray:
        """The cells of one box.

        Args:
            index: number of the box, 0..N-1.

        Returns:
            ``(h, w)`` bool, true inside the rounded box.
        """
        x1, y1, x2, y2 = self._cells[index]
        mask = np.zeros(self.shape, bool)
        mask[y1:y2, x1:x2] = True
        return mask

    def _round(self) -> np.ndarray:
        """Boxes in grid lines, ``(N, 4)`` int64 xyxy, each at least one cell wide and high."""
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
    """Integral images ``(W, h + 1, w + 1)``: the mass of each map above and to the left of each grid point."""
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
    """Proposes the bounding boxes of the segments that ``SegmentProposer`` proposes.

    Args:
        count: maximum number of boxes per image.
        side: pixels of the working grid's shorter side.
        seed: seed of the random keys, see ``SegmentProposer``.

    Raises:
        InputError: If a number is below 1.
    """

    def __init__(self, count: int = 500, side: int = 300, seed: int = 0):
        self.segments = SegmentProposer(count, side, seed)

    def __call__(self, image: np.ndarray, name: str | None = None) -> Boxes:
        """Proposes boxes for one image.

        Args:
            image: ``(H, W, 3)`` uint8 RGB.
            name: ignored.

        Raises:
            InputError: If the image has another shape or type.
        """
        segments = self.segments(image)
        return Boxes(segments.boxes, segments.scores, segments.size, segments.shape)


def _check(boxes: np.ndarray, scores: np.ndarray, size: tuple[int, int]) -> None:
    if boxes.shape != (len(scores), 4):
        raise InputError(f"boxes {boxes.shape} and scores {scores.shape} do not match; pass (N, 4) and (N,)")
    inside = (boxes >= 0) & (boxes <= (size[1], size[0], size[1], size[0]))
    if not inside.all() or (boxes[:, :2] >= boxes[:, 2:]).any():
        raise InputError(f"a box is empty or leaves the image {size[1]}x{size[0]}; clip the boxes and drop empty ones")
    if not np.isfinite(scores).all() or (np.diff(scores) > 0).any():
        raise InputError("the scores must be finite and sorted in descending order; sort the boxes by score")
