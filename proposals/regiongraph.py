"""Region graphs: the regions of a partition, what is known of each, and who borders whom."""

from dataclasses import dataclass

import numpy as np
from numba import njit


@dataclass(frozen=True)
class RegionGraph:
    """Regions 0..n-1 and their neighbourhood.

    Attributes:
        sizes: (n,) float64 pixels; boxes: (n, 4) int64 half-open xyxy in cells.
        histograms: (n, d) float64 counts.
        pairs: (e, 2) int64 neighbours, the lower first, each pair once.
        lengths, strengths: (e,) float64, the common boundary in pixel edges, and the contour strength summed along it.
    """

    sizes: np.ndarray
    boxes: np.ndarray
    histograms: np.ndarray
    pairs: np.ndarray
    lengths: np.ndarray
    strengths: np.ndarray

    @classmethod
    def of(cls, labels: np.ndarray, bins: np.ndarray, contour: np.ndarray) -> "RegionGraph":
        """The graph of a label map.

        Args:
            labels: (h, w) int32, 0..n-1; bins: (h, w, c) int32, the histogram bins that each pixel counts in.
            contour: (h, w) float32, contour strength in 0..1.
        """
        n = int(labels.max()) + 1
        histograms = _count(labels, bins, n, int(bins.max()) + 1)
        edges = _group_pairs(n, *_boundaries(labels, contour))
        return cls(np.bincount(labels.ravel()).astype(float), extents(labels, n), histograms, *edges)

    def coarsen(self, labels: np.ndarray) -> "RegionGraph":
        """The graph of the regions 0..m-1 that these ones make up; labels: (n,) the new region of each."""
        n = int(labels.max()) + 1
        boxes = np.empty((n, 4), np.int64)
        boxes[:, :2], boxes[:, 2:] = np.iinfo(np.int64).max, 0
        np.minimum.at(boxes[:, :2], labels, self.boxes[:, :2])
        np.maximum.at(boxes[:, 2:], labels, self.boxes[:, 2:])
        histograms = _sum_rows(self.histograms, labels, n)
        ends = np.sort(labels[self.pairs], 1)
        outer = ends[:, 0] != ends[:, 1]
        edges = _group_pairs(n, *ends[outer].T, self.strengths[outer], self.lengths[outer])
        return RegionGraph(np.bincount(labels, self.sizes), boxes, histograms, *edges)

    def outlines(self) -> np.ndarray:
        """(n, 2): each region's outline inside the image in pixel edges, and the contour strength summed along it."""
        ends = self.pairs.T.ravel()
        return np.stack([np.bincount(ends, np.tile(v, 2), len(self.sizes)) for v in (self.lengths, self.strengths)], 1)

    def neighbours(self) -> tuple[np.ndarray, np.ndarray]:
        """Sparse rows (n + 1,) and (2e,): region i borders ``columns[starts[i]:starts[i + 1]]``."""
        rows, columns = np.concatenate([self.pairs, self.pairs[:, ::-1]]).T
        starts = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=len(self.sizes)))])
        return starts, columns[np.argsort(rows, kind="stable")]


@njit(cache=True, nogil=True)
def extents(labels, count):
    """The tight box of each label 0..count-1 of a label map (h, w): (count, 4) int64 half-open xyxy in cells."""
    h, w = labels.shape
    boxes = np.zeros((count, 4), np.int64)
    boxes[:, 0], boxes[:, 1] = w, h
    for y in range(h):
        for x in range(w):
            i = labels[y, x]
            boxes[i, 0], boxes[i, 1] = min(boxes[i, 0], x), min(boxes[i, 1], y)
            boxes[i, 2], boxes[i, 3] = max(boxes[i, 2], x + 1), max(boxes[i, 3], y + 1)
    return boxes


@njit(cache=True, nogil=True)
def _count(labels, bins, n, d):
    h, w, channels = bins.shape
    counts = np.zeros((n, d))
    for y in range(h):
        for x in range(w):
            for c in range(channels):
                counts[labels[y, x], bins[y, x, c]] += 1
    return counts


@njit(cache=True, nogil=True)
def _sum_rows(values, labels, n):
    sums = np.zeros((n, values.shape[1]))
    for i in range(len(labels)):
        for c in range(values.shape[1]):
            sums[labels[i], c] += values[i, c]
    return sums


@njit(cache=True, nogil=True)
def _boundaries(labels, contour):
    """Neighbouring pixels of different label: the labels, the lower first, and the mean contour strength of the two."""
    h, w = labels.shape
    first, second = np.empty(2 * h * w, np.int64), np.empty(2 * h * w, np.int64)
    strength = np.empty(2 * h * w)
    e = 0
    for y in range(h):
        for x in range(w):
            for v, u in ((y + 1, x), (y, x + 1)):
                if v < h and u < w and labels[y, x] != labels[v, u]:
                    first[e], second[e] = min(labels[y, x], labels[v, u]), max(labels[y, x], labels[v, u])
                    strength[e] = (contour[y, x] + contour[v, u]) / 2
                    e += 1
    return first[:e], second[:e], strength[:e]


def _group_pairs(n, first, second, strength, length=None):
    keys, group = np.unique(first * n + second, return_inverse=True)
    pairs = np.stack([keys // n, keys % n], 1)
    return pairs, np.bincount(group, length, len(keys)).astype(float), np.bincount(group, strength, len(keys))
