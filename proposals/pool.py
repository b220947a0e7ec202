"""The pool of candidate regions: all distinct regions of several merge trees."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import product

import numpy as np

from proposals.mergetree import Affinity, MergeTree
from proposals.regiongraph import RegionGraph


@dataclass(frozen=True)
class Pool:
    """The n distinct regions of T merge trees, which merge the regions of P partitions of S superpixels.

    Attributes:
        sizes: ``(n,)`` float64, pixels of each region.
        boxes: ``(n, 4)`` int64, bounding boxes: xyxy in cells, half-open.
        outlines: ``(n, 2)`` float64, see ``MergeTree``.
        similarity: ``(n,)`` float64 in 0..1, see ``MergeTree``.
        sources: ``(n, 2)`` int64, the tree 0..T-1 and the node of each region.
        trees: the T merge trees.
        origins: ``(T,)`` int64, the partition 0..P-1 that each tree merges.
        parts: ``(P, S)`` int32, the region of each superpixel in each partition.
        graph: the superpixels and their adjacency.
    """

    sizes: np.ndarray
    boxes: np.ndarray
    outlines: np.ndarray
    similarity: np.ndarray
    sources: np.ndarray
    trees: list[MergeTree]
    origins: np.ndarray
    parts: np.ndarray
    graph: RegionGraph

    @classmethod
    def build(
        cls,
        graph: RegionGraph,
        parts: np.ndarray,
        affinities: Sequence[Affinity],
        colours: int,
        seed: int,
        threads: ThreadPoolExecutor,
    ) -> "Pool":
        """Builds a merge tree for each pair of a partition and an affinity, and collects their regions.

        Args:
            graph: the superpixels; its histograms hold the colour bins first, then the texture bins.
            parts: ``(P, S)`` int32, the region of each superpixel in each partition.
            affinities: weights of the similarity; one tree is built for each of them and each partition.
            colours: number of colour bins.
            seed: seed of the superpixels' random 63-bit keys. A region is identified by the xor of its keys, so that
                regions of different trees are equal if their keys are.
            threads: builds the trees in parallel; the result does not depend on the number of threads.
        """
        keys = np.random.default_rng(seed).integers(0, 2**63, len(graph.sizes), np.uint64)
        coarse = list(threads.map(graph.coarsen, parts))
        kinds = list(product(range(len(parts)), affinities))
        trees = list(threads.map(lambda kind: MergeTree.from_graph(coarse[kind[0]], kind[1], colours), kinds))
        origins = np.array([p for p, _ in kinds])
        region_keys = [tree.combine(_region_keys(parts[p], keys)) for tree, p in zip(trees, origins, strict=True)]
        _, first = np.unique(np.concatenate(region_keys), return_index=True)
        first.sort()
        lengths = [len(k) for k in region_keys]
        sources = np.stack([np.repeat(np.arange(len(trees)), lengths), np.concatenate([*map(np.arange, lengths)])], 1)
        columns = [(tree.sizes, tree.boxes, tree.outlines, tree.similarity) for tree in trees]
        sizes, boxes, outlines, similarity = (np.concatenate(column)[first] for column in zip(*columns, strict=True))
        return cls(sizes, boxes, outlines, similarity, sources[first], trees, origins, parts, graph)


def _region_keys(part: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """The key of each region of a partition: the xor of its superpixels' keys."""
    combined = np.zeros(int(part.max()) + 1, np.uint64)
    np.bitwise_xor.at(combined, part, keys)
    return combined
