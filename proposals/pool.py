"""The pool: every region of every merge tree, once."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import product

import numpy as np

from proposals.mergetree import Affinity, MergeTree
from proposals.regiongraph import RegionGraph


@dataclass(frozen=True)
class Pool:
    """Candidate regions.

    Attributes:
        sizes: (n,) float64 pixels; boxes: (n, 4) int64 half-open xyxy in cells.
        outlines: (n, 2), likeness: (n,) as in ``MergeTree``.
        sources: (n, 2) int64 tree and node.
        trees: T merge trees; origins: (T,) int64, the partition that each one merges.
        parts: (P, S) int32, for each partition the region of each superpixel.
        graph: of the superpixels.
    """

    sizes: np.ndarray
    boxes: np.ndarray
    outlines: np.ndarray
    likeness: np.ndarray
    sources: np.ndarray
    trees: list[MergeTree]
    origins: np.ndarray
    parts: np.ndarray
    graph: RegionGraph

    @classmethod
    def grow(
        cls,
        graph: RegionGraph,
        parts: np.ndarray,
        affinities: Sequence[Affinity],
        colours: int,
        seed: int,
        threads: ThreadPoolExecutor,
    ) -> "Pool":
        """Grows a tree for each partition and affinity.

        Args:
            graph: of the superpixels, of which the first ``colours`` histogram bins are colour.
            parts: (P, S), see the class.
            seed: of the superpixels' random keys, whose xor names a region: equal names, equal regions.
            threads: on which trees grow; their number makes no difference to what comes out.
        """
        keys = np.random.default_rng(seed).integers(0, 2**63, len(graph.sizes), np.uint64)
        coarse = list(threads.map(graph.coarsen, parts))
        kinds = list(product(range(len(parts)), affinities))
        trees = list(threads.map(lambda kind: MergeTree.of(coarse[kind[0]], kind[1], colours), kinds))
        origins = np.array([p for p, _ in kinds])
        names = [tree.combine(_names(parts[p], keys)) for tree, p in zip(trees, origins, strict=True)]
        _, first = np.unique(np.concatenate(names), return_index=True)
        first.sort()
        lengths = [len(n) for n in names]
        sources = np.stack([np.repeat(np.arange(len(trees)), lengths), np.concatenate([*map(np.arange, lengths)])], 1)
        columns = [(tree.sizes, tree.boxes, tree.outlines, tree.likeness) for tree in trees]
        sizes, boxes, outlines, likeness = (np.concatenate(column)[first] for column in zip(*columns, strict=True))
        return cls(sizes, boxes, outlines, likeness, sources[first], trees, origins, parts, graph)


def _names(part: np.ndarray, keys: np.ndarray) -> np.ndarray:
    names = np.zeros(int(part.max()) + 1, np.uint64)
    np.bitwise_xor.at(names, part, keys)
    return names
