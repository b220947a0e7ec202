"""The pool: every region of every merge tree, once."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numba import njit

from proposals.mergetree import Affinity, MergeTree
from proposals.regiongraph import RegionGraph


@dataclass(frozen=True)
class Pool:
    """Candidate regions.

    Attributes:
        sizes: (n,) float64 pixels; boxes: (n, 4) int64 half-open xyxy in cells.
        outlines: (n, 2), likeness: (n,) as in ``MergeTree``.
        sources: (n, 2) int64 tree and node.
        trees: the merge trees; parts: for each tree (S,) the region of each superpixel.
        graph: of the superpixels.
    """

    sizes: np.ndarray
    boxes: np.ndarray
    outlines: np.ndarray
    likeness: np.ndarray
    sources: np.ndarray
    trees: list[MergeTree]
    parts: list[np.ndarray]
    graph: RegionGraph

    @classmethod
    def grow(
        cls, graph: RegionGraph, parts: Sequence[np.ndarray], affinities: Sequence[Affinity], colours: int, seed: int
    ) -> "Pool":
        """Grows a tree for each partition and affinity.

        Args:
            graph: of the superpixels, of which the first ``colours`` histogram bins are colour.
            parts: for each partition (S,) the region of each superpixel.
            seed: of the superpixels' random keys, whose xor names a region: equal names, equal regions.
        """
        keys = np.random.default_rng(seed).integers(0, 2**63, len(graph.sizes), np.uint64)
        trees, names = [], []
        for part in parts:
            coarse = graph.coarsen(part)
            regions = np.zeros(len(coarse.sizes), np.uint64)
            np.bitwise_xor.at(regions, part, keys)
            trees += [MergeTree.of(coarse, affinity, colours) for affinity in affinities]
            names += [tree.combine(regions) for tree in trees[-len(affinities) :]]
        _, first = np.unique(np.concatenate(names), return_index=True)
        first.sort()
        sources = np.concatenate([[(t, node) for node in range(len(n))] for t, n in enumerate(names)])[first]
        columns = [(tree.sizes, tree.boxes, tree.outlines, tree.likeness) for tree in trees]
        sizes, boxes, outlines, likeness = (np.concatenate(column)[first] for column in zip(*columns, strict=True))
        trees_parts = [part for part in parts for _ in affinities]
        return cls(sizes, boxes, outlines, likeness, sources, trees, trees_parts, graph)

    def regions(self, indices: np.ndarray) -> list[np.ndarray]:
        """The superpixels of each region, its holes filled (which leaves its box as it is)."""
        starts, neighbours = self.graph.neighbours()
        filled = []
        for i in indices:
            tree, node = self.sources[i]
            inside = self.trees[tree].regions(node)[self.parts[tree]]
            filled.append(np.flatnonzero(_fill(inside, self.boxes[i], self.graph.boxes, starts, neighbours)))
        return filled


@njit(cache=True, nogil=True)
def _fill(inside, box, boxes, starts, neighbours):
    """Adds the superpixels from which no path of outside superpixels leaves the region's box."""
    n = len(inside)
    filled, stack = inside.copy(), np.empty(n, np.int64)
    for i in range(n):
        if box[0] < boxes[i, 0] and box[1] < boxes[i, 1] and boxes[i, 2] < box[2] and boxes[i, 3] < box[3]:
            filled[i] = True
    for i in np.flatnonzero(filled):
        if inside[i] or not filled[i] or filled[neighbours[starts[i] : starts[i + 1]]].all():
            continue
        filled[i], stack[0], top = False, i, 1
        while top > 0:
            top -= 1
            for k in neighbours[starts[stack[top]] : starts[stack[top] + 1]]:
                if filled[k] and not inside[k]:
                    filled[k], stack[top] = False, k
                    top += 1
    return filled
