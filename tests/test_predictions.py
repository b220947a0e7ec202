"""Evaluation of a file of predictions: good and malformed lines, and boxes that are compared as they are."""

import json
from pathlib import Path

import numpy as np
import pytest
from entities_folder import add_unreadable_photo, write_entities

from eval.evaluate import evaluate
from eval.flickr30k import Flickr30kEntities
from eval.predictions import Prediction, write_predictions
from proposals.errors import InputError


@pytest.fixture
def two(tmp_path) -> Path:
    """A readable photo and an unreadable one."""
    return add_unreadable_photo(write_entities(tmp_path))


def test_file_of_our_own_predictions_gives_our_own_metrics(two, grounder, tmp_path):
    own = evaluate(grounder, str(two), "toy", str(tmp_path / "a"))
    file = evaluate(grounder, str(two), "toy", str(tmp_path / "b"), predictions=str(tmp_path / "a/predictions.jsonl"))
    for key in ("recall", "recall_by_type", "ap_group", "ap_phrase", "recall_any_box"):
        assert file[key] == own[key]
    assert file["unknown_predictions"] == [] and "pointing" not in file


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "p.jsonl:2: Expecting property name"),
        ("[]", "p.jsonl:2: a line must be a JSON object"),
        ('{"image": "7"}', "p.jsonl:2: 'sentence' is missing"),
        ('{"image": 7, "sentence": 0, "phrase": 0, "boxes": [], "scores": []}', "image must be a string"),
        ('{"image": "7", "sentence": -1, "phrase": 0, "boxes": [], "scores": []}', "whole numbers from 0"),
        ('{"image": "7", "sentence": true, "phrase": 0, "boxes": [], "scores": []}', "whole numbers from 0"),
        (
            '{"image": "7", "sentence": 1, "phrase": 1, "boxes": [[1, 2, 3]], "scores": [1]}',
            "must be a list of N boxes",
        ),
        (
            '{"image": "7", "sentence": 1, "phrase": 1, "boxes": [[1, 2, 3, 4]], "scores": []}',
            "must be a list of N boxes",
        ),
        ('{"image": "7", "sentence": 1, "phrase": 1, "boxes": [[1, 2, 3, NaN]], "scores": [1]}', "must be finite"),
        ('{"image": "7", "sentence": 1, "phrase": 1, "boxes": [[1, 2, 3, 4]], "scores": [Infinity]}', "must be finite"),
        ('{"image": "7", "sentence": 1, "phrase": 1, "boxes": [["1", 2, 3, 4]], "scores": [1]}', "must be finite"),
        ('{"image": "7", "sentence": 1, "phrase": 1, "boxes": [[1], [2, 3]], "scores": [1]}', "p.jsonl:2: "),
        ('{"image": "7", "sentence": 0, "phrase": 0, "boxes": [], "scores": []}', "is already in line 1: keep one"),
    ],
)
def test_malformed_line_is_reported_with_its_number(two, grounder, tmp_path, line, reason):
    good = json.dumps(Prediction(("7", 0, 0), np.array([[0, 0, 99, 79.0]]), np.ones(1)).as_record())
    (tmp_path / "p.jsonl").write_text(f"{good}\n{line}\n")
    with pytest.raises(InputError, match=reason) as caught:
        evaluate(grounder, str(two), "toy", str(tmp_path / "out"), predictions=str(tmp_path / "p.jsonl"))
    assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()


def test_boxes_are_compared_as_they_are(two, grounder, tmp_path):
    (image, _) = Flickr30kEntities(two, "toy")
    first = image.entities[0]
    whole = first.union - [0, 0, 1, 1]
    boxes = np.array([[-500.0, -500, 900, 900], [50, 50, 20, 20], whole, whole])
    predictions = [
        Prediction((image.id, first.sentence, first.phrase), boxes, np.array([0.1, 0.9, 0.2, 0.2])),
        Prediction((image.id, 0, image.marked[0]), boxes, np.ones(4)),
        Prediction(("9", 0, 0), boxes, np.ones(4)),
    ]
    write_predictions(tmp_path / "p.jsonl", predictions)
    metrics = evaluate(grounder, str(two), "toy", str(tmp_path / "out"), predictions=str(tmp_path / "p.jsonl"))
    assert metrics["recall"] == {"1": 0, "5": pytest.approx(100 / 6), "10": pytest.approx(100 / 6)}
    assert metrics["unknown_predictions"] == [[image.id, 0, image.marked[0]], ["9", 0, 0]]


def test_missing_file_is_reported(two, grounder, tmp_path):
    with pytest.raises(InputError, match="cannot be read as lines of text"):
        evaluate(grounder, str(two), "toy", str(tmp_path), predictions=str(tmp_path / "none"))


def test_first_rank_alone_evaluates_a_file(two, grounder, tmp_path, monkeypatch):
    evaluate(grounder, str(two), "toy", str(tmp_path / "a"))
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    file = str(tmp_path / "a" / "predictions.jsonl")
    assert evaluate(grounder, str(two), "toy", str(tmp_path / "b"), predictions=file) == {}
    assert not (tmp_path / "b").exists()
    monkeypatch.setenv("RANK", "0")
    assert evaluate(grounder, str(two), "toy", str(tmp_path / "b"), predictions=file)["phrases"] == 6
