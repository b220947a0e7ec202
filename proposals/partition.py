"""Partitions: an image cut into regions by graph segmentation (Felzenszwalb & Huttenlocher, IJCV 2004).

Several partitions of one image meet in their common refinement: its cells are the superpixels, and every region of
every partition is a set of them.
"""

import numpy as np
from numba import njit

BINS = 4096  # edge weights are sorted by counting, in so many bins


def graph_segmentations(image: np.ndarray, scales: list[float], smallest: int, most: int) -> list[np.ndarray]:
    """Felzenszwalb-Huttenlocher segmentations of one image, one for each scale.

    Neighbours (8-connected) merge in the order of their colour distance while that stays below the internal distance of
    both sides + scale / size; what is smaller than ``smallest`` then joins its nearest neighbour.

    Args:
        image: (h, w, c) float32.
        scales: the paper's k, in units of the image's values.
        smallest: pixels of the smallest region; doubled until there are at most ``most`` regions.

    Returns:
        a label map (h, w) int32 with labels 0..n-1 a scale.
    """
    first, second, weights = _edges(np.ascontiguousarray(image, np.float32))
    order = _counting_sort(weights, max(float(weights.max(initial=0)), 1e-6))
    first, second, weights = first[order], second[order], weights[order]
    shape = image.shape[:2]
    maps = [_merge(shape[0] * shape[1], first, second, weights, float(k), smallest, most) for k in scales]
    return [labels.reshape(shape) for labels in maps]


@njit(cache=True, nogil=True)
def _edges(image):
    """Edges of the 8-connected grid and their Euclidean distances, in raster order."""
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
    """The order of values in 0..most, which is kept within a bin."""
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
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return i


@njit(cache=True, nogil=True)
def _merge(n, first, second, weights, scale, smallest, most):
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
            if a != b and (size[a] < smallest or size[b] < smallest):
                parent[b] = a
                size[a] += size[b]
                regions -= 1
        if regions <= most:
            return _number(parent)
        smallest *= 2


@njit(cache=True, nogil=True)
def _number(parent):
    """Labels 0..n-1 in the order of first appearance."""
    labels, names = np.empty(len(parent), np.int32), np.full(len(parent), -1, np.int32)
    used = 0
    for i in range(len(parent)):
        root = _root(parent, i)
        if names[root] < 0:
            names[root] = used
            used += 1
        labels[i] = names[root]
    return labels


@njit(cache=True, nogil=True)
def common_refinement(partitions):
    """The coarsest partition into 4-connected superpixels that refines every given one.

    Args:
        partitions: (K, h, w) int32 label maps.

    Returns:
        (h, w) int32, labels 0..S-1.
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
