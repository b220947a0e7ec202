"""The protocol of the published evaluation program: its NMS, its misses, its labels, and the scale of scores."""

import json
from pathlib import Path

import numpy as np
import pytest
from entities_folder import write_entities
from hypothesis import given
from hypothesis import strategies as st
from phrase_loops import random_results, same, slow_precision

from eval import bootstrap
from eval.evaluate import evaluate
from eval.localization import MISS
from eval.phrase_list import ListedPhrase, phrase_label, read_phrase_list
from eval.phrase_metrics import phrase_metrics, scaled
from eval.phrase_results import PhraseResult
from eval.predictions import Prediction, write_predictions
from eval.protocol import OURS, ReleasedProtocol
from proposals.errors import InputError

PLACE = ("7", 0, 0)
RELEASED = ReleasedProtocol({PLACE: ListedPhrase(True, "dogs"), ("7", 0, 1): ListedPhrase(False, "ghost")})


def slow_nms(boxes: np.ndarray, scores: np.ndarray) -> list[int]:
    """The program's loop: sort in ascending order, take the last, remove what overlaps it by more than 0.5."""
    left, kept = sorted(range(len(scores)), key=lambda i: scores[i]), []
    while left:
        best = left.pop()
        kept.append(best)
        left = [i for i in left if slow_overlap(boxes[best], boxes[i]) <= 0.5]
    return kept


def slow_overlap(a: np.ndarray, b: np.ndarray) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0]) + 1
    height = min(a[3], b[3]) - max(a[1], b[1]) + 1
    areas = [(box[2] - box[0] + 1) * (box[3] - box[1] + 1) for box in (a, b)]
    shared = max(0, width) * max(0, height)
    return shared / (sum(areas) - shared)


@given(st.integers(0, 2**32))
def test_the_nms_of_the_program(seed):
    rng = np.random.default_rng(seed)
    count = int(rng.integers(0, 12))
    corners = np.sort(rng.integers(0, 9, (count, 2, 2)), 1).reshape(count, 4).astype(float)
    scores = rng.integers(0, 4, count).astype(float)  # with ties, and not sorted
    boxes, kept = RELEASED.judged(PLACE, corners, scores)
    expected = slow_nms(corners, scores)
    assert (boxes == corners[expected]).all() and (kept == scores[expected]).all()


def test_nms_changes_ranks_and_a_phrase_that_is_not_parsed_is_a_miss():
    # the second box overlaps the first one by 8/12, the third is apart
    boxes = np.array([[0, 0, 9, 9], [2, 0, 11, 9], [20, 0, 29, 9]], float)
    scores = np.array([3.0, 2, 1])
    assert RELEASED.judged(PLACE, boxes, scores)[1].tolist() == [3, 1]
    assert RELEASED.judged(PLACE, boxes + np.array([[0], [100], [0]]), scores)[1].tolist() == [3, 2, 1]
    assert OURS.judged(PLACE, boxes, scores)[0] is boxes
    assert len(RELEASED.judged(("7", 0, 1), boxes, scores)[0]) == 0
    half = np.array([[0, 0, 9, 9], [0, 0, 9, 4]], float)  # an IoU of exactly 0.5 is not removed
    assert len(RELEASED.judged(PLACE, half, scores[:2])[0]) == 2


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("The Man", "man"),
        ("two smiling men", "two men"),
        ("One dog", "dog"),
        ("1 dog", "dog"),
        ("3 dogs", "3 dogs"),
        ("a man's red shirt", "man red shirt"),
        ("a group of people", "group of people"),
        ("a boy in blue", "boy in blue"),
        ("It", "NO_VALID_POS"),
        ("themselves", "NO_VALID_POS"),
    ],
)
def test_labels_keep_nouns_adjectives_prepositions_and_cardinals_above_one(text, label):
    assert phrase_label(text) == label


def test_a_phrase_list_counts_from_one(tmp_path):
    (tmp_path / "list.txt").write_text("7 1 1 1 two dogs\n\n7 2 3 0 NO_VALID_POS\n")
    expected = {("7", 0, 0): ListedPhrase(True, "two dogs"), ("7", 1, 2): ListedPhrase(False, "NO_VALID_POS")}
    assert read_phrase_list(tmp_path / "list.txt") == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("7 1 1 1\n", r"list\.txt:1: a line must be IMAGE SENTENCE PHRASE MATCH WORDS, and MATCH 0 or 1"),
        ("7 1 1 2 dog\n", r"list\.txt:1: a line must be"),
        ("7 a 1 1 dog\n", r"list\.txt:1: a line must be"),
        ("7 1 1 1 dog\n7 1 1 0 cat\n", r"list\.txt:2: 7 1 1 is listed twice: keep one"),
        ("\n", r"list\.txt lists no phrase: use the phraseList\.txt of the evaluation program"),
    ],
)
def test_a_malformed_phrase_list_is_refused(tmp_path, text, message):
    (tmp_path / "list.txt").write_text(text)
    with pytest.raises(InputError, match=message):
        read_phrase_list(tmp_path / "list.txt")


@pytest.fixture
def toy(tmp_path, monkeypatch) -> Path:
    """Photo 7; its phrases with a box: Two dogs (0, 0), a dog (1, 1), a park (1, 2). All boxes are predicted."""
    monkeypatch.setattr(bootstrap, "RESAMPLES", 20)
    root = write_entities(tmp_path)
    whole, other = [0, 0, 99, 79], [0, 5, 99, 79]
    boxes = {(0, 0): [[0, 0, 59, 59]], (1, 1): [other, whole, [0, 0, 9, 19]], (1, 2): [[0, 0, 9, 9], whole]}
    predictions = [
        Prediction(("7", *place), np.array(rows, float), np.array([0.9, 0.8, 0.7])[: len(rows)] / (1 + place[0]))
        for place, rows in boxes.items()
    ]
    write_predictions(tmp_path / "p.jsonl", predictions)
    return root


def judge(root: Path, **settings) -> dict:
    return evaluate(None, str(root), "toy", str(root / "out"), predictions=str(root / "p.jsonl"), **settings)


def test_both_protocols_on_a_photo_by_hand(toy, capsys):
    ours = judge(toy)
    assert "protocol ours, score scale raw" in capsys.readouterr().out
    ranks = {(0, 0): 1, (1, 1): 3, (1, 2): 2}  # of the boxes as they are
    assert ours["protocol"] == "ours" and "recall_by_category" not in ours
    for depth in (1, 5, 10):
        assert ours["recall"][str(depth)] == pytest.approx(100 * sum(r <= depth for r in ranks.values()) / 3)
    (toy / "list.txt").write_text("7 1 1 1 two dogs\n7 2 2 1 dog\n7 2 3 0 park\n")
    released = judge(toy, protocol="iccv15", phrase_list=str(toy / "list.txt"))
    # the program removes the second box of "a dog", so that its third one has rank 2; "a park" is not parsed
    records = [json.loads(line) for line in (toy / "out" / "phrases.jsonl").read_text().splitlines()]
    assert [record["rank"] for record in records] == [1, 2, None]
    assert released["recall"] == {
        "1": pytest.approx(100 / 3),
        "5": pytest.approx(200 / 3),
        "10": pytest.approx(200 / 3),
    }
    # "Two dogs" has the types people and other, so it counts twice of four
    assert released["recall_by_category"]["1"] == 50 and released["recall_by_category"]["5"] == 75
    assert released["parsed"] == pytest.approx(200 / 3)
    assert released["ap_phrase"] == pytest.approx((100 + 50 + 0) / 3)
    assert "once for each type" in capsys.readouterr().out


def test_only_the_phrases_of_the_list_count(toy):
    (toy / "list.txt").write_text("7 1 1 1 two dogs\n8 1 1 1 of another photo\n")
    assert judge(toy, protocol="iccv15", phrase_list=str(toy / "list.txt"))["phrases"] == 1


def test_without_a_list_our_own_parser_and_classes_are_used(toy):
    released = judge(toy, protocol="iccv15")
    assert (released["phrases"], released["parsed"]) == (3, 100.0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"protocol": "coco"}, "protocol=coco must be one of ours, iccv15"),
        ({"phrase_list": "x"}, r"phrase_list=x is of the other protocol: set step\.protocol=iccv15"),
        ({"protocol": "iccv15", "phrase_list": "8"}, r"8\.txt lists no phrase of these photos: set data\.split"),
        ({"score_scale": "log"}, "score_scale=log must be one of raw, unit"),
    ],
)
def test_wrong_settings_are_refused(toy, settings, message):
    (toy / "8.txt").write_text("8 1 1 1 dog\n")
    if settings.get("phrase_list") == "8":
        settings = settings | {"phrase_list": str(toy / "8.txt")}
    with pytest.raises(InputError, match=message):
        judge(toy, **settings)


def test_scores_below_zero_have_no_unit_scale(toy):
    lines = [json.loads(line) for line in (toy / "p.jsonl").read_text().splitlines()]
    lines[1]["scores"] = [-1, -2, -3]
    (toy / "p.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert judge(toy)["score_scale"] == "raw"
    with pytest.raises(InputError, match=r"\('7', 1, 1\) has scores below 0: use step\.score_scale=raw"):
        judge(toy, score_scale="unit")


@given(st.integers(0, 2**32))
def test_the_unit_scale_changes_no_recall_and_pools_each_phrase_from_one(seed):
    results = random_results(np.random.default_rng(seed))
    bootstrap.RESAMPLES, before = 20, bootstrap.RESAMPLES
    try:
        raw, unit = (phrase_metrics(results, score_scale=scale) for scale in ("raw", "unit"))
    finally:
        bootstrap.RESAMPLES = before
    assert raw["recall"] == unit["recall"] and raw["recall_by_type"] == unit["recall_by_type"]
    best = [r.scores.max(initial=0) or 1 for r in results]
    divided = [
        PhraseResult(r.place, r.text, r.types, r.area, MISS, False, r.rank, scores=r.scores / b)
        for r, b in zip(results, best, strict=True)
    ]
    for name, value in unit["ap_by_type"].items():
        assert same(value, slow_precision([r for r in divided if name in r.types]))


def test_a_phrase_whose_scores_are_all_zero_keeps_them():
    assert scaled(np.zeros(3), "unit").tolist() == [0, 0, 0] and scaled(np.zeros(0), "unit").shape == (0,)
    assert scaled(np.array([4.0, 1]), "unit").tolist() == [1, 0.25] and scaled(np.array([4.0]), "raw").tolist() == [4]
