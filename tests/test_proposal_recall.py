"""Overlaps of proposals and objects, compared with masks, and the benchmark of proposals."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_coco import POLYGONS, RUNS, SQUARE, write
from test_proposals import boxes, segments

from eval.benchmark import benchmark
from eval.benchmark_proposals import measure
from eval.proposal_recall import best_among, box_overlap, pixels_per_cell, recall_metrics, region_overlap
from proposals import InputError, Proposals, SegmentProposer


@given(st.one_of(segments(), boxes()), st.integers(0, 3), st.integers(0, 2**32))
@settings(deadline=None, max_examples=60)
def test_region_overlap_matches_masks_at_the_photos_pixels(found: Proposals, count: int, seed: int):
    masks = np.random.default_rng(seed).random((count, *found.size)) < 0.5
    got = region_overlap(found, masks) if count else np.zeros((0, len(found)))
    rows, columns = (
        [int((i + 0.5) * cells / pixels) for i in range(pixels)]
        for pixels, cells in zip(found.size, found.shape, strict=True)
    )
    for m, mask in enumerate(masks):
        for r in range(len(found)):
            region = found.mask(r)[np.ix_(rows, columns)]
            union = (mask | region).sum()
            assert got[m, r] == pytest.approx((mask & region).sum() / union if union else 0, abs=1e-12)


@given(st.integers(0, 2**32))
@settings(deadline=None, max_examples=30)
def test_box_overlap_matches_masks(seed):
    rng = np.random.default_rng(seed)
    low = rng.integers(0, 10, (6, 2))
    both = np.concatenate([low, low + rng.integers(1, 10, (6, 2))], 1)
    masks = np.zeros((6, 20, 20), bool)
    for mask, (x1, y1, x2, y2) in zip(masks, both, strict=True):
        mask[y1:y2, x1:x2] = True
    common = (masks[:2, None] & masks[None, 2:]).sum((2, 3))
    union = (masks[:2, None] | masks[None, 2:]).sum((2, 3))
    np.testing.assert_allclose(box_overlap(both[2:].astype(float), both[:2].astype(float)), common / union)


def test_each_pixel_is_in_one_cell():
    mask = np.random.default_rng(0).random((37, 53)) < 0.5
    for shape in ((10, 10), (37, 53), (50, 80)):
        assert pixels_per_cell(mask, shape).sum() == mask.sum()


def test_best_overlap_among_the_first_proposals():
    overlaps = np.array([[0.1, 0.6, 0.2], [0.3, 0.1, 0.9]])
    assert best_among(overlaps, [0, 1, 2, 3, 9]).tolist() == [[0, 0.1, 0.6, 0.6, 0.6], [0, 0.3, 0.3, 0.9, 0.9]]
    assert best_among(np.zeros((2, 0)), [5]).tolist() == [[0], [0]]


def test_recall_metrics():
    got = recall_metrics(np.array([0.4, 0.5, 0.7, 0.9]), np.array([0.001, 0.01, 0.05, 0.1]))
    assert got["R@.5"] == 0.75 and got["R@.7"] == 0.5 and got["ABO"] == pytest.approx(0.625)
    assert [got[f"ABO {size}"] for size in ("<1 %", "1-10 %", ">10 %")] == pytest.approx([0.4, 0.6, 0.9])
    assert got["ABO sizes"] == pytest.approx((0.4 + 0.6 + 0.9) / 3)
    assert recall_metrics(np.array([0.4]), np.array([0.5]))["ABO <1 %"] is None


def test_benchmark_prints_and_draws(tmp_path, capsys):
    root = write(tmp_path, SQUARE | {"segmentation": POLYGONS}, SQUARE | {"segmentation": RUNS, "iscrowd": 1})

    def absent(image, name=None):
        raise InputError("its package is missing")

    proposers = {"ours": SegmentProposer(side=20), "absent": absent}
    record = benchmark(lambda: measure(str(root), ["val"], proposers, str(tmp_path), [1, 10]), str(tmp_path))
    ours = [row for row in record["rows"] if row["proposer"] == "ours"]
    assert [(row["as"], row["count"]) for row in ours] == [(k, c) for k in ("boxes", "segments") for c in (1, 10)]
    # the photo is blank, so the only proposal is the whole image: 40 pixels, 8 of the object's mask and 6 of its box
    assert ours[0]["ABO"] == pytest.approx(6 / 40) and ours[2]["ABO"] == pytest.approx(8 / 40)
    assert ours[0]["seconds"] > 0 and record["objects"] == 1 and "MCG, published" in capsys.readouterr().out
    assert (tmp_path / "recall.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((tmp_path / "benchmark.json").read_text())["rows"] == record["rows"]


def test_data_set_without_objects_is_an_error(tmp_path):
    with pytest.raises(InputError, match="has no object in val"):
        measure(str(write(tmp_path)), ["val"], {"ours": SegmentProposer(side=20)}, str(tmp_path))
