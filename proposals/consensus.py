"""Consensus: of the regions that lie at about one place, the superpixels that enough of them hold.

A merge tree takes a piece too few or too many here, another one there; what they share is nearer to the object. Each
region has a voice, and a superpixel belongs to the consensus where the voices that hold it are ``LEVEL`` of all: less
than a half, for trees lose pieces of an object (its shadowed side, its stripes) more often than they add some.
"""

import numpy as np
from numba import njit
from scipy import sparse

from proposals.pool import Pool

LEVEL = 0.3


def consensus(pool: Pool, groups: sparse.csr_array) -> np.ndarray:
    """What each group of regions agrees on, its holes filled.

    Args:
        groups: (K, n) >= 0, the voice of each of the pool's n regions in each group; at least one a group.

    Returns:
        (K, S) bool, the superpixels of each; never none.
    """
    stretches, begins, ends, contents = _lay_out(pool)
    inside = _agree(
        groups.indptr, groups.indices, groups.data, stretches, begins, ends, contents, len(pool.graph.sizes)
    )
    _fill(inside, pool.graph.boxes, *pool.graph.neighbours())
    return inside


def _lay_out(pool: Pool) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The leaves of all trees in one row, each tree's in depth-first order, so that a region is a stretch of them.

    Returns:
        (n, 2) where each region's leaves begin and end; for each leaf where its superpixels begin and end in the last,
        (P * S,) the superpixels of each partition, sorted by its regions.
    """
    stretches, begins, ends, count = [], [], [], 0
    firsts = [np.concatenate([[0], np.cumsum(np.bincount(part))]) for part in pool.parts]
    for tree, p in zip(pool.trees, pool.origins, strict=True):
        spans = tree.spans()
        order = np.argsort(spans[: len(firsts[p]) - 1, 0])
        begins.append(firsts[p][order] + p * pool.parts.shape[1])
        ends.append(firsts[p][order + 1] + p * pool.parts.shape[1])
        stretches.append(spans + count)
        count += len(order)
    node = np.cumsum([0, *map(len, stretches)])[pool.sources[:, 0]] + pool.sources[:, 1]
    contents = np.argsort(pool.parts, axis=1, kind="stable").ravel()
    return np.concatenate(stretches)[node], np.concatenate(begins), np.concatenate(ends), contents


@njit(cache=True, nogil=True)
def _agree(starts, regions, voices, stretches, begins, ends, contents, superpixels):
    """(K, S) bool, before holes are filled. Voices are steps along the row of leaves, summed where there are any."""
    inside = np.zeros((len(starts) - 1, superpixels), np.bool_)
    steps = np.zeros(len(begins) + 1)
    for k in range(len(inside)):
        group = regions[starts[k] : starts[k + 1]]
        total, voice, leaf, votes = 0.0, 0.0, 0, np.zeros(superpixels)
        for e in range(starts[k], starts[k + 1]):
            steps[stretches[regions[e], 0]] += voices[e]
            steps[stretches[regions[e], 1]] -= voices[e]
            total += voices[e]
        for r in group[np.argsort(stretches[group, 0])]:
            if stretches[r, 0] > leaf:
                voice, leaf = 0.0, stretches[r, 0]
            while leaf < stretches[r, 1]:
                voice += steps[leaf]
                for j in range(begins[leaf], ends[leaf]):
                    votes[contents[j]] += voice
                leaf += 1
        for r in group:
            steps[stretches[r, 0]] = steps[stretches[r, 1]] = 0
        enough = min(LEVEL * total, votes.max())
        for s in range(superpixels):
            inside[k, s] = votes[s] >= enough
    return inside


@njit(cache=True, nogil=True)
def _fill(inside, boxes, starts, neighbours):
    """Adds to each set of superpixels (K, S) those from which no path of outside superpixels leaves the set's box."""
    stack = np.empty(inside.shape[1], np.int64)
    for k in range(len(inside)):
        kept, filled = inside[k], inside[k].copy()
        x1, y1, x2, y2 = _extent(kept, boxes)
        for i in range(len(kept)):
            if x1 < boxes[i, 0] and y1 < boxes[i, 1] and boxes[i, 2] < x2 and boxes[i, 3] < y2:
                filled[i] = True
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
    x1, y1, x2, y2 = boxes[0, 0], boxes[0, 1], 0, 0
    first = True
    for i in np.flatnonzero(inside):
        if first:
            x1, y1, first = boxes[i, 0], boxes[i, 1], False
        x1, y1 = min(x1, boxes[i, 0]), min(y1, boxes[i, 1])
        x2, y2 = max(x2, boxes[i, 2]), max(y2, boxes[i, 3])
    return x1, y1, x2, y2
