"""How well proposals cover annotated objects: IoU, recall, average best overlap (ABO).

Regions and objects are compared at the photo's own pixels. A region consists of the pixels whose centres lie in its
cells. Therefore its intersection with an object is an integral: count the object's pixels in each cell, and integrate
these counts over the region.
"""

from collections.abc import Sequence

import numpy as np

from proposals import Proposals

SIZES = {"<1 %": (0, 0.01), "1-10 %": (0.01, 0.1), ">10 %": (0.1, np.inf)}  # of the image's area


def box_overlap(boxes: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Intersection over union of half-open boxes.

    Args:
        boxes: ``(N, 4)`` xyxy.
        truth: ``(M, 4)`` xyxy.

    Returns:
        ``(M, N)`` in [0, 1].
    """
    low = np.maximum(truth[:, None, :2], boxes[None, :, :2])
    high = np.minimum(truth[:, None, 2:], boxes[None, :, 2:])
    shared = (high - low).clip(min=0).prod(2)
    areas = [(b[:, 2:] - b[:, :2]).prod(1) for b in (truth, boxes)]
    return shared / (areas[0][:, None] + areas[1][None] - shared)


def region_overlap(proposals: Proposals, masks: np.ndarray) -> np.ndarray:
    """Intersection over union of proposals and masks.

    Args:
        proposals: N proposals.
        masks: ``(M, H, W)`` bool, at the photo's pixels.

    Returns:
        ``(M, N)`` in [0, 1].
    """
    counts = np.stack([pixels_per_cell(mask, proposals.shape) for mask in masks])
    everything = pixels_per_cell(np.ones(masks.shape[1:], bool), proposals.shape)
    shared, sizes = proposals.integrate(counts), proposals.integrate(everything[None])
    union = masks.sum((1, 2))[:, None] + sizes - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def pixels_per_cell(mask: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Counts the pixels of a mask whose centre lies in each cell of a grid over the photo.

    Args:
        mask: ``(H, W)`` bool.
        shape: (h, w) of the grid.

    Returns:
        ``(h, w)`` float64.
    """
    rows, columns = ((np.arange(n) + 0.5) * cells // n for n, cells in zip(mask.shape, shape, strict=True))
    cells = (rows[:, None] * shape[1] + columns).astype(np.int64)
    return np.bincount(cells[mask], minlength=shape[0] * shape[1]).reshape(shape).astype(float)


def best_among(overlaps: np.ndarray, counts: Sequence[int]) -> np.ndarray:
    """The best overlap of each object with the first proposals.

    Args:
        overlaps: ``(M, N)`` of M objects and N proposals, best proposal first.
        counts: C numbers of proposals.

    Returns:
        ``(M, C)``; 0 for no proposals.
    """
    best = np.maximum.accumulate(np.pad(overlaps, ((0, 0), (1, 0))), 1)
    return best[:, np.minimum(counts, overlaps.shape[1])]


def recall_metrics(best: np.ndarray, shares: np.ndarray) -> dict[str, float | None]:
    """Recall and average best overlap (ABO).

    Args:
        best: ``(M,)`` the best overlap of each object.
        shares: ``(M,)`` each object's share of the image.

    Returns:
        R@.5, R@.7, ABO, ABO by size of object (None for a size without objects), and the mean over sizes.
    """
    by_size = {name: _mean(best[(low <= shares) & (shares < high)]) for name, (low, high) in SIZES.items()}
    found = [value for value in by_size.values() if value is not None]
    return {
        "R@.5": _mean(best >= 0.5),
        "R@.7": _mean(best >= 0.7),
        "ABO": _mean(best),
        **{f"ABO {name}": value for name, value in by_size.items()},
        "ABO sizes": _mean(np.array(found)),
    }


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if len(values) else None
