"""Consensus: the superpixels that enough of several similar regions contain.

Each merge tree misses some parts of an object or adds some that do not belong to it, and different trees make different
errors. The regions at one place therefore vote: a region votes with its weight for each of its superpixels, and the
consensus keeps the superpixels whose votes are at least ``MIN_SHARE`` of the total weight.
"""

import numpy as np
from numba import njit
from scipy import sparse

from proposals.pool import Pool

# Below a half, because trees miss parts of an object (its shadowed side, its stripes) more often than they add some.
MIN_SHARE = 0.3


def consensus(pool: Pool, groups: sparse.csr_array) -> np.ndarray:
    """Computes the consensus of each group of regions, and fills its holes.

    Args:
        pool: the n regions, sets of S superpixels.
        groups: ``(K, n)`` float >= 0, the weight of each region in each of K groups; no group is empty.

    Returns:
        ``(K, S)`` bool, the superpixels of each consensus; at least one in each row.
    """
    spans, begins, ends, contents = _lay_out(pool)
    inside = _vote(groups.indptr, groups.indices, groups.data, spans, begins, ends, contents, len(pool.graph.sizes))
    _fill(inside, pool.graph.boxes, *pool.graph.neighbours())
    return inside


def _lay_out(pool: Pool) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Puts the leaves of all trees in one sequence, in depth-first order, so that each region is an interval of it.

    Returns:
        spans: ``(n, 2)``, begin and end of each region's leaves in the sequence.
        begins: for each leaf, the begin of its superpixels in ``contents``.
        ends: for each leaf, their end.
        contents: ``(P * S,)``, the superpixels of each partition, sorted by the partition's regions.
    """
    spans, begins, ends, count = [], [], [], 0
    firsts = [np.concatenate([[0], np.cumsum(np.bincount(part))]) for part in pool.parts]
    for tree, p in zip(pool.trees, pool.origins, strict=True):
        nodes = tree.spans()
        order = np.argsort(nodes[: len(firsts[p]) - 1, 0])
        begins.append(firsts[p][order] + p * pool.parts.shape[1])
        ends.append(firsts[p][order + 1] + p * pool.parts.shape[1])
        spans.append(nodes + count)
        count += len(order)
    node = np.cumsum([0, *map(len, spans)])[pool.sources[:, 0]] + pool.sources[:, 1]
    contents = np.argsort(pool.parts, axis=1, kind="stable").ravel()
    return np.concatenate(spans)[node], np.concatenate(begins), np.concatenate(ends), contents


@njit(cache=True, nogil=True)
def _vote(starts, regions, weights, spans, begins, ends, contents, superpixels):
    """The consensus ``(K, S)`` bool before holes are filled.

    The votes for a leaf are a running sum along the sequence of leaves: a region adds its weight where its interval
    begins, and subtracts it where the interval ends.
    """
    inside = np.zeros((len(starts) - 1, superpixels), np.bool_)
    steps = np.zeros(len(begins) + 1)
    for k in range(len(inside)):
        group = regions[starts[k] : starts[k + 1]]
        total, running, leaf, votes = 0.0, 0.0, 0, np.zeros(superpixels)
        for e in range(starts[k], starts[k + 1]):
            steps[spans[regions[e], 0]] += weights[e]
            steps[spans[regions[e], 1]] -= weights[e]
            total += weights[e]
        for r in group[np.argsort(spans[group, 0])]:
            if spans[r, 0] > leaf:
                running, leaf = 0.0, spans[r, 0]
            while leaf < spans[r, 1]:
                running += steps[leaf]
                for j in range(begins[leaf], ends[leaf]):
                    votes[contents[j]] += running
                leaf += 1
        for r in group:
            steps[spans[r, 0]] = steps[spans[r, 1]] = 0
        enough = min(MIN_SHARE * total, votes.max())
        for s in range(superpixels):
            inside[k, s] = votes[s] >= enough
    return inside


@njit(cache=True, nogil=True)
def _fill(inside, boxes, starts, neighbours):
    """Fills the holes of each set of superpixels ``(K, S)``, in place.

    A superpixel is in a hole if every path of neighbours from it to the outside of the set's bounding box crosses the
    set.
    """
    stack = np.empty(inside.shape[1], np.int64)
    for k in range(len(inside)):
        kept, filled = inside[k], inside[k].copy()
        x1, y1, x2, y2 = _extent(kept, boxes)
        for s in range(len(kept)):
            if x1 < boxes[s, 0] and y1 < boxes[s, 1] and boxes[s, 2] < x2 and boxes[s, 3] < y2:
                filled[s] = True
        for i in np.flatnonzero(filled):
            if kept[i] or not filled[i] or filled[neighbours[starts[i] : starts[i + 1]]].all():
                continue
            filled[i], stack[0], top = False, i, 1
            while top > 0:
                top -= 1
                for j in neighbours[starts[stack[top]] : starts[stack[top] + 1]]:
                    if filled[j] and not kept[j]:
                        filled[j], stack[top] = False, j
                        top += 1
        inside[k] = filled


@njit(cache=True, nogil=True)
def _extent(inside, boxes):
    """The bounding box of a set of superpixels."""
    x1, y1, x2, y2 = boxes[0, 0], boxes[0, 1], 0, 0
    first = True
    for i in np.flatnonzero(inside):
        if first:
            x1, y1, first = boxes[i, 0], boxes[i, 1], False
        x1, y1 = min(x1, boxes[i, 0]), min(y1, boxes[i, 1])
        x2, y2 = max(x2, boxes[i, 2]), max(y2, boxes[i, 3])
    return x1, y1, x2, y2
