"""Ranking: selects the regions of a pool that become proposals. Nothing is trained.

Many similar regions at one place suggest an object there, but more than one proposal for them is of little use. Boxes
are therefore selected by maximum coverage: each region of the pool has a weight, its objectness, and a selected box
covers the regions whose boxes overlap it. Coverage is a submodular function, so that greedy selection reaches at least
1 - 1/e of the optimum (Nemhauser et al., 1978) and its gains never increase; the gains are the scores.

The constants were set by hand for the recall of annotated boxes on 100 photos of COCO and on the `val` split of
Flickr30k Entities. Results on these photos are therefore in-sample.
"""

from heapq import heappop, heappushpop

import numpy as np
from numba import njit
from scipy import sparse

from proposals.pool import Pool

MIN_IOU, FULL_IOU = 0.5, 0.85  # IoU at which a box begins to cover another one, and at which it covers it fully
GROUP_IOU = 0.85  # IoU from which a region belongs to the group of a selected box


def objectness(pool: Pool, total: int) -> np.ndarray:
    """How likely each region is an object, up to a factor.

    The product of four terms: a power of the region's share of the image, a power of the mean contour strength along
    its outline, its dissimilarity to the sibling that it merges with, and a penalty on long thin boxes.

    Args:
        pool: the n regions.
        total: pixels of the image.

    Returns:
        ``(n,)`` float64 > 0.
    """
    width, height = (pool.boxes[:, 2:] - pool.boxes[:, :2]).T
    contrast = (pool.outlines[:, 1] + 0.01) / (pool.outlines[:, 0] + 1)
    thin = np.exp(-(np.log(width / height) ** 2) / 4)
    return (pool.sizes / total) ** 0.25 * contrast**2 * (1.05 - pool.similarity) * thin


def choose(pool: Pool, total: int, count: int) -> tuple[sparse.csr_array, np.ndarray]:
    """Selects up to ``count`` boxes, and groups the regions around each of them.

    Args:
        pool: the n candidate regions.
        total: pixels of the image.
        count: maximum number of boxes.

    Returns:
        groups: ``(k, n)`` float64 sparse, the weight of each region in each group: its objectness times the IoU of its
            box with the selected box, or 0 where the IoU is below ``GROUP_IOU``.
        gains: ``(k,)`` float64, non-increasing, the scores of the selected boxes.
    """
    side = pool.boxes.max() + 1
    keys, place = np.unique(pool.boxes @ side ** np.arange(3, -1, -1), return_inverse=True)
    boxes = keys[:, None] // side ** np.arange(3, -1, -1) % side
    weights = objectness(pool, total)
    overlaps = pairwise_iou(boxes)
    chosen, gains = greedy_coverage(overlaps, np.bincount(place, weights), min(count, len(boxes)))
    near = overlaps[chosen]
    near.data *= near.data >= GROUP_IOU
    near.eliminate_zeros()
    regions = sparse.csr_array((weights, (place, np.arange(len(place)))), (len(boxes), len(place)))
    return near @ regions, gains


def greedy_coverage(
    overlaps: sparse.csr_array, weights: np.ndarray, count: int, min_iou: float = MIN_IOU, full_iou: float = FULL_IOU
) -> tuple[np.ndarray, np.ndarray]:
    """Selects boxes greedily, each time the one that adds most to the covered weight.

    A selected box covers another box by a share that grows linearly from 0 at an IoU of ``min_iou`` to 1 at an IoU of
    ``full_iou``. A box counts as covered by the largest share over all selected boxes.

    Args:
        overlaps: ``(n, n)`` sparse, the IoU of the boxes where it is above ``min_iou``.
        weights: ``(n,)`` float >= 0, the weight of each box.
        count: number of boxes to select, at most n.
        min_iou: IoU at which a box begins to cover another one, see ``pairwise_iou``.
        full_iou: IoU at which it covers it fully.

    Returns:
        chosen: ``(count,)`` int64, the selected boxes in the order of selection.
        gains: ``(count,)`` float64, the weight that each of them adds, non-increasing.
    """
    cover = np.clip((overlaps.data - min_iou) / (full_iou - min_iou), 0, 1)
    return _greedy(overlaps.indptr, overlaps.indices, cover, weights, count)


def pairwise_iou(boxes: np.ndarray, min_iou: float = MIN_IOU) -> sparse.csr_array:
    """Intersection over union of all pairs of boxes that overlap enough.

    Args:
        boxes: ``(n, 4)`` xyxy.
        min_iou: IoU that a pair must exceed to be stored.

    Returns:
        ``(n, n)`` float32, sparse and symmetric, with ones on the diagonal.
    """
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    order = np.argsort(areas, kind="stable")
    first, second, overlap = _overlapping(boxes[order].astype(np.float32), areas[order].astype(np.float32), min_iou)
    every = np.arange(len(boxes))
    rows = np.concatenate([every, order[first], order[second]])
    columns = np.concatenate([every, order[second], order[first]])
    values = np.concatenate([np.ones(len(boxes), np.float32), overlap, overlap])
    return sparse.csr_array((values, (rows, columns)), (len(boxes), len(boxes)))


@njit(cache=True, nogil=True, fastmath=True)
def _overlapping(boxes, areas, least):
    """Pairs i < j with an IoU above ``least``, of boxes sorted by area.

    A box of area a can only overlap that much with boxes of an area up to a / least.
    """
    room = 16 * len(boxes) + 16
    first, second, overlap = np.empty(room, np.int64), np.empty(room, np.int64), np.empty(room, np.float32)
    e = 0
    for i in range(len(boxes)):
        x1, y1, x2, y2 = boxes[i]
        # IoU > least is the same as intersection > least / (1 + least) * (sum of both areas)
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
    """Lazy greedy selection: gains only decrease, so that the first up-to-date gain of the queue is the largest."""
    covered = np.zeros(len(weights), np.float32)
    queue = [
        (-np.inf, i, -1) for i in range(len(weights))
    ]  # negative gain, box, boxes selected when the gain was computed
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
