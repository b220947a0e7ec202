"""Segment proposals: sets of superpixels, and the proposer that computes them."""

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
from proposals.regiongraph import RegionGraph, bounding_boxes

MAX_ASPECT = 4  # longer side of the working grid over its shorter side; longer images are squeezed
MAX_REGIONS = 1500  # per segmentation; merging takes memory and time quadratic in them
COLOURS = 3 * COLOUR_BINS  # bins of a region's colour histogram
AFFINITIES = (
    Affinity(colour=1, texture=1, size=1, fill=1),
    Affinity(colour=1, size=1, fill=1, boundary=1),
    Affinity(texture=1, size=4, fill=4),
)
OVERSAMPLING = 1.2  # boxes selected per segment: some are dropped, because their consensus is the same


class Segments(Proposals):
    """Proposals that are sets of superpixels.

    Args:
        labels: ``(h, w)`` int, the superpixel 0..S-1 of each cell of the working grid.
        members: ``(M,)`` int, the superpixels of all regions, region after region; a region lists each at most once.
        offsets: ``(N + 1,)`` int; region i is ``members[offsets[i]:offsets[i + 1]]``.
        scores: ``(N,)`` non-increasing.
        size: (height, width) of the image in pixels.

    Raises:
        InputError: If the arrays contradict each other, or the scores are not sorted or not finite.
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
        """The cells of one region.

        Args:
            index: number of the region, 0..N-1.

        Returns:
            ``(h, w)`` bool, true inside the region.
        """
        inside = np.zeros(self.superpixels, bool)
        inside[self.members[self.offsets[index] : self.offsets[index + 1]]] = True
        return inside[self.labels]

    def _tight_boxes(self) -> np.ndarray:
        cells = bounding_boxes(self.labels, self.superpixels)[self.members]
        low = np.minimum.reduceat(cells[:, :2], self.offsets[:-1], 0)
        high = np.maximum.reduceat(cells[:, 2:], self.offsets[:-1], 0)
        height, width = self.size
        # multiply before dividing, so that the last grid line is exactly the edge of the image
        return np.concatenate([low, high], 1) * (width, height, width, height) / (self.shape[::-1] * 2)

    def _integrate(self, maps: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray((self._membership @ superpixel_sums(self.labels, maps, self.superpixels)).T)


def _check(segments: Segments) -> int:
    """Checks the arrays, and returns the number of superpixels."""
    labels, members, offsets, scores = segments.labels, segments.members, segments.offsets, segments.scores
    if labels.ndim != 2 or not labels.size or labels.min() < 0 or labels.max() >= labels.size:
        raise InputError(f"labels {labels.shape} must be a grid (h, w) of superpixels 0..S-1; renumber them")
    count = int(labels.max()) + 1
    if not np.bincount(labels.ravel()).all():
        raise InputError(f"labels skip a number below {count}; number the superpixels 0..S-1")
    if offsets.shape != (len(scores) + 1,) or offsets[0] != 0 or offsets[-1] != len(members):
        raise InputError(
            f"offsets {offsets.shape} do not divide {len(members)} members into {len(scores)} regions; "
            "start at 0 and end at the number of members"
        )
    if (np.diff(offsets) < 1).any() or (len(members) and not 0 <= members.min() <= members.max() < count):
        raise InputError(f"a region is empty or contains a superpixel outside 0..{count - 1}; drop such regions")
    if not _are_distinct(members, offsets, count):
        raise InputError("a region lists a superpixel twice; list each superpixel of a region once")
    if not np.isfinite(scores).all() or (np.diff(scores) > 0).any():
        raise InputError("the scores must be finite and sorted in descending order; sort the regions by score")
    return count


@njit(cache=True, nogil=True)
def _are_distinct(members, offsets, count):
    """Whether no region lists a superpixel twice."""
    latest = np.full(count, -1, np.int64)  # the last region that listed each superpixel
    for i in range(len(offsets) - 1):
        for m in members[offsets[i] : offsets[i + 1]]:
            if latest[m] == i:
                return False
            latest[m] = i
    return True


@njit(cache=True, nogil=True)
def superpixel_sums(labels: np.ndarray, maps: np.ndarray, count: int) -> np.ndarray:
    """Sums maps over each superpixel.

    Args:
        labels: ``(h, w)`` int in 0..count-1, the superpixel of each cell.
        maps: ``(W, h, w)`` float64.
        count: number of superpixels.

    Returns:
        ``(count, W)`` float64, the mass of each map in each superpixel.
    """
    sums = np.zeros((len(maps), count))
    flat = labels.ravel()
    for m in range(len(maps)):
        values, out = maps[m].ravel(), sums[m]
        for i in range(len(flat)):
            out[flat[i]] += values[i]
    return np.ascontiguousarray(sums.T)


def _merge_superpixels(inside: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Merges the superpixels ``(h, w)`` that belong to the same regions ``(K, S)`` bool; returns both, renumbered."""
    rows = np.packbits(inside, 0).T.copy()
    _, first, merged = np.unique(rows.view(f"V{rows.shape[1]}").ravel(), return_index=True, return_inverse=True)
    return inside[:, first], merged[labels]


def _first_of_equals(rows: np.ndarray) -> list[int]:
    """Indices of the rows ``(n, d)`` bool that differ from all rows before them."""
    packed = np.packbits(rows, 1)
    return sorted({row.tobytes(): i for i, row in reversed(list(enumerate(packed)))}.values())


class SegmentProposer:
    """Proposes segments of an image, without training.

    1. Graph segmentations of the image in two colour spaces at several scales; their common refinement gives the
       superpixels (``proposals.partition``).
    2. Merge trees of each segmentation under several affinities; their regions form a pool (``proposals.mergetree``,
       ``proposals.pool``).
    3. Boxes selected from the pool by maximum coverage (``proposals.ranking``).
    4. For each selected box, the consensus of the regions around it (``proposals.consensus``).

    Args:
        count: maximum number of segments per image.
        side: pixels of the working grid's shorter side; the longer side has at most ``MAX_ASPECT`` times as many.
        seed: seed of the random keys that identify equal regions of different trees.
        scales: k of the graph segmentations, for colours in 0..255.
        min_size: pixels of the smallest region of a segmentation.
        threads: number of threads per image; None for one per CPU core of this process. It does not affect the result.

    Raises:
        InputError: If a number is below 1.
    """

    def __init__(
        self,
        count: int = 500,
        side: int = 300,
        seed: int = 0,
        scales: Sequence[float] = (50, 100, 200),
        min_size: int = 15,
        threads: int | None = None,
    ):
        threads = own_cores() if threads is None else threads
        if min(count, side, min_size, threads, *scales) < 1:
            raise InputError(
                f"count={count}, side={side}, scales={scales}, min_size={min_size}, threads={threads}: "
                "each must be 1 or more"
            )
        self.count, self.side, self.seed, self.scales, self.min_size = count, side, seed, tuple(scales), min_size
        self.threads = threads

    def __call__(self, image: np.ndarray, name: str | None = None) -> Segments:
        """Proposes segments for one image.

        Args:
            image: ``(H, W, 3)`` uint8 RGB.
            name: ignored.

        Returns:
            Distinct segments; one of them is the whole image.

        Raises:
            InputError: If the image has another shape or type.
        """
        check_image(image)
        labels, pool = self._candidates(to_grid(image, self.side, MAX_ASPECT * self.side))
        groups, gains = choose(pool, labels.size, math.ceil(OVERSAMPLING * self.count))
        inside = consensus(pool, groups)
        kept = _first_of_equals(inside)[: self.count]
        inside, gains = inside[kept], gains[kept]
        if not inside.all(1).any():
            inside[-1] = True
        inside, labels = _merge_superpixels(inside, labels)
        offsets = np.cumsum([0, *inside.sum(1)])
        return Segments(labels, np.nonzero(inside)[1], offsets, gains, image.shape[:2])

    def _candidates(self, grid: np.ndarray) -> tuple[np.ndarray, Pool]:
        """The superpixels ``(h, w)`` of an image ``(h, w, 3)`` uint8, and the regions of all merge trees."""
        lab, hsv = colour_spaces(grid)
        with ThreadPoolExecutor(self.threads) as threads:
            by_space = threads.map(
                lambda space: graph_segmentations(space * 255, self.scales, self.min_size, MAX_REGIONS), (lab, hsv)
            )
            partitions = np.stack([partition for partitions in by_space for partition in partitions])
            labels = common_refinement(partitions)
            dy, dx = gradients(lab)
            bins = np.concatenate([colour_bins(lab), texture_bins(dy, dx) + COLOURS], 2)
            graph = RegionGraph.from_labels(labels, bins, contour_strength(dy, dx))
            pixel = np.empty(len(graph.sizes), np.int64)  # any one pixel of each superpixel
            pixel[labels.ravel()] = np.arange(labels.size)
            parts = partitions.reshape(len(partitions), -1)[:, pixel]
            return labels, Pool.build(graph, parts, AFFINITIES, COLOURS, self.seed, threads)
