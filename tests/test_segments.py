"""SegmentProposer: each fast part is compared with its definition, and the whole runs on real photos."""

import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import skimage
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage, sparse

from proposals import SegmentProposer
from proposals.consensus import MIN_SHARE, consensus
from proposals.mergetree import Affinity, MergeTree
from proposals.partition import common_refinement, graph_segmentations
from proposals.pool import Pool
from proposals.ranking import FULL_IOU, GROUP_IOU, MIN_IOU, choose, greedy_coverage, objectness, pairwise_iou
from proposals.regiongraph import RegionGraph

PHOTOS = Path(skimage.__file__).parent / "data"
seeds = st.integers(0, 2**32)
fast = settings(deadline=None, max_examples=30)


def photo(name: str) -> np.ndarray:
    return np.asarray(Image.open(PHOTOS / name).convert("RGB"))


def partition(rng: np.random.Generator, h: int, w: int, seeds: int) -> np.ndarray:
    """A label map that assigns each pixel to the nearest of some random points; every label is connected."""
    points = rng.random((seeds, 2)) * (h, w)
    grid = np.stack(np.mgrid[:h, :w], -1)[:, :, None] + 0.5
    nearest = ((grid - points) ** 2).sum(-1).argmin(-1)
    return common_refinement(nearest[None].astype(np.int32))


def random_graph(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, RegionGraph]:
    rng = np.random.default_rng(seed)
    h, w = rng.integers(1, 20, 2)
    labels = partition(rng, h, w, int(rng.integers(1, 15)))
    bins = np.stack([rng.integers(0, 4, (h, w)), rng.integers(4, 7, (h, w))], 2).astype(np.int32)
    bins[0, 0] = 3, 6
    contour = rng.random((h, w)).astype(np.float32)
    return labels, bins, contour, RegionGraph.from_labels(labels, bins, contour)


def same_partition(a: np.ndarray, b: np.ndarray) -> bool:
    pairs = np.unique(np.stack([a.ravel(), b.ravel()]), axis=1).shape[1]
    return pairs == len(np.unique(a)) == len(np.unique(b))


def felzenszwalb(image: np.ndarray, scale: float, min_size: int) -> np.ndarray:
    """The algorithm of Sec. 4 of the paper, with label arrays instead of a disjoint-set forest."""
    h, w = image.shape[:2]
    edges = []
    for y, x in np.ndindex(h, w):
        for v, u in ((y, x + 1), (y + 1, x), (y + 1, x + 1), (y + 1, x - 1)):
            if v < h and 0 <= u < w:
                edges.append((float(np.linalg.norm(image[y, x] - image[v, u])), y * w + x, v * w + u))
    edges.sort(key=lambda edge: edge[0])
    label, internal = np.arange(h * w), dict.fromkeys(range(h * w), 0.0)
    for weight, i, j in edges:
        a, b = label[i], label[j]
        sizes = [(label == a).sum(), (label == b).sum()]
        if a != b and weight <= min(internal[a] + scale / sizes[0], internal[b] + scale / sizes[1]):
            label[label == b], internal[a] = a, weight
    for _, i, j in edges:
        a, b = label[i], label[j]
        if a != b and min((label == a).sum(), (label == b).sum()) < min_size:
            label[label == b] = a
    return label.reshape(h, w)


@given(seeds, st.sampled_from([0.5, 2, 8]), st.integers(1, 6))
@fast
def test_graph_segmentation_equals_the_papers_algorithm(seed, scale, min_size):
    rng = np.random.default_rng(seed)
    # few different distances, so that each has its own bin; equal distances keep the raster order
    image = rng.integers(0, 6, (*rng.integers(1, 9, 2), 1)).astype(np.float32)
    (labels,) = graph_segmentations(image, [scale], min_size, 10**6)
    assert same_partition(labels, felzenszwalb(image, scale, min_size))


def test_graph_segmentation_respects_max_regions():
    noise = np.random.default_rng(0).random((60, 60, 3)).astype(np.float32)
    many, few = (graph_segmentations(noise, [0.01], 1, most)[0].max() + 1 for most in (10**6, 50))
    assert few <= 50 < many


@given(seeds)
@fast
def test_common_refinement_equals_the_intersections_of_the_regions(seed):
    rng = np.random.default_rng(seed)
    h, w = rng.integers(1, 15, 2)
    partitions = np.stack([partition(rng, h, w, int(n)) for n in rng.integers(1, 8, 3)])
    cells = np.unique(partitions.reshape(3, -1), axis=1, return_inverse=True)[1].reshape(h, w)
    expected, used = np.zeros((h, w), int), 0
    for cell in np.unique(cells):
        parts, count = ndimage.label(cells == cell)
        expected[parts > 0] = parts[parts > 0] + used
        used += count
    assert same_partition(common_refinement(partitions), expected)


@given(seeds)
@fast
def test_region_graph_features_equal_their_definitions(seed):
    labels, bins, contour, graph = random_graph(seed)
    h, w = labels.shape
    for i in range(labels.max() + 1):
        y, x = np.nonzero(labels == i)
        assert graph.sizes[i] == len(y)
        assert graph.boxes[i].tolist() == [x.min(), y.min(), x.max() + 1, y.max() + 1]
        np.testing.assert_array_equal(graph.histograms[i], np.bincount(bins[y, x].ravel(), minlength=7))
    shared: dict[tuple[int, int], list[float]] = {}
    for y, x in np.ndindex(h, w):
        for v, u in ((y, x + 1), (y + 1, x)):
            if v < h and u < w and labels[y, x] != labels[v, u]:
                pair = tuple(sorted((int(labels[y, x]), int(labels[v, u]))))
                shared.setdefault(pair, []).append((contour[y, x] + contour[v, u]) / 2)
    assert [tuple(pair) for pair in graph.pairs.tolist()] == sorted(shared)
    np.testing.assert_array_equal(graph.lengths, [len(shared[pair]) for pair in sorted(shared)])
    np.testing.assert_allclose(graph.strengths, [sum(shared[pair]) for pair in sorted(shared)], rtol=1e-6)


@given(seeds)
@fast
def test_coarsened_graph_equals_the_graph_of_the_coarse_label_map(seed):
    labels, bins, contour, graph = random_graph(seed)
    rng = np.random.default_rng(seed)
    part = np.unique(rng.integers(0, 4, len(graph.sizes)), return_inverse=True)[1]
    coarse, expected = graph.coarsen(part), RegionGraph.from_labels(part[labels].astype(np.int32), bins, contour)
    for name in ("sizes", "boxes", "histograms", "pairs", "lengths", "strengths"):
        np.testing.assert_allclose(getattr(coarse, name), getattr(expected, name), rtol=1e-6, err_msg=name)
    np.testing.assert_allclose(coarse.outlines(), expected.outlines(), rtol=1e-6)


def affinity(graph: RegionGraph, a: set[int], b: set[int], weights: Affinity) -> float:
    """The similarity of two sets of regions, as ``Affinity`` defines it; -inf if they are not adjacent."""
    total, both = graph.sizes.sum(), sorted(a | b)
    between = [len({int(i) in a, int(j) in a}) == 2 and {int(i), int(j)} <= a | b for i, j in graph.pairs]
    if not any(between):
        return -np.inf
    size, boxes = graph.sizes[both].sum(), graph.boxes[both]
    box = np.prod(boxes[:, 2:].max(0) - boxes[:, :2].min(0))
    one, other = (graph.histograms[sorted(s)].sum(0) / graph.sizes[sorted(s)].sum() for s in (a, b))
    common = np.minimum(one, other)
    contour = graph.strengths[between].sum() / graph.lengths[between].sum()
    return (
        weights.colour * common[:4].sum()
        + weights.texture * common[4:].sum()
        + weights.size * (1 - size / total)
        + weights.fill * (1 - (box - size) / total)
        + weights.boundary * (1 - contour)
    )


@given(seeds, st.lists(st.floats(0, 2), min_size=5, max_size=5))
@fast
def test_each_merge_joins_the_most_similar_neighbours(seed, weights):
    _, _, _, graph = random_graph(seed)
    terms = Affinity(*weights)
    tree = MergeTree.from_graph(graph, terms, colours=4)
    n = len(graph.sizes)
    sets = {i: {i} for i in range(n)}
    for m, (a, b) in enumerate(tree.children.tolist()):
        pairs = [(i, j) for i in sets for j in sets if i < j]
        most = max(affinity(graph, sets[i], sets[j], terms) for i, j in pairs)
        assert affinity(graph, sets[a], sets[b], terms) >= most - 1e-4
        sets[n + m] = sets.pop(a) | sets.pop(b)
        inside = sorted(sets[n + m])
        assert tree.sizes[n + m] == graph.sizes[inside].sum()
        outer = np.isin(graph.pairs, inside).sum(1) == 1
        np.testing.assert_allclose(tree.outlines[n + m, 0], graph.lengths[outer].sum(), atol=1e-3)
        np.testing.assert_allclose(tree.outlines[n + m, 1], graph.strengths[outer].sum(), atol=1e-3)
        low, high = graph.boxes[inside, :2].min(0), graph.boxes[inside, 2:].max(0)
        assert tree.boxes[n + m].tolist() == [*low, *high]
    assert len(sets) == 1 and tree.sizes[-1] == graph.sizes.sum()


def sets_below(tree: MergeTree) -> list[set[int]]:
    sets = [{i} for i in range(len(tree.children) + 1)]
    for a, b in tree.children.tolist():
        sets.append(sets[a] | sets[b])
    return sets


@given(seeds)
@fast
def test_each_node_is_an_interval_of_the_leaves(seed):
    _, _, _, graph = random_graph(seed)
    tree = MergeTree.from_graph(graph, Affinity(size=1), colours=4)
    spans = tree.spans()
    order = np.argsort(spans[: len(graph.sizes), 0])
    for node, inside in enumerate(sets_below(tree)):
        assert set(order[slice(*spans[node])].tolist()) == inside


def random_pool(seed: int) -> tuple[np.ndarray, RegionGraph, Pool]:
    labels, _, _, graph = random_graph(seed)
    rng = np.random.default_rng(seed)
    parts = [np.unique(rng.integers(0, 6, len(graph.sizes)), return_inverse=True)[1] for _ in range(2)]
    with ThreadPoolExecutor(2) as threads:
        pool = Pool.build(graph, np.stack(parts), (Affinity(colour=1), Affinity(size=1, fill=1)), 4, 0, threads)
    return labels, graph, pool


def members(pool: Pool) -> np.ndarray:
    """The superpixels of each region, ``(n, S)`` bool, by following the merges."""
    below = [sets_below(tree) for tree in pool.trees]
    return np.array([np.isin(pool.parts[pool.origins[t]], sorted(below[t][node])) for t, node in pool.sources])


@given(seeds)
@fast
def test_regions_of_the_pool_are_distinct(seed):
    labels, _, pool = random_pool(seed)
    inside = members(pool)
    assert len(np.unique(inside, axis=0)) == len(inside)
    assert inside.all(1).sum() == 1
    for i, row in enumerate(inside):
        y, x = np.nonzero(row[labels])
        assert pool.sizes[i] == len(y)
        assert pool.boxes[i].tolist() == [x.min(), y.min(), x.max() + 1, y.max() + 1]


@given(seeds, st.integers(1, 6))
@fast
def test_consensus_contains_the_superpixels_with_enough_votes(seed, groups):
    labels, _, pool = random_pool(seed)
    rng = np.random.default_rng(seed)
    inside = members(pool)
    weights = rng.random((groups, len(inside))) * (rng.random((groups, len(inside))) < 0.3)
    weights[np.arange(groups), rng.integers(0, len(inside), groups)] = 1
    for found, row in zip(consensus(pool, sparse.csr_array(weights)), weights, strict=True):
        votes = row @ inside
        expected = votes >= min(MIN_SHARE * row.sum(), votes.max())
        np.testing.assert_array_equal(found[labels], ndimage.binary_fill_holes(expected[labels]))


def iou(boxes: np.ndarray) -> np.ndarray:
    corner = np.maximum(boxes[:, None, :2], boxes[None, :, :2]), np.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    common = np.clip(corner[1] - corner[0], 0, None).prod(2)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    return common / (areas[:, None] + areas - common)


@given(seeds)
@fast
def test_group_weights_are_objectness_times_overlap(seed):
    labels, _, pool = random_pool(seed)
    groups, gains = choose(pool, labels.size, 5)
    overlaps, weights = iou(pool.boxes), objectness(pool, labels.size)
    for row in groups.toarray():
        candidates = np.flatnonzero(np.isclose(row, weights, rtol=1e-6))
        expected = [np.where(overlaps[i] >= GROUP_IOU, overlaps[i] * weights, 0) for i in candidates]
        assert any(np.allclose(row, e, rtol=1e-5) for e in expected)
    assert len(groups.toarray()) == len(gains) == min(5, len(np.unique(pool.boxes, axis=0)))


@given(seeds)
@fast
def test_greedy_coverage_selects_the_largest_gain(seed):
    rng = np.random.default_rng(seed)
    low = rng.integers(0, 10, (20, 2))
    boxes = np.unique(np.concatenate([low, low + rng.integers(1, 8, (20, 2))], 1), axis=0)
    weights = rng.random(len(boxes))
    overlaps = iou(boxes)
    found = pairwise_iou(boxes)
    np.testing.assert_allclose(found.toarray(), np.where(overlaps > MIN_IOU, overlaps, 0), rtol=1e-6)
    chosen, gains = greedy_coverage(found, weights, len(boxes) - 1)

    cover = np.clip((overlaps - MIN_IOU) / (FULL_IOU - MIN_IOU), 0, 1)
    covered = np.zeros(len(boxes))
    for i, gain in zip(chosen, gains, strict=True):
        every = (np.clip(cover - covered, 0, None) * weights).sum(1)
        np.testing.assert_allclose([gain, every[i]], every.max(), atol=1e-5)
        covered = np.maximum(covered, cover[i])
    assert len(set(chosen.tolist())) == len(chosen) and (np.diff(gains) <= 0).all()


@pytest.mark.parametrize("name", ["astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg"])
def test_segments_of_real_photos_are_distinct_and_reproducible(name):
    image = photo(name)
    found = SegmentProposer()(image)
    height, width = image.shape[:2]
    assert len(found) == 500 and min(found.shape) == 300 and found.size == (height, width)
    assert (np.diff(found.scores) <= 0).all() and found.scores[-1] >= 0
    assert len({found.mask(i).tobytes() for i in range(500)}) == 500
    whole = found.areas.argmax()
    assert found.areas[whole] == 1 and found.boxes[whole].tolist() == [0, 0, width, height]
    again = SegmentProposer(threads=3)(image)
    for name in ("labels", "members", "offsets", "scores"):
        np.testing.assert_array_equal(getattr(again, name), getattr(found, name))


def test_the_astronaut_and_her_face_are_found():
    # boxes drawn by hand on scikit-image's photo
    face, woman = np.array([172, 62, 280, 205]), np.array([15, 0, 470, 512])
    boxes = SegmentProposer()(photo("astronaut.png")).boxes
    for box in (face, woman):
        common = np.clip(np.minimum(boxes[:, 2:], box[2:]) - np.maximum(boxes[:, :2], box[:2]), 0, None).prod(1)
        areas = (boxes[:, 2:] - boxes[:, :2]).prod(1) + (box[2:] - box[:2]).prod()
        assert (common / (areas - common)).max() >= 0.6


@pytest.mark.parametrize("size", [(1, 1), (1, 2), (1, 4000), (4000, 1), (40, 30), (4000, 6000)])
@pytest.mark.parametrize("kind", ["uniform", "halves"])
def test_uniform_and_extremely_shaped_images_give_the_whole_image(size, kind):
    image = np.full((*size, 3), 90, np.uint8)
    if kind == "halves":
        image[:, size[1] // 2 :] = 200
    found = SegmentProposer(side=60)(image)
    assert len(found) >= 1 and found.areas.max() == 1
    assert max(found.shape) <= 240
    if kind == "uniform":
        assert len(found) == 1


def test_count_limits_the_number_of_segments():
    noise = np.random.default_rng(0).integers(0, 255, (90, 120, 3), np.uint8)
    for count in (1, 7):
        found = SegmentProposer(count=count, side=90)(noise)
        assert len(found) == count and found.areas.max() == 1


@pytest.mark.slow
@pytest.mark.skipif("GROUNDING_DATA" not in os.environ, reason="set GROUNDING_DATA to a folder that contains coco2017")
def test_coco_objects_are_found():
    root = Path(os.environ["GROUNDING_DATA"], "coco2017")
    truth = json.loads((root / "annotations" / "instances_val2017.json").read_text())
    found = []
    for entry in truth["images"][:10]:
        boxes = SegmentProposer()(np.asarray(Image.open(root / "val2017" / entry["file_name"]).convert("RGB"))).boxes
        for thing in truth["annotations"]:
            if thing["image_id"] == entry["id"] and not thing["iscrowd"]:
                low, extent = np.array(thing["bbox"]).reshape(2, 2)
                common = np.clip(np.minimum(boxes[:, 2:], low + extent) - np.maximum(boxes[:, :2], low), 0, None)
                union = (boxes[:, 2:] - boxes[:, :2]).prod(1) + extent.prod() - common.prod(1)
                found.append((common.prod(1) / union).max() >= 0.5)
    assert np.mean(found) >= 0.5
