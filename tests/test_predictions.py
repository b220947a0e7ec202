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
        ("7", "p.jsonl:2: a line must be a JSON object"),
        ("[]", "p.jsonl:2: a JSON array: write one JSON object per line"),
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


def test_boxes_are_compared_as_they_are(two, grounder, tmp_path, capsys):
    (image, _) = Flickr30kEntities(two, "toy")
    first = image.entities[0]
    whole = first.union - [0, 0, 1, 1]
    boxes = np.array([[-500.0, -500, 900, 900], [50, 50, 20, 20], *[whole] * 10])
    predictions = [
        Prediction((image.id, first.sentence, first.phrase), boxes, np.array([0.1, 0.9, *[0.2] * 10])),
        Prediction((image.id, 0, image.marked[0]), boxes, np.ones(12)),
        Prediction(("9", 0, 0), boxes, np.ones(12)),
    ]
    metrics = judge(two, grounder, predictions, partial_predictions=True)
    assert metrics["recall"] == {"1": 0, "5": pytest.approx(100 / 6), "10": pytest.approx(100 / 6)}
    assert metrics["unknown_predictions"] == [[image.id, 0, image.marked[0]], ["9", 0, 0]]
    assert metrics["missing_predictions"] == 5
    assert "phrases without a prediction, counted as misses: 5" in capsys.readouterr().out
    skipped = map(json.loads, (tmp_path / "out" / "skipped_predictions.jsonl").read_text().splitlines())
    assert [row["reason"] for row in skipped] == ["of phrases that the split does not have"] * 2


def whole(root: Path) -> list[Prediction]:
    """A prediction for each phrase of the split: the whole photo."""
    places = [(i.id, e.sentence, e.phrase) for i in Flickr30kEntities(root, "toy") for e in i.entities]
    return [Prediction(place, np.array([[0.0, 0, 99, 79]]), np.ones(1)) for place in places]


def judge(root: Path, grounder, predictions: list[Prediction], **settings) -> dict:
    write_predictions(root / "p.jsonl", predictions)
    return evaluate(grounder, str(root), "toy", str(root / "out"), predictions=str(root / "p.jsonl"), **settings)


def test_a_file_that_lacks_phrases_is_refused(two, grounder):
    with pytest.raises(
        InputError, match=r"no prediction for 2 of 6 phrases, for example \('7', 0, 0\): add them, with"
    ):
        judge(two, grounder, [p for p in whole(two) if p.place[1:] != (0, 0)])
    assert not (two / "out").exists()
    without = [Prediction(p.place, np.zeros((0, 4)), np.zeros(0)) for p in whole(two)]
    assert judge(two, grounder, without)["recall"]["1"] == 0


@pytest.mark.parametrize("text", ["", "\n\n", "\ufeff"])
def test_an_empty_file_is_refused(two, grounder, text):
    (two / "p.jsonl").write_text(text, "utf-8")
    with pytest.raises(InputError, match=r"p\.jsonl has no predictions: write one JSON object per line and phrase"):
        evaluate(
            grounder, str(two), "toy", str(two / "out"), predictions=str(two / "p.jsonl"), partial_predictions=True
        )


@pytest.mark.parametrize("name", ["{}.jpg", "images/{}.jpg", "images/{}", "C:\\images\\{}.jpg"])
def test_the_name_of_a_file_is_refused(two, grounder, name):
    renamed = [Prediction((name.format(p.place[0]), *p.place[1:]), p.boxes, p.scores) for p in whole(two)]
    with pytest.raises(InputError, match="must be a photo id, without folder and suffix: write '7'"):
        judge(two, grounder, renamed, partial_predictions=True)


def test_predictions_of_other_photos_are_refused(two, grounder):
    others = [Prediction((f"10{p.place[0]}", *p.place[1:]), p.boxes, p.scores) for p in whole(two)]
    reason = r"none of its 6 predictions is of a phrase .*; the file has \('107', 0, 0\), the split has \('7', 0, 0\)"
    with pytest.raises(InputError, match=reason):
        judge(two, grounder, others, partial_predictions=True)


@pytest.mark.parametrize(
    ("box", "reason"),
    [
        (
            [0.1, 0.2, 0.9, 1.0],
            "all numbers of its 6 boxes are at most 1, like fractions of the photo: write x1, y1, x2",
        ),
        ([40, 30, 20, 50], "6 of 6 boxes end before they begin, as x, y, width, height would: write x1, y1, x2, y2"),
        ([0, 0, 1e300, 5], r"p\.jsonl:1: boxes must be pixels, at most 1e\+07"),
    ],
)
def test_boxes_in_another_format_are_refused(two, grounder, box, reason):
    with pytest.raises(InputError, match=reason):
        judge(two, grounder, [Prediction(p.place, np.array([box], float), p.scores) for p in whole(two)])


def test_boxes_of_a_larger_photo_are_warned_of(two, grounder, caplog):
    judge(two, grounder, [Prediction(p.place, p.boxes * 2, p.scores) for p in whole(two)])
    assert "6 of 6 boxes extend beyond their photos: they must be in pixels of the original photos" in caplog.text


def test_predictions_of_photos_beyond_the_limit_are_not_unknown(two, grounder, caplog):
    metrics = judge(two, grounder, whole(two), limit=1)
    assert (metrics["images"], metrics["phrases"], metrics["unknown_predictions"]) == (1, 3, [])
    assert "6 predictions: 3 kept, 3 of other photos; see" in caplog.text


def test_a_byte_order_mark_is_not_a_part_of_the_file(two, grounder):
    expected = judge(two, grounder, whole(two))
    for encoding in ("utf-8-sig", "utf-16"):
        write_predictions(two / "p.jsonl", whole(two))
        (two / "p.jsonl").write_text((two / "p.jsonl").read_text(), encoding)
        if encoding == "utf-8-sig":
            assert evaluate(grounder, str(two), "toy", str(two / "o"), predictions=str(two / "p.jsonl")) == expected
        else:
            with pytest.raises(InputError, match=r"p\.jsonl is UTF-16: save it as UTF-8"):
                evaluate(grounder, str(two), "toy", str(two / "o"), predictions=str(two / "p.jsonl"))


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
