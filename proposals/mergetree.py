"""Merge trees: the two most similar adjacent regions are merged until one is left (Uijlings et al., IJCV 2013)."""

from dataclasses import astuple, dataclass

import numpy as np
from numba import njit

from proposals.regiongraph import RegionGraph


@dataclass(frozen=True)
class Affinity:
    """Weights of the five terms of the similarity of two adjacent regions; each term is in 0..1.

    Attributes:
        colour: weight of the intersection of their colour histograms.
        texture: weight of the intersection of their texture histograms.
        size: weight of 1 - the share of the image that both cover, so that small regions merge first.
        fill: weight of 1 - the share of the image that is inside their common bounding box but in neither region.
        boundary: weight of 1 - the mean contour strength along their common boundary.
    """

    colour: float = 0
    texture: float = 0
    size: float = 0
    fill: float = 0
    boundary: float = 0


@dataclass(frozen=True)
class MergeTree:
    """A binary tree over n regions: nodes 0..n-1 are the regions, nodes n..2n-2 the merges in their order.

    Attributes:
        children: ``(n-1, 2)`` int64, the two nodes that each merge joins.
        sizes: ``(2n-1,)`` float64, pixels of each node.
        boxes: ``(2n-1, 4)`` int64, bounding boxes: xyxy in cells, half-open.
        outlines: ``(2n-1, 2)`` float64, length and contour strength as in ``RegionGraph.outlines``.
        similarity: ``(2n-1,)`` float64 in 0..1, intersection of a node's colour histogram with that of its sibling; 0
            for the root.
    """

    children: np.ndarray
    sizes: np.ndarray
    boxes: np.ndarray
    outlines: np.ndarray
    similarity: np.ndarray

    @classmethod
    def from_graph(cls, graph: RegionGraph, affinity: Affinity, colours: int) -> "MergeTree":
        """Merges the regions of a connected graph, the most similar neighbours first.

        Args:
            graph: the regions; its histograms hold the colour bins first, then the texture bins.
            affinity: weights of the similarity.
            colours: number of colour bins.
        """
        histograms = graph.histograms.astype(np.float32)
        for part in (histograms[:, :colours], histograms[:, colours:]):
            part /= np.maximum(part.sum(1, keepdims=True), 1)
        room = len(graph.sizes) - 1
        sizes, boxes, outlines = (
            np.concatenate([known, np.zeros((room, *known.shape[1:]), known.dtype)])
            for known in (graph.sizes, graph.boxes, graph.outlines())
        )
        weights = np.array(astuple(affinity), np.float64)
        children, similarity = _agglomerate(
            sizes, boxes, outlines, histograms, graph.pairs, graph.lengths, graph.strengths, weights, colours
        )
        return cls(children, sizes, boxes, outlines, similarity)

    def combine(self, keys: np.ndarray) -> np.ndarray:
        """Combines keys of the regions into a key of each node.

        Args:
            keys: ``(n,)`` uint64, a key of each region.

        Returns:
            ``(2n-1,)`` uint64, the bitwise xor of the keys of the regions below each node.
        """
        return _combine(self.children, keys)

    def spans(self) -> np.ndarray:
        """The interval that each node covers when the regions are put in depth-first order.

        Returns:
            ``(2n-1, 2)`` int64, begin and end of each node's regions in that order, half-open.
        """
        return _spans(self.children)


@njit(cache=True, nogil=True)
def _combine(children, keys):
    n = len(keys)
    combined = np.empty(2 * n - 1, np.uint64)
    for i in range(n):
        combined[i] = keys[i]
    for m in range(n - 1):
        combined[n + m] = combined[children[m, 0]] ^ combined[children[m, 1]]
    return combined


@njit(cache=True, nogil=True)
def _spans(children):
    n = len(children) + 1
    spans = np.ones((2 * n - 1, 2), np.int64)  # begin and length; the last line turns the length into the end
    for m in range(n - 1):
        spans[n + m, 1] = spans[children[m, 0], 1] + spans[children[m, 1], 1]
    spans[2 * n - 2, 0] = 0
    for m in range(n - 2, -1, -1):
        spans[children[m, 0], 0] = spans[n + m, 0]
        spans[children[m, 1], 0] = spans[n + m, 0] + spans[children[m, 0], 1]
    spans[:, 1] += spans[:, 0]
    return spans


@njit(cache=True, nogil=True, fastmath={"nnan", "nsz", "reassoc"})
def _intersection(histograms, a, b, start, stop):
    common = np.float32(0)
    for c in range(start, stop):
        common += min(histograms[a, c], histograms[b, c])
    return common


@njit(cache=True, nogil=True, fastmath={"nnan", "nsz", "reassoc"})
def _largest(row):
    """The index of the first maximum. The compiler can vectorise this loop, but not ``argmax``."""
    most = row[0]
    for i in range(len(row)):
        most = max(most, row[i])
    for i in range(len(row)):
        if row[i] == most:
            return i
    return 0


@njit(cache=True, nogil=True)
def _affinity(size, boxes, p, q, histograms, a, b, contour, weights, colours, total):
    """Similarity of nodes p and q, whose histograms are rows a and b and which cover ``size`` pixels together."""
    width = max(boxes[p, 2], boxes[q, 2]) - min(boxes[p, 0], boxes[q, 0])
    height = max(boxes[p, 3], boxes[q, 3]) - min(boxes[p, 1], boxes[q, 1])
    value = weights[2] * (1 - size / total) + weights[3] * (1 - (width * height - size) / total)
    if weights[0] > 0:
        value += weights[0] * _intersection(histograms, a, b, 0, colours)
    if weights[1] > 0:
        value += weights[1] * _intersection(histograms, a, b, colours, histograms.shape[1])
    return value + weights[4] * (1 - contour)


@njit(cache=True, nogil=True)
def _agglomerate(sizes, boxes, outlines, histograms, pairs, lengths, strengths, weights, colours):
    """Greedy merging on dense n x n matrices. Each row stores its most similar neighbour, so that a merge costs O(n).

    A merged region takes over row a, the row of its first part; row b is emptied. The features of the merge are written
    to ``sizes``, ``boxes`` and ``outlines``, whose first n rows hold the given regions. Of equal similarities, the
    lower row comes first.
    """
    n, total = len(histograms), 0.0
    for i in range(n):
        total += sizes[i]
    length, strength = np.zeros((n, n), np.float32), np.zeros((n, n), np.float32)
    similar = np.full((n, n), -np.inf, np.float32)
    for e in range(len(pairs)):
        a, b = pairs[e, 0], pairs[e, 1]
        length[a, b] = length[b, a] = lengths[e]
        strength[a, b] = strength[b, a] = strengths[e]
        similar[a, b] = similar[b, a] = _affinity(
            sizes[a] + sizes[b], boxes, a, b, histograms, a, b, strengths[e] / lengths[e], weights, colours, total
        )
    nearest, best = np.zeros(n, np.int64), np.empty(n, np.float32)
    for i in range(n):
        _find_nearest(i, similar, nearest, best)

    node, children, similarity = np.arange(n), np.empty((n - 1, 2), np.int64), np.zeros(2 * n - 1)
    for m in range(n - 1):
        a = _largest(best)
        b, new = nearest[a], n + m
        p, q = node[a], node[b]
        children[m, 0], children[m, 1] = p, q
        similarity[p] = similarity[q] = _intersection(histograms, a, b, 0, colours)
        node[a] = new
        _merge_features(sizes, boxes, histograms, p, q, new, a, b)
        best[b] = -np.inf
        _merge_boundaries(length, strength, similar, a, b)
        for k in range(n):
            if length[a, k] > 0:
                length[k, a], strength[k, a] = length[a, k], strength[a, k]
                outlines[new, 0] += length[a, k]
                outlines[new, 1] += strength[a, k]
                similar[a, k] = similar[k, a] = _affinity(
                    sizes[new] + sizes[node[k]], boxes, new, node[k], histograms, a, k,
                    strength[a, k] / length[a, k], weights, colours, total,
                )  # fmt: skip
                if nearest[k] == a or nearest[k] == b:
                    _find_nearest(k, similar, nearest, best)
                elif similar[a, k] > best[k]:
                    nearest[k], best[k] = a, similar[a, k]
        _find_nearest(a, similar, nearest, best)
    return children, similarity


@njit(cache=True, nogil=True)
def _find_nearest(i, similar, nearest, best):
    """Stores the most similar neighbour of row i, and their similarity."""
    nearest[i] = _largest(similar[i])
    best[i] = similar[i, nearest[i]]


@njit(cache=True, nogil=True)
def _merge_features(sizes, boxes, histograms, p, q, new, a, b):
    """Computes size and box of node ``new`` from its parts p and q, and its histogram, in row a, from rows a and b."""
    sizes[new] = sizes[p] + sizes[q]
    for c in range(2):
        boxes[new, c] = min(boxes[p, c], boxes[q, c])
        boxes[new, c + 2] = max(boxes[p, c + 2], boxes[q, c + 2])
    share = np.float32(sizes[q] / sizes[new])
    for c in range(histograms.shape[1]):
        histograms[a, c] += share * (histograms[b, c] - histograms[a, c])


@njit(cache=True, nogil=True)
def _merge_boundaries(length, strength, similar, a, b):
    """Adds the boundaries of row b to row a, and disconnects b."""
    similar[a, b], length[a, b] = -np.inf, 0
    for k in range(len(length)):
        if length[b, k] > 0 and k != a:
            length[a, k] += length[b, k]
            strength[a, k] += strength[b, k]
            similar[k, b], length[k, b] = -np.inf, 0
