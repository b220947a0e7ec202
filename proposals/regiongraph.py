"""Region graphs: the regions of a partition, their features, and which regions are adjacent."""

from dataclasses import dataclass

import numpy as np
from numba import njit


@dataclass(frozen=True)
class RegionGraph:
    """Regions 0..n-1 of a partition as the nodes of a graph, whose edges join adjacent regions.

    Attributes:
        sizes: ``(n,)`` float64, pixels of each region.
        boxes: ``(n, 4)`` int64, bounding boxes: xyxy in cells, half-open.
        histograms: ``(n, d)`` float64, pixels counted in each bin.
        pairs: ``(e, 2)`` int64, adjacent regions; each pair occurs once, with the lower index first.
        lengths: ``(e,)`` float64, length of each pair's common boundary in pixel edges.
        strengths: ``(e,)`` float64, contour strength summed along that boundary.
    """

    sizes: np.ndarray
    boxes: np.ndarray
    histograms: np.ndarray
    pairs: np.ndarray
    lengths: np.ndarray
    strengths: np.ndarray

    @classmethod
    def from_labels(cls, labels: np.ndarray, bins: np.ndarray, contour: np.ndarray) -> "RegionGraph":
        """Builds the graph of a label map.

        Args:
            labels: ``(h, w)`` int32 in 0..n-1, the region of each pixel.
            bins: ``(h, w, c)`` int32 in 0..d-1, the c histogram bins in which each pixel is counted.
            contour: ``(h, w)`` float32 in 0..1, contour strength.
        """
        n = int(labels.max()) + 1
        histograms = _count(labels, bins, n, int(bins.max()) + 1)
        edges = _group_pairs(n, *_boundaries(labels, contour))
        return cls(np.bincount(labels.ravel()).astype(float), bounding_boxes(labels, n), histograms, *edges)

    def coarsen(self, labels: np.ndarray) -> "RegionGraph":
        """Builds the graph of a coarser partition, whose regions are unions of these ones.

        Args:
            labels: ``(n,)`` int in 0..m-1, the new region that contains each region.

        Returns:
            The graph of the m new regions.
        """
        n = int(labels.max()) + 1
        boxes = np.empty((n, 4), np.int64)
        boxes[:, :2], boxes[:, 2:] = np.iinfo(np.int64).max, 0
        np.minimum.at(boxes[:, :2], labels, self.boxes[:, :2])
        np.maximum.at(boxes[:, 2:], labels, self.boxes[:, 2:])
        histograms = _sum_rows(self.histograms, labels, n)
        ends = np.sort(labels[self.pairs], 1)
        outer = ends[:, 0] != ends[:, 1]
        low, high = ends[outer].T
        edges = _group_pairs(n, low, high, self.strengths[outer], self.lengths[outer])
        return RegionGraph(np.bincount(labels, self.sizes), boxes, histograms, *edges)

    def outlines(self) -> np.ndarray:
        """Length of each region's outline and contour strength along it; the image border does not count.

        Returns:
            ``(n, 2)`` float64: length in pixel edges, and contour strength summed along the outline.
        """
        ends = self.pairs.T.ravel()
        return np.stack([np.bincount(ends, np.tile(v, 2), len(self.sizes)) for v in (self.lengths, self.strengths)], 1)

    def neighbours(self) -> tuple[np.ndarray, np.ndarray]:
        """The graph's adjacency lists in compressed form.

        Returns:
            starts: ``(n + 1,)`` int64; region i is adjacent to the regions ``columns[starts[i]:starts[i + 1]]``.
            columns: ``(2e,)`` int64, region numbers.
        """
        rows, columns = np.concatenate([self.pairs, self.pairs[:, ::-1]]).T
        starts = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=len(self.sizes)))])
        return starts, columns[np.argsort(rows, kind="stable")]


@njit(cache=True, nogil=True)
def bounding_boxes(labels: np.ndarray, count: int) -> np.ndarray:
    """The tight bounding box of each label of a label map.

    Args:
        labels: ``(h, w)`` int in 0..count-1.
        count: number of labels.

    Returns:
        ``(count, 4)`` int64 xyxy in cells, half-open.
    """
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
    """Histograms ``(n, d)`` of the pixels of each region."""
    h, w, channels = bins.shape
    counts = np.zeros((n, d))
    for y in range(h):
        for x in range(w):
            for c in range(channels):
                counts[labels[y, x], bins[y, x, c]] += 1
    return counts


@njit(cache=True, nogil=True)
def _sum_rows(values, labels, n):
    """Sums the rows that have the same label: ``(n, d)``."""
    sums = np.zeros((n, values.shape[1]))
    for i in range(len(labels)):
        for c in range(values.shape[1]):
            sums[labels[i], c] += values[i, c]
    return sums


@njit(cache=True, nogil=True)
def _boundaries(labels, contour):
    """Pixel edges between two labels: the lower label, the higher one, and the mean contour strength of both pixels."""
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
    """Joins boundary pieces of the same two regions: pairs of regions, total lengths, total contour strengths."""
    keys, group = np.unique(first * n + second, return_inverse=True)
    pairs = np.stack([keys // n, keys % n], 1)
    return pairs, np.bincount(group, length, len(keys)).astype(float), np.bincount(group, strength, len(keys))
