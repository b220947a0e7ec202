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
from scipy import sparse

from proposals.pool import Pool

NEAR, SAME = 0.5, 0.85  # IoU at which a box begins to cover another one, and covers it fully
TOGETHER = 0.85  # IoU at which two boxes stand for one place


def prior(pool: Pool, total: int) -> np.ndarray:
    """(n,) > 0, the belief that a region is an object.

    The product of powers of its share of the ``total`` pixels and of the mean contour strength along its outline, its
    unlikeness to the sibling that it merges with, and a penalty on long thin boxes.
    """
    width, height = (pool.boxes[:, 2:] - pool.boxes[:, :2]).T
    contrast = (pool.outlines[:, 1] + 0.01) / (pool.outlines[:, 0] + 1)
    thin = np.exp(-(np.log(width / height) ** 2) / 4)
    return (pool.sizes / total) ** 0.25 * contrast**2 * (1.05 - pool.likeness) * thin


def choose(pool: Pool, total: int, count: int) -> tuple[sparse.csr_array, np.ndarray]:
    """Chooses up to ``count`` places, and says which regions lie there.

    Args:
        pool: the candidates, of an image of ``total`` pixels.

    Returns:
        (k, n), for each place the voices of the pool's regions there: their belief, times the overlap of their box with
        the chosen one where that is ``TOGETHER`` or more; and (k,) float64 the gains, non-increasing.
    """
    side = pool.boxes.max() + 1
    keys, place = np.unique(pool.boxes @ side ** np.arange(3, -1, -1), return_inverse=True)
    boxes = keys[:, None] // side ** np.arange(3, -1, -1) % side
    belief = prior(pool, total)
    overlaps = neighbours(boxes)
    chosen, gains = most_covering(overlaps, np.bincount(place, belief), min(count, len(boxes)))
    near = overlaps[chosen]
    near.data *= near.data >= TOGETHER
    near.eliminate_zeros()
    regions = sparse.csr_array((belief, (place, np.arange(len(place)))), (len(boxes), len(place)))
    return near @ regions, gains


def most_covering(
    overlaps: sparse.csr_array, weights: np.ndarray, count: int, near: float = NEAR, same: float = SAME
) -> tuple[np.ndarray, np.ndarray]:
    """Chooses ``count`` of n boxes greedily so that they cover most of the weights (n,) >= 0.

    Args:
        overlaps: (n, n), the IoU of the boxes where it is above ``near``: there a box begins to cover another one;
        same: the IoU at which it covers it fully.

    Returns:
        (count,) int64 rows in the order of choice, and (count,) float64 what each adds to the covered weight.
    """
    cover = np.clip((overlaps.data - near) / (same - near), 0, 1)
    return _greedy(overlaps.indptr, overlaps.indices, cover, weights, count)


def neighbours(boxes: np.ndarray, near: float = NEAR) -> sparse.csr_array:
    """The IoU of boxes (n, 4) where it is above ``near``: (n, n)."""
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    order = np.argsort(areas, kind="stable")
    first, second, overlap = _overlapping(boxes[order].astype(np.float32), areas[order].astype(np.float32), near)
    every = np.arange(len(boxes))
    rows = np.concatenate([every, order[first], order[second]])
    columns = np.concatenate([every, order[second], order[first]])
    values = np.concatenate([np.ones(len(boxes), np.float32), overlap, overlap])
    return sparse.csr_array((values, (rows, columns)), (len(boxes), len(boxes)))


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
