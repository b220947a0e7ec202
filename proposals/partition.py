"""Partitions of an image into regions by graph segmentation (Felzenszwalb & Huttenlocher, IJCV 2004).

The superpixels are the regions of the common refinement of several partitions, so that every region of every partition
is a set of superpixels.
"""

from collections.abc import Sequence

import numpy as np
from numba import njit

BINS = 4096  # of the counting sort of edge weights; weights that fall into one bin keep the raster order


def graph_segmentations(
    image: np.ndarray, scales: Sequence[float], min_size: int, max_regions: int
) -> list[np.ndarray]:
    """Segments one image at several scales with the algorithm of Felzenszwalb and Huttenlocher.

    Edges join 8-connected pixels and are weighted by the distance of their colours. They are visited in ascending
    order; an edge merges its two regions if its weight is at most the internal difference of each region plus
    scale / size (Eq. 3-5 of the paper). Afterwards each region below ``min_size`` is merged with its nearest neighbour.

    Args:
        image: ``(h, w, c)`` float32.
        scales: the paper's k, in units of the image's values.
        min_size: pixels of the smallest region; doubled until at most ``max_regions`` regions remain.
        max_regions: maximum number of regions per segmentation.

    Returns:
        One label map for each scale, ``(h, w)`` int32 with labels 0..n-1.
    """
    first, second, weights = _edges(np.ascontiguousarray(image, np.float32))
    order = _counting_sort(weights, max(float(weights.max(initial=0)), 1e-6))
    first, second, weights = first[order], second[order], weights[order]
    shape = image.shape[:2]
    maps = [_merge(shape[0] * shape[1], first, second, weights, float(k), min_size, max_regions) for k in scales]
    return [labels.reshape(shape) for labels in maps]


@njit(cache=True, nogil=True)
def _edges(image):
    """Edges of the 8-connected grid in raster order, with the Euclidean distance of their pixels' colours."""
    h, w, channels = image.shape
    count = h * (w - 1) + (h - 1) * w + 2 * (h - 1) * (w - 1)
    first, second = np.empty(count, np.int32), np.empty(count, np.int32)
    weights = np.empty(count, np.float32)
    e = 0
    for y in range(h):
        for x in range(w):
            for dy, dx in ((0, 1), (1, 0), (1, 1), (1, -1)):
                v, u = y + dy, x + dx
                if v < h and 0 <= u < w:
                    total = np.float32(0)
                    for c in range(channels):
                        difference = image[y, x, c] - image[v, u, c]
                        total += difference * difference
                    first[e], second[e], weights[e] = y * w + x, v * w + u, np.sqrt(total)
                    e += 1
    return first, second, weights


@njit(cache=True, nogil=True)
def _counting_sort(values, most):
    """The ascending order of values in 0..most; values of the same bin keep their order."""
    starts, order = np.zeros(BINS + 1, np.int64), np.empty(len(values), np.int64)
    scale = (BINS - 1) / most
    for i in range(len(values)):
        starts[int(values[i] * scale) + 1] += 1
    for b in range(BINS):
        starts[b + 1] += starts[b]
    for i in range(len(values)):
        b = int(values[i] * scale)
        order[starts[b]] = i
        starts[b] += 1
    return order


@njit(cache=True, nogil=True)
def _root(parent, i):
    """The root of i in a disjoint-set forest; halves the path on the way."""
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return i


@njit(cache=True, nogil=True)
def _merge(n, first, second, weights, scale, min_size, max_regions):
    """Labels of n pixels, from the sorted edges between them."""
    parent, size = np.arange(n), np.ones(n, np.int64)
    threshold = np.full(n, scale)
    regions = n
    for e in range(len(weights)):
        a, b = _root(parent, first[e]), _root(parent, second[e])
        if a != b and weights[e] <= threshold[a] and weights[e] <= threshold[b]:
            parent[b] = a
            size[a] += size[b]
            threshold[a] = weights[e] + scale / size[a]
            regions -= 1
    while True:
        for e in range(len(weights)):
            a, b = _root(parent, first[e]), _root(parent, second[e])
            if a != b and (size[a] < min_size or size[b] < min_size):
                parent[b] = a
                size[a] += size[b]
                regions -= 1
        if regions <= max_regions:
            return _number(parent)
        min_size *= 2


@njit(cache=True, nogil=True)
def _number(parent):
    """Numbers the trees of a disjoint-set forest 0..n-1, in the order of their first element."""
    labels, numbers = np.empty(len(parent), np.int32), np.full(len(parent), -1, np.int32)
    count = 0
    for i in range(len(parent)):
        root = _root(parent, i)
        if numbers[root] < 0:
            numbers[root] = count
            count += 1
        labels[i] = numbers[root]
    return labels


@njit(cache=True, nogil=True)
def common_refinement(partitions: np.ndarray) -> np.ndarray:
    """The coarsest partition into 4-connected superpixels that refines all given partitions.

    Args:
        partitions: ``(K, h, w)`` int32 label maps.

    Returns:
        ``(h, w)`` int32, the superpixel 0..S-1 of each pixel.
    """
    count, h, w = partitions.shape
    parent = np.arange(h * w)
    for y in range(h):
        for x in range(w):
            for v, u in ((y + 1, x), (y, x + 1)):
                if v < h and u < w:
                    same = True
                    for k in range(count):
                        same &= partitions[k, y, x] == partitions[k, v, u]
                    if same:
                        a, b = _root(parent, y * w + x), _root(parent, v * w + u)
                        parent[max(a, b)] = min(a, b)
    return _number(parent).reshape(h, w)
