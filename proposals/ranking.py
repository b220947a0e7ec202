"""Ranking: the few regions that stand for a whole pool. Nothing here is trained.

The few constants were set by hand, looking at how many annotated boxes of 100 COCO photos and of Flickr30k Entities
`val` were met: figures on those photos are in-sample.

What the merge trees find again and again at about the same place is worth a proposal, and a second proposal beside it
is worth little. So regions are chosen by maximum coverage: each region of the pool is an object with some prior belief,
covered as far as the best chosen box overlaps its own. Coverage is submodular: greedy choice is within 1 - 1/e of the
best (Nemhauser et al., 1978), and its gains never increase, so that they are the scores.
"""

from heapq import heappop, heappushpop

import numpy as np
from numba import njit

from proposals.pool import Pool

NEAR, SAME = 0.3, 0.8  # IoU at which a box begins to cover another one, and covers it fully
BEND = 1.5  # exponent of the cover between the two


def prior(pool: Pool, total: int) -> np.ndarray:
    """(n,) > 0, the belief that a region is an object.

    The product of a power of its share of the ``total`` pixels, the mean contour strength along its outline, its
    unlikeness to the sibling that it merges with, and a penalty on long thin boxes.
    """
    width, height = (pool.boxes[:, 2:] - pool.boxes[:, :2]).T
    contrast = (pool.outlines[:, 1] + 0.01) / (pool.outlines[:, 0] + 1)
    return (pool.sizes / total) ** 0.25 * contrast * (1.05 - pool.likeness) * np.exp(-(np.log(width / height) ** 2) / 4)


def choose(pool: Pool, total: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Chooses up to ``count`` regions, the whole image among them.

    Args:
        pool: the candidates, of an image of ``total`` pixels.

    Returns:
        (k,) int64 the chosen ones, of different boxes, and (k,) float64 their gains, non-increasing.
    """
    boxes, place = np.unique(pool.boxes, axis=0, return_inverse=True)
    largest = np.empty(len(boxes), np.int64)  # of the regions of one box; others are likely to lack a piece
    order = np.argsort(pool.sizes, kind="stable")
    largest[place[order]] = order
    weights = np.bincount(place, prior(pool, total))
    chosen, gains = most_covering(boxes, weights, min(count, len(boxes)))
    chosen = largest[chosen]
    if pool.sizes[chosen].max() < total:
        chosen[-1] = pool.sizes.argmax()
    return chosen, gains


def most_covering(boxes: np.ndarray, weights: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Chooses ``count`` of the boxes (n, 4) greedily so that they cover most of the weights (n,) >= 0.

    Returns:
        (count,) int64 rows in the order of choice, and (count,) float64 what each adds to the covered weight.
    """
    starts, others, overlaps = _neighbours(boxes.astype(np.float32), NEAR)
    cover = np.clip((overlaps - NEAR) / (SAME - NEAR), 0, 1) ** BEND
    return _greedy(starts, others, cover, weights, count)


def _neighbours(boxes: np.ndarray, least: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All pairs of IoU above ``least`` (and each box with itself) as sparse rows: starts (n + 1,), columns, IoU."""
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    order = np.argsort(areas, kind="stable")
    first, second, overlap = _overlapping(boxes[order], areas[order], np.float32(least))
    rows = np.concatenate([order, order[first], order[second]])
    columns = np.concatenate([order, order[second], order[first]])
    values = np.concatenate([np.ones(len(boxes), np.float32), overlap, overlap])
    by_row = np.argsort(rows, kind="stable")
    starts = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=len(boxes)))])
    return starts, columns[by_row], values[by_row]


@njit(cache=True, nogil=True, fastmath=True)
def _overlapping(boxes, areas, least):
    """Pairs i < j of boxes sorted by area whose IoU is above ``least``: a box of area a needs none above a / least."""
    room = 16 * len(boxes) + 16
    first, second, overlap = np.empty(room, np.int64), np.empty(room, np.int64), np.empty(room, np.float32)
    e = 0
    for i in range(len(boxes)):
        x1, y1, x2, y2 = boxes[i]
        # of two boxes i <= j, the common part is at least least / (1 + least) of both areas together
        enough, last = least / (1 + least), areas[i] / least
        for j in range(i + 1, len(boxes)):
            if areas[j] > last:
                break
            width = min(x2, boxes[j, 2]) - max(x1, boxes[j, 0])
            if width <= 0:
                continue
            height = min(y2, boxes[j, 3]) - max(y1, boxes[j, 1])
            if height <= 0 or width * height <= enough * (areas[i] + areas[j]):
                continue
            if e == len(first):
                first = np.concatenate((first, np.empty_like(first)))
                second = np.concatenate((second, np.empty_like(second)))
                overlap = np.concatenate((overlap, np.empty_like(overlap)))
            first[e], second[e] = i, j
            overlap[e] = width * height / (areas[i] + areas[j] - width * height)
            e += 1
    return first[:e], second[:e], overlap[:e]


@njit(cache=True, nogil=True)
def _greedy(starts, others, cover, weights, count):
    """Lazy greedy: gains only shrink, so one that is still the largest when brought up to date is the largest."""
    covered = np.zeros(len(weights), np.float32)
    queue = [(-np.inf, i, -1) for i in range(len(weights))]  # - gain, box, how many were chosen when it was computed
    chosen, gains = np.empty(count, np.int64), np.empty(count)
    for t in range(count):
        loss, i, when = heappop(queue)
        while when != t:
            gain = 0.0
            for k in range(starts[i], starts[i + 1]):
                gain += weights[others[k]] * max(cover[k] - covered[others[k]], 0)
            loss, i, when = heappushpop(queue, (-gain, i, t))
        chosen[t], gains[t] = i, -loss
        for k in range(starts[i], starts[i + 1]):
            covered[others[k]] = max(covered[others[k]], cover[k])
    return chosen, gains
