"""Merge trees: regions joined two at a time, most alike first, until one is left (Uijlings et al., IJCV 2013)."""

from dataclasses import astuple, dataclass

import numpy as np
from numba import njit

from proposals.regiongraph import RegionGraph


@dataclass(frozen=True)
class Affinity:
    """How alike two neighbouring regions are: a weighted sum of five terms, each in 0..1.

    Attributes:
        colour, texture: intersection of the regions' histograms.
        size: 1 - the share of the image that both cover: small regions first.
        fill: 1 - the share of the image that their common box leaves empty.
        boundary: 1 - mean contour strength along their common boundary.
    """

    colour: float = 0
    texture: float = 0
    size: float = 0
    fill: float = 0
    boundary: float = 0


@dataclass(frozen=True)
class MergeTree:
    """A binary tree over n regions; nodes 0..n-1 are the regions, n..2n-2 the merges in their order.

    Attributes:
        children: (n-1, 2) int64 nodes of each merge.
        sizes: (2n-1,) float64 pixels; boxes: (2n-1, 4) int64 half-open xyxy in cells.
        outlines: (2n-1, 2) as ``RegionGraph.outlines``.
        likeness: (2n-1,) in 0..1, the intersection of a node's colours with those of its sibling; 0 for the root.
    """

    children: np.ndarray
    sizes: np.ndarray
    boxes: np.ndarray
    outlines: np.ndarray
    likeness: np.ndarray

    @classmethod
    def of(cls, graph: RegionGraph, affinity: Affinity, colours: int) -> "MergeTree":
        """Merges the regions of a connected graph, whose first ``colours`` bins are colour, the others texture."""
        histograms = graph.histograms.astype(np.float32)
        for part in (histograms[:, :colours], histograms[:, colours:]):
            part /= np.maximum(part.sum(1, keepdims=True), 1)
        room = len(graph.sizes) - 1
        sizes, boxes, outlines = (
            np.concatenate([known, np.zeros((room, *known.shape[1:]), known.dtype)])
            for known in (graph.sizes, graph.boxes, graph.outlines())
        )
        weights = np.array(astuple(affinity), np.float64)
        children, likeness = _agglomerate(
            sizes, boxes, outlines, histograms, graph.pairs, graph.lengths, graph.strengths, weights, colours
        )
        return cls(children, sizes, boxes, outlines, likeness)

    def combine(self, names: np.ndarray) -> np.ndarray:
        """(2n-1,) uint64: the xor of the names (n,) of each node's regions."""
        return _combine(self.children, names)

    def spans(self) -> np.ndarray:
        """(2n-1, 2) int64: with the regions laid in depth-first order, where each node's own begin and end."""
        return _spans(self.children)


@njit(cache=True, nogil=True)
def _combine(children, names):
    n = len(names)
    combined = np.empty(2 * n - 1, np.uint64)
    for i in range(n):
        combined[i] = names[i]
    for m in range(n - 1):
        combined[n + m] = combined[children[m, 0]] ^ combined[children[m, 1]]
    return combined


@njit(cache=True, nogil=True)
def _spans(children):
    n = len(children) + 1
    spans = np.ones((2 * n - 1, 2), np.int64)  # begin and, until the end, length
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
    """The index of the first largest value: a maximum that the compiler can vectorise, which argmax is not."""
    most = row[0]
    for i in range(len(row)):
        most = max(most, row[i])
    for i in range(len(row)):
        if row[i] == most:
            return i
    return 0


@njit(cache=True, nogil=True)
def _affinity(size, boxes, p, q, histograms, a, b, contour, weights, colours, total):
    """``Affinity`` of nodes p and q, in rows a and b, that cover ``size`` pixels together."""
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
    """Greedy merging on dense matrices; each row knows its most alike neighbour, so that a merge costs O(n).

    A merged region takes the row of its first part; what is known of it is appended to sizes, boxes and outlines, of
    which the first n rows are given. Ties go to the lower row.
    """
    n, total = len(histograms), 0.0
    for i in range(n):
        total += sizes[i]
    length, strength = np.zeros((n, n), np.float32), np.zeros((n, n), np.float32)
    alike = np.full((n, n), -np.inf, np.float32)
    for e in range(len(pairs)):
        a, b = pairs[e, 0], pairs[e, 1]
        length[a, b] = length[b, a] = lengths[e]
        strength[a, b] = strength[b, a] = strengths[e]
        alike[a, b] = alike[b, a] = _affinity(
            sizes[a] + sizes[b], boxes, a, b, histograms, a, b, strengths[e] / lengths[e], weights, colours, total
        )
    nearest, best = np.zeros(n, np.int64), np.empty(n, np.float32)
    for i in range(n):
        nearest[i] = _largest(alike[i])
        best[i] = alike[i, nearest[i]]

    node, children, likeness = np.arange(n), np.empty((n - 1, 2), np.int64), np.zeros(2 * n - 1)
    for m in range(n - 1):
        a = _largest(best)
        b, new = nearest[a], n + m
        p, q = node[a], node[b]
        children[m, 0], children[m, 1] = p, q
        likeness[p] = likeness[q] = _intersection(histograms, a, b, 0, colours)
        node[a] = new
        sizes[new] = sizes[p] + sizes[q]
        for c in range(2):
            boxes[new, c] = min(boxes[p, c], boxes[q, c])
            boxes[new, c + 2] = max(boxes[p, c + 2], boxes[q, c + 2])
        share = np.float32(sizes[q] / sizes[new])
        for c in range(histograms.shape[1]):
            histograms[a, c] += share * (histograms[b, c] - histograms[a, c])

        best[b], alike[a, b], length[a, b] = -np.inf, -np.inf, 0
        for k in range(n):
            if length[b, k] > 0 and k != a:
                length[a, k] += length[b, k]
                strength[a, k] += strength[b, k]
                alike[k, b], length[k, b] = -np.inf, 0
        for k in range(n):
            if length[a, k] > 0:
                length[k, a], strength[k, a] = length[a, k], strength[a, k]
                outlines[new, 0] += length[a, k]
                outlines[new, 1] += strength[a, k]
                value = _affinity(
                    sizes[new] + sizes[node[k]], boxes, new, node[k], histograms, a, k,
                    strength[a, k] / length[a, k], weights, colours, total,
                )  # fmt: skip
                alike[a, k] = alike[k, a] = value
                if nearest[k] == a or nearest[k] == b:
                    nearest[k] = _largest(alike[k])
                    best[k] = alike[k, nearest[k]]
                elif alike[a, k] > best[k]:
                    nearest[k], best[k] = a, alike[a, k]
        nearest[a] = _largest(alike[a])
        best[a] = alike[a, nearest[a]]
    return children, likeness
