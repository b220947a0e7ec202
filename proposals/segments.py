"""Segments: proposals that are sets of superpixels of one partition, and how they are found."""

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numba import njit
from scipy import sparse

from proposals.appearance import (
    COLOUR_BINS,
    colour_bins,
    colour_spaces,
    contour_strength,
    gradients,
    texture_bins,
    to_grid,
)
from proposals.consensus import consensus
from proposals.cores import own_cores
from proposals.errors import InputError
from proposals.mergetree import Affinity
from proposals.partition import common_refinement, graph_segmentations
from proposals.pool import Pool
from proposals.proposals import Proposals, check_image
from proposals.ranking import choose
from proposals.regiongraph import RegionGraph, extents

LONGEST = 4  # the working grid's longer side, at most so many times the shorter
MOST_REGIONS = 1500  # of one segmentation
COLOURS = 3 * COLOUR_BINS
AFFINITIES = (
    Affinity(colour=1, texture=1, size=1, fill=1),
    Affinity(colour=1, size=1, fill=1, boundary=1),
    Affinity(texture=1, size=4, fill=4),
)
SPARE = 1.2  # places chosen for each segment wanted: where two come to the same consensus, one is dropped


class Segments(Proposals):
    """Proposals as sets of superpixels.

    Args:
        labels: (h, w) the superpixel 0..S-1 of each cell of the working grid.
        members: (M,) superpixels of all regions, one region after the other; none twice in a region.
        offsets: (N + 1,) where in ``members`` each region starts, and M.
        scores: (N,) non-increasing; size: (height, width) of the image.

    Raises:
        InputError: the arrays do not fit together.
    """

    def __init__(
        self,
        labels: np.ndarray,
        members: np.ndarray,
        offsets: np.ndarray,
        scores: np.ndarray,
        size: tuple[int, int],
    ):
        self.labels = np.ascontiguousarray(labels, np.int32)
        self.members, self.offsets = np.asarray(members, np.int64), np.asarray(offsets, np.int64)
        self.scores, self.size = np.asarray(scores, np.float64), (int(size[0]), int(size[1]))
        self.shape = self.labels.shape
        self.superpixels = _check(self)
        ones = np.ones(len(self.members))
        self._membership = sparse.csr_array((ones, self.members, self.offsets), (len(self), self.superpixels))
        cells = np.bincount(self.labels.ravel(), minlength=self.superpixels)
        self.areas = self._membership @ cells / self.labels.size
        self.boxes = self._tight_boxes()

    def mask(self, index: int) -> np.ndarray:
        """The cells of one region: (h, w) bool."""
        inside = np.zeros(self.superpixels, bool)
        inside[self.members[self.offsets[index] : self.offsets[index + 1]]] = True
        return inside[self.labels]

    def _tight_boxes(self) -> np.ndarray:
        cells = extents(self.labels, self.superpixels)[self.members]
        low = np.minimum.reduceat(cells[:, :2], self.offsets[:-1], 0)
        high = np.maximum.reduceat(cells[:, 2:], self.offsets[:-1], 0)
        height, width = self.size
        # multiplied before divided, so that the last line of the grid is exactly the edge of the image
        return np.concatenate([low, high], 1) * (width, height, width, height) / (self.shape[::-1] * 2)

    def _integrate(self, maps: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray((self._membership @ superpixel_sums(self.labels, maps, self.superpixels)).T)


def _check(segments: Segments) -> int:
    labels, members, offsets, scores = segments.labels, segments.members, segments.offsets, segments.scores
    if labels.ndim != 2 or not labels.size or labels.min() < 0 or labels.max() >= labels.size:
        raise InputError(f"labels {labels.shape} must be a grid (h, w) of superpixels 0..S-1")
    count = int(labels.max()) + 1
    if not np.bincount(labels.ravel()).all():
        raise InputError(f"labels skip a number below {count}; number the superpixels 0..S-1")
    if offsets.shape != (len(scores) + 1,) or offsets[0] != 0 or offsets[-1] != len(members):
        raise InputError(f"offsets {offsets.shape} do not divide {len(members)} members into {len(scores)} regions")
    if (np.diff(offsets) < 1).any() or (len(members) and not 0 <= members.min() <= members.max() < count):
        raise InputError(f"a region is empty or names a superpixel outside 0..{count - 1}")
    if not _named_once(members, offsets, count):
        raise InputError("a region names a superpixel twice; name each once")
    if not np.isfinite(scores).all() or (np.diff(scores) > 0).any():
        raise InputError("the scores are not sorted; give regions best first")
    return count


@njit(cache=True, nogil=True)
def _named_once(members, offsets, count):
    latest = np.full(count, -1, np.int64)  # region that named each superpixel
    for i in range(len(offsets) - 1):
        for m in members[offsets[i] : offsets[i + 1]]:
            if latest[m] == i:
                return False
            latest[m] = i
    return True


@njit(cache=True, nogil=True)
def superpixel_sums(labels, maps, count):
    """The mass of maps (W, h, w) in each superpixel: (count, W)."""
    sums = np.zeros((len(maps), count))
    flat = labels.ravel()
    for m in range(len(maps)):
        values, out = maps[m].ravel(), sums[m]
        for i in range(len(flat)):
            out[flat[i]] += values[i]
    return np.ascontiguousarray(sums.T)


def _merged(inside: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Regions (K, S) bool and superpixels (h, w), those superpixels made one that are in the same regions."""
    rows = np.packbits(inside, 0).T.copy()
    _, first, merged = np.unique(rows.view(f"V{rows.shape[1]}").ravel(), return_index=True, return_inverse=True)
    return inside[:, first], merged[labels]


def _first_of_equals(rows: np.ndarray) -> list[int]:
    """Which rows (n, d) of bool are equal to none above them."""
    packed = np.packbits(rows, 1)
    return sorted({row.tobytes(): i for i, row in reversed(list(enumerate(packed)))}.values())


class SegmentProposer:
    """Proposes segments: graph segmentations -> merge trees -> the regions that best stand for all of them.

    Args:
        count: the most segments of an image.
        side: pixels of the working grid's shorter side; the longer one has at most ``LONGEST`` times as many.
        seed: of the random keys by which equal regions of different trees are found.
        scales: k of the graph segmentations, for colours in 0..255.
        smallest: pixels of the smallest region of a segmentation.
        threads: that work on one image; None for as many as the process has cores. They make no difference but in time.

    Raises:
        InputError: a number is below 1.
    """

    def __init__(
        self,
        count: int = 500,
        side: int = 300,
        seed: int = 0,
        scales: Sequence[float] = (50, 100, 200),
        smallest: int = 15,
        threads: int | None = None,
    ):
        threads = own_cores() if threads is None else threads
        if min(count, side, smallest, threads, *scales) < 1:
            raise InputError(
                f"count={count}, side={side}, scales={scales}, smallest={smallest}, threads={threads}: "
                "each must be 1 or more"
            )
        self.count, self.side, self.seed, self.scales, self.smallest = count, side, seed, tuple(scales), smallest
        self.threads = threads

    def __call__(self, image: np.ndarray, name: str | None = None) -> Segments:
        """The segments of an image (H, W, 3) uint8 RGB, all different; the whole image is among them.

        Raises:
            InputError: the image has another shape or type.
        """
        check_image(image)
        labels, pool = self._grow(to_grid(image, self.side, LONGEST * self.side))
        groups, gains = choose(pool, labels.size, math.ceil(SPARE * self.count))
        inside = consensus(pool, groups)
        kept = _first_of_equals(inside)[: self.count]
        inside, gains = inside[kept], gains[kept]
        if not inside.all(1).any():
            inside[-1] = True
        inside, labels = _merged(inside, labels)
        offsets = np.cumsum([0, *inside.sum(1)])
        return Segments(labels, np.nonzero(inside)[1], offsets, gains, image.shape[:2])

    def _grow(self, grid: np.ndarray) -> tuple[np.ndarray, Pool]:
        """The superpixels (h, w) of a grid (h, w, 3) uint8, and the regions of all merge trees."""
        lab, hsv = colour_spaces(grid)
        with ThreadPoolExecutor(self.threads) as threads:
            found = threads.map(
                lambda space: graph_segmentations(space * 255, self.scales, self.smallest, MOST_REGIONS), (lab, hsv)
            )
            partitions = np.stack([partition for partitions in found for partition in partitions])
            labels = common_refinement(partitions)
            dy, dx = gradients(lab)
            bins = np.concatenate([colour_bins(lab), texture_bins(dy, dx) + COLOURS], 2)
            graph = RegionGraph.of(labels, bins, contour_strength(dy, dx))
            pixel = np.empty(len(graph.sizes), np.int64)  # one of each superpixel
            pixel[labels.ravel()] = np.arange(labels.size)
            parts = partitions.reshape(len(partitions), -1)[:, pixel]
            return labels, Pool.grow(graph, parts, AFFINITIES, COLOURS, self.seed, threads)
