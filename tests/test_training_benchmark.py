"""The benchmark of a training."""

import pytest
from made_shards import make_shards, tiny_tagger

from proposals.errors import InputError
from training import benchmark


class _Here:
    """A process pool that works in this process."""

    def __init__(self, *_):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def submit(self, work, *arguments):
        self.result = lambda: work(*arguments)
        return self


def test_the_rows_of_a_training(tmp_path, monkeypatch):
    monkeypatch.setattr(benchmark, "ProcessPoolExecutor", _Here)
    root = make_shards(tmp_path / "shards", train=6)
    init = tiny_tagger(tmp_path / "tiny.safetensors")
    small = {"steps": 2, "rounds": 2, "workers": [0, 1], "tags": 500, "dense_batch": 8}
    rows, common = benchmark.measure(str(root), init, batch=4, **small)
    found = {row["work"]: row for row in rows}
    assert found["in memory"]["of the ceiling"] == 1
    assert all(found[f"loop, {n} workers"]["photos/s"] > 0 for n in (0, 1))
    assert all(found[f"loader alone, {n} workers"]["photos/s"] > 0 for n in (0, 1))
    assert found["tag layer, ours, 500 tags, batch 8"]["seconds"] > 0
    assert found["tag layer, ours, 500 tags, batch 8"]["gradients differ"] < 1e-6
    assert "whole step, dense targets, 500 tags, batch 8" in found
    assert common == {"ranks": 1, "batch": 4, "precision": "float32", "photos": 24}
    with pytest.raises(InputError, match=r"too few photos for 33 steps of 4: lower benchmark\.steps="):
        benchmark.measure(str(root), init, batch=4, **(small | {"steps": 30}))
