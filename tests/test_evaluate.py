"""The steps evaluate, attend and rescore: files, cache, ranks, and real photos against plain loops."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from entities_folder import add_unreadable_photo, write_entities
from phrase_loops import same, slow_precision, slow_recall

from eval.attend import attend, rescore
from eval.evaluate import evaluate
from eval.flickr30k import Flickr30kEntities
from eval.phrase_results import PhraseResult
from eval.predictions import read_predictions
from proposals.errors import InputError


@pytest.fixture
def two(tmp_path) -> Path:
    """A readable photo and an unreadable one."""
    return add_unreadable_photo(write_entities(tmp_path))


def test_the_step_writes_metrics_and_predictions(two, grounder, tmp_path, capsys):
    metrics = evaluate(grounder, str(two), "toy", str(tmp_path / "out"))
    assert json.dumps(metrics) == json.dumps(json.loads((tmp_path / "out" / "metrics.json").read_text()))
    assert (metrics["images"], metrics["phrases"], metrics["skipped_images"]) == (2, 6, ["8"])
    assert metrics["method"] == "c-mwp-partial" and metrics["target"] == "pool3"  # not null, the setting
    assert metrics["ranked_by"] == ["c-mwp-partial", "c-mwp", "cam"]
    predictions = list(read_predictions(tmp_path / "out" / "predictions.jsonl"))
    assert [p.place for p in predictions[:3]] == [("7", 0, 0), ("7", 1, 1), ("7", 1, 2)]
    assert all(not len(p.boxes) for p in predictions[3:])
    for prediction in predictions[:3]:
        assert (np.diff(prediction.scores) <= 0).all() and prediction.boxes.min() >= 0
        assert prediction.boxes[:, [0, 2]].max() <= 99 and prediction.boxes[:, [1, 3]].max() <= 79
    assert metrics["baselines"]["whole_image"]["1"] == pytest.approx(100 * 2 / 6)
    assert "could not be read, counted as misses: 8" in capsys.readouterr().out


def test_cache_changes_no_metric_and_avoids_computation(two, grounder, tmp_path, monkeypatch):
    without = evaluate(grounder, str(two), "toy", str(tmp_path / "a"))
    cached = evaluate(grounder, str(two), "toy", str(tmp_path / "b"), cache=str(tmp_path / "cache"))
    monkeypatch.setattr(grounder.topdown, "look", lambda *_: pytest.fail("computed again"))
    monkeypatch.setattr(grounder, "proposer", Refuses(grounder.proposer))
    again = evaluate(grounder, str(two), "toy", str(tmp_path / "c"), cache=str(tmp_path / "cache"))
    for metrics in (cached, again):
        assert {k: v for k, v in metrics.items() if k != "proposals"} == {
            k: v for k, v in without.items() if k != "proposals"
        }
    (maps,) = (tmp_path / "cache").glob("maps-c-mwp-*/7-*.npz")
    maps.write_bytes(maps.read_bytes()[:50])  # as a full disk may leave it
    monkeypatch.undo()
    assert evaluate(grounder, str(two), "toy", str(tmp_path / "d"), cache=str(tmp_path / "cache")) == without


class Refuses:
    """Has a proposer's settings, name and module, which the cache compares, but never proposes."""

    def __init__(self, proposer):
        self.__dict__ |= vars(proposer)
        type(self).__name__, type(self).__module__ = type(proposer).__name__, type(proposer).__module__

    def __call__(self, image, name=None):
        pytest.fail("proposed again")


RANK = """
import sys
from eval.evaluate import evaluate
from grounding import Grounder
evaluate(Grounder.load("googlenet", side=224), sys.argv[1], "toy", sys.argv[2], cache=sys.argv[3])
"""


@pytest.mark.slow
def test_two_ranks_give_the_metrics_of_one_process(two, grounder, tmp_path):
    alone = evaluate(grounder, str(two), "toy", str(tmp_path / "alone"))
    (tmp_path / "run.py").write_text(RANK)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    arguments = [str(tmp_path / "run.py"), str(two), str(tmp_path / "out"), str(tmp_path / "cache")]
    subprocess.run([*launch, *arguments], env=environment, check=True, capture_output=True, timeout=120)
    together = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert together == json.loads(json.dumps(alone))


def test_attend_and_rescore_give_the_predictions_of_evaluate(two, grounder, tmp_path, monkeypatch, caplog):
    assert attend(grounder, str(two), "toy", str(tmp_path / "cache")) == ["8"]
    assert caplog.messages[-1] == "2 photos: 1 kept, 1 unusable"
    monkeypatch.setattr(grounder.topdown, "look", lambda *_: pytest.fail("computed again"))
    assert rescore(grounder, str(two), "toy", str(tmp_path / "out"), str(tmp_path / "cache")) == ["8"]
    evaluate(grounder, str(two), "toy", str(tmp_path / "whole"), cache=str(tmp_path / "cache"))
    ours, whole = (tmp_path / name / "predictions.jsonl" for name in ("out", "whole"))
    assert ours.read_bytes() == whole.read_bytes()
    with pytest.raises(InputError, match="step=attend writes to a cache: set cache=FOLDER"):
        attend(grounder, str(two), "toy", None)


def test_photos_without_a_usable_annotation_are_left_out_and_named(two, grounder, tmp_path, capsys):
    whole = evaluate(grounder, str(two), "toy", str(tmp_path / "whole"))
    (two / "toy.txt").write_text("none\n7\n7\n8\n")
    metrics = evaluate(grounder, str(two), "toy", str(tmp_path / "out"))
    assert metrics == whole | {"left_out": ["none", "7"]}
    rows = map(json.loads, (tmp_path / "out" / "skipped.jsonl").read_text().splitlines())
    assert [(row["name"], row["reason"]) for row in rows] == [
        ("none", "with an unusable annotation"),
        ("7", "listed twice"),
        ("8", "unusable"),
    ]
    assert "photos without a usable annotation, left out: none, 7" in capsys.readouterr().out
    assert rescore(grounder, str(two), "toy", str(tmp_path / "out")) == ["8"]


def test_missing_photos_are_told_before_the_work(two, grounder, tmp_path, caplog):
    (two / "images" / "8.jpg").unlink()
    evaluate(grounder, str(two), "toy", str(tmp_path / "out"))
    assert caplog.messages[0] == "1 of 2 photos are missing: 8.jpg"
    assert caplog.messages[-1] == f"2 photos: 1 kept, 1 unusable; see {tmp_path}/out/skipped.jsonl"
    (two / "images" / "7.jpg").unlink()
    for step in (evaluate, attend, rescore):
        with pytest.raises(InputError, match=r"none of 2 photos exists: looked in .*images for 7\.jpg, 8\.jpg; copy"):
            step(grounder, str(two), "toy", str(tmp_path / "none"))
    assert not (tmp_path / "none").exists()
    (two / "images" / "7.jpg").write_text("no photo")
    with pytest.raises(InputError, match=r"none of 2 photos can be used \(2 unusable\)"):
        attend(grounder, str(two), "toy", str(tmp_path / "cache"))


def test_ranks_need_a_cache(two, grounder, tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="set cache=FOLDER"):
        evaluate(grounder, str(two), "toy", str(tmp_path))


def slow_overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Inclusive pixels, as the VOC program counts them."""
    width = min(a[2], b[2]) - max(a[0], b[0]) + 1
    height = min(a[3], b[3]) - max(a[1], b[1]) + 1
    if width <= 0 or height <= 0:
        return 0
    areas = [(box[2] - box[0] + 1) * (box[3] - box[1] + 1) for box in (a, b)]
    return width * height / (areas[0] + areas[1] - width * height)


@pytest.mark.slow
def test_metrics_of_real_photos_match_their_definitions(data, grounder, tmp_path):
    entities = data / "flickr30k_entities"
    metrics = evaluate(grounder, str(entities), "val", str(tmp_path), limit=6)
    predicted = {p.place: p for p in read_predictions(tmp_path / "predictions.jsonl")}
    results = []
    for image in list(Flickr30kEntities(entities, "val"))[:6]:
        for entity in image.entities:
            place = (image.id, entity.sentence, entity.phrase)
            x1, y1 = min(b[0] for b in entity.boxes), min(b[1] for b in entity.boxes)
            x2, y2 = max(b[2] for b in entity.boxes) - 1, max(b[3] for b in entity.boxes) - 1
            rank = np.inf
            for i, box in enumerate(predicted[place].boxes):
                if slow_overlap(box, (x1, y1, x2, y2)) >= 0.5:
                    rank = i + 1.0
                    break
            area = (x2 + 1 - x1) * (y2 + 1 - y1) / (image.size[0] * image.size[1])
            scores = predicted[place].scores
            results.append(PhraseResult(place, entity.text, entity.types, area, np.inf, False, rank, scores=scores))
    assert len(results) == metrics["phrases"] > 50
    small = [p for p in results if p.area < 0.25]
    for k in (1, 5, 10):
        assert same(metrics["recall"][str(k)], slow_recall(results, k))
        assert same(metrics["recall_small"][str(k)], slow_recall(small, k))
    for name, found in metrics["ap_by_type"].items():
        assert same(found, slow_precision([p for p in results if name in p.types]))
