"""The evaluation step: every figure against plain loops over its definition, intervals, files of predictions, ranks."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from test_flickr30k import root  # noqa: F401, a fixture

from eval import bootstrap, choice
from eval.attend import attend, rescore
from eval.choice import half
from eval.evaluate import Judged, evaluate, measure
from eval.figures import Figures
from eval.flickr30k import EntityImage, Flickr30kEntities
from eval.localization import TYPES
from eval.precision import Pooled
from eval.predictions import Prediction, read_predictions, write_predictions
from grounding import Grounder
from grounding.scene import Settings
from proposals.errors import InputError

TEXTS = ["a dog", "A dog", "his hat", "two men"]


def random_judged(rng: np.random.Generator, photos: int = 5, most: int = 30) -> list[Judged]:
    judged = []
    for i in range(rng.integers(1, most)):
        count = int(rng.choice([0, 1, 1, 3, 8]))
        scores = -np.sort(-rng.integers(0, 4, count) / 2.0)  # ties, within a phrase and between phrases
        judged.append(
            Judged(
                place=(str(i * photos // most), 0, i), text=str(rng.choice(TEXTS)),
                types=tuple(rng.choice(TYPES, rng.integers(1, 3), replace=False)), area=float(rng.random() / 2),
                whole_rank=rng.choice([1, np.inf]), centred=bool(rng.random() < 0.5),
                rank=float(rng.choice([*range(1, count + 1), np.inf])), any_rank=rng.choice([1, 4, np.inf]),
                scores=scores, covered=bool(rng.random() < 0.9), pointed=bool(rng.random() < 0.6),
            )
        )  # fmt: skip
    return judged


def slow_recall(judged: list[Judged], depth: int, name: str = "rank") -> float | None:
    hits = 0
    for phrase in judged:
        if getattr(phrase, name) <= depth:
            hits += 1
    return 100 * hits / len(judged) if judged else None


def slow_precision(judged: list[Judged]) -> float | None:
    """evaluation.md's words, one after the other."""
    if not judged:
        return None
    rows = []
    for order, phrase in enumerate(judged):
        for rank, score in enumerate(phrase.scores, 1):
            rows.append((-score, rank, order, rank == phrase.rank))
    true, points = 0, []
    for total, (*_, correct) in enumerate(sorted(rows), 1):
        true += correct
        points.append((true / len(judged), true / total))
    best = [max([p for r, p in points if r >= k / 10 - 1e-12], default=0) for k in range(11)]
    return 100 * sum(best) / 11


def mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def same(found: float | None, expected: float | None) -> bool:
    return found is expected if expected is None else found == pytest.approx(expected)


def check(metrics: dict, judged: list[Judged]) -> None:
    names = sorted({name for phrase in judged for name in phrase.types})
    small = [p for p in judged if p.area < 0.25]
    for k in (1, 5, 10):
        assert same(metrics["recall"][str(k)], slow_recall(judged, k))
        assert same(metrics["recall_small"][str(k)], slow_recall(small, k))
        assert same(metrics["recall_any_box"][str(k)], slow_recall(judged, k, "any_rank"))
        each = [slow_recall([p for p in judged if name in p.types], k) for name in names]
        assert [metrics["recall_by_type"][name][str(k)] for name in names] == pytest.approx(each)
        assert same(metrics["recall_type_mean"][str(k)], mean(each))
    for suffix, chosen in (("", judged), ("_small", small)):
        each = [slow_precision([p for p in chosen if name in p.types]) for name in names]
        assert all(same(metrics[f"ap_by_type{suffix}"][n], e) for n, e in zip(names, each, strict=True))
        assert same(metrics[f"ap_group{suffix}"], mean(each))
        by_text = defaultdict(list)
        for phrase in chosen:
            by_text[phrase.text.lower()].append(phrase)
        assert same(metrics[f"ap_phrase{suffix}"], mean([slow_precision(p) for p in by_text.values()]))
    large = [p for p in judged if p.area >= 0.05]
    assert same(metrics["pointing"], 100 * sum(p.pointed for p in judged) / len(judged))
    assert same(metrics["pointing_without_tiny"], mean([100.0 * p.pointed for p in large]))
    assert same(metrics["coverage"], 100 * sum(p.covered for p in judged) / len(judged))


@given(st.integers(0, 2**32))
@settings(deadline=None, max_examples=300)
def test_the_measures_are_their_definitions(seed):
    judged = random_judged(np.random.default_rng(seed))
    bootstrap.RESAMPLES, before = 20, bootstrap.RESAMPLES
    try:
        check(measure(judged), judged)
    finally:
        bootstrap.RESAMPLES = before


@given(st.integers(0, 2**32))
@settings(deadline=None, max_examples=60)
def test_a_resample_is_the_photos_drawn_again(seed):
    rng = np.random.default_rng(seed)
    judged = random_judged(rng)
    photos = list(dict.fromkeys(p.place[0] for p in judged))
    drawn = rng.multinomial(len(photos), np.full(len(photos), 1 / len(photos)))
    again = [p for p in judged for _ in range(drawn[photos.index(p.place[0])])]
    photo = np.array([photos.index(p.place[0]) for p in judged])
    ranks = np.array([p.rank for p in judged])
    precision = Pooled.of([p.scores for p in judged], ranks, photo).average_precision(drawn[None].astype(float))
    assert same(float(precision[0]), slow_precision(again))
    share = bootstrap.resampled_share(ranks <= 5, photo, drawn[None].astype(float))
    assert same(float(share[0]), slow_recall(again, 5))


def test_intervals_hold_the_figure_and_do_not_change():
    judged = random_judged(np.random.default_rng(1), photos=40, most=400)
    one, other = measure(judged), measure(judged)
    assert one == other
    low, high = one["intervals"]["recall"]["5"]
    assert low < one["recall"]["5"] < high
    share = one["recall"]["5"] / 100
    spread = 100 * 1.96 * (share * (1 - share) / len(judged)) ** 0.5  # of independent phrases
    assert 0.5 * spread < (high - low) / 2 < 2 * spread
    low, high = one["intervals"]["ap_group"]
    assert low < high and one["intervals"]["recall_type_mean"]["1"] is not None


def test_a_mean_leaves_out_what_has_no_figure():
    figures = Figures(["a", "a", "b"])
    figures.share(("x",), np.array([True, False, True]), np.array([True, True, True]))
    figures.share(("y",), np.array([True, False, True]), np.zeros(3, bool))
    figures.mean(("m",), [("x",), ("y",)])
    assert figures.values == {"x": pytest.approx(200 / 3), "y": None, "m": pytest.approx(200 / 3)}
    assert figures.intervals["y"] is None and figures.intervals["m"] == figures.intervals["x"]


def test_nothing_to_judge_is_told():
    with pytest.raises(InputError, match="no phrase to judge"):
        measure([])


@pytest.fixture(scope="module")
def grounder() -> Grounder:
    return Grounder.load(side=224)


@pytest.fixture
def two(root) -> Path:  # noqa: F811
    """A photo, and one that cannot be read."""
    (root / "toy.txt").write_text("7\n8\n")
    for folder, suffix in (("Annotations", "xml"), ("Sentences", "txt")):
        (root / folder / f"8.{suffix}").write_text((root / folder / f"7.{suffix}").read_text())
    (root / "images" / "8.jpg").write_text("no photo")
    return root


def test_the_step_writes_metrics_and_predictions(two, grounder, tmp_path, capsys):
    metrics = evaluate(grounder, str(two), "toy", str(tmp_path / "out"))
    assert json.dumps(metrics) == json.dumps(json.loads((tmp_path / "out" / "metrics.json").read_text()))
    assert (metrics["images"], metrics["phrases"], metrics["skipped_images"]) == (2, 6, ["8"])
    predictions = list(read_predictions(tmp_path / "out" / "predictions.jsonl"))
    assert [p.place for p in predictions[:3]] == [("7", 0, 0), ("7", 1, 1), ("7", 1, 2)]
    assert all(not len(p.boxes) for p in predictions[3:])
    for prediction in predictions[:3]:
        assert (np.diff(prediction.scores) <= 0).all() and prediction.boxes.min() >= 0
        assert prediction.boxes[:, [0, 2]].max() <= 99 and prediction.boxes[:, [1, 3]].max() <= 79
    assert metrics["baselines"]["whole_image"]["1"] == pytest.approx(100 * 2 / 6)
    assert "could not be read, counted as misses: 8" in capsys.readouterr().out


def test_our_own_predictions_are_judged_as_our_answers(two, grounder, tmp_path):
    own = evaluate(grounder, str(two), "toy", str(tmp_path / "a"))
    file = evaluate(grounder, str(two), "toy", str(tmp_path / "b"), predictions=str(tmp_path / "a/predictions.jsonl"))
    for key in ("recall", "recall_by_type", "ap_group", "ap_phrase", "recall_any_box"):
        assert file[key] == own[key]
    assert file["unknown_predictions"] == [] and "pointing" not in file


def test_a_cache_changes_nothing_and_looks_once(two, grounder, tmp_path, monkeypatch):
    without = evaluate(grounder, str(two), "toy", str(tmp_path / "a"))
    cached = evaluate(grounder, str(two), "toy", str(tmp_path / "b"), cache=str(tmp_path / "cache"))
    monkeypatch.setattr(grounder.topdown, "look", lambda *_: pytest.fail("looked again"))
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
    """Has a proposer's settings, and never proposes."""

    def __init__(self, proposer):
        self.__dict__ |= vars(proposer)
        type(self).__name__ = type(proposer).__name__

    def __call__(self, image, name=None):
        pytest.fail("proposed again")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "p.jsonl:2: Expecting property name"),
        ("[]", "p.jsonl:2: a line must be an object"),
        ('{"image": "7"}', "p.jsonl:2: there is no 'sentence'"),
        ('{"image": 7, "sentence": 0, "phrase": 0, "boxes": [], "scores": []}', "image must be a string"),
        ('{"image": "7", "sentence": -1, "phrase": 0, "boxes": [], "scores": []}', "whole numbers from 0"),
        ('{"image": "7", "sentence": true, "phrase": 0, "boxes": [], "scores": []}', "whole numbers from 0"),
        ('{"image": "7", "sentence": 1, "phrase": 1, "boxes": [[1, 2, 3]], "scores": [1]}', "must be lists of N boxes"),
        ('{"image": "7", "sentence": 1, "phrase": 1, "boxes": [[1, 2, 3, 4]], "scores": []}', "must be lists of N box"),
        ('{"image": "7", "sentence": 1, "phrase": 1, "boxes": [[1, 2, 3, NaN]], "scores": [1]}', "must be finite"),
        ('{"image": "7", "sentence": 1, "phrase": 1, "boxes": [[1, 2, 3, 4]], "scores": [Infinity]}', "must be finite"),
        ('{"image": "7", "sentence": 1, "phrase": 1, "boxes": [["1", 2, 3, 4]], "scores": [1]}', "must be finite"),
        ('{"image": "7", "sentence": 1, "phrase": 1, "boxes": [[1], [2, 3]], "scores": [1]}', "p.jsonl:2: "),
        ('{"image": "7", "sentence": 0, "phrase": 0, "boxes": [], "scores": []}', "was predicted in line 1; keep one"),
    ],
)
def test_a_bad_line_is_told_with_its_number(two, grounder, tmp_path, line, reason):
    good = json.dumps(Prediction(("7", 0, 0), np.array([[0, 0, 99, 79.0]]), np.ones(1)).as_record())
    (tmp_path / "p.jsonl").write_text(f"{good}\n{line}\n")
    with pytest.raises(InputError, match=reason) as caught:
        evaluate(grounder, str(two), "toy", str(tmp_path / "out"), predictions=str(tmp_path / "p.jsonl"))
    assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()


def test_predictions_are_judged_as_they_stand(two, grounder, tmp_path):
    (image, _) = Flickr30kEntities(two, "toy")
    first = image.entities[0]
    whole = first.union - [0, 0, 1, 1]
    boxes = np.array([[-500.0, -500, 900, 900], [50, 50, 20, 20], whole, whole])  # outside, turned, right, right
    predictions = [
        Prediction((image.id, first.sentence, first.phrase), boxes, np.array([0.1, 0.9, 0.2, 0.2])),
        Prediction((image.id, 0, image.marked[0]), boxes, np.ones(4)),
        Prediction(("9", 0, 0), boxes, np.ones(4)),
    ]
    write_predictions(tmp_path / "p.jsonl", predictions)
    metrics = evaluate(grounder, str(two), "toy", str(tmp_path / "out"), predictions=str(tmp_path / "p.jsonl"))
    assert metrics["recall"] == {"1": 0, "5": pytest.approx(100 / 6), "10": pytest.approx(100 / 6)}
    assert metrics["unknown_predictions"] == [[image.id, 0, image.marked[0]], ["9", 0, 0]]


def test_a_missing_file_is_told(two, grounder, tmp_path):
    with pytest.raises(InputError, match="cannot be read as lines of text"):
        evaluate(grounder, str(two), "toy", str(tmp_path), predictions=str(tmp_path / "none"))


RANK = """
import sys
from eval.evaluate import evaluate
from grounding import Grounder
evaluate(Grounder.load(side=224), sys.argv[1], "toy", sys.argv[2], cache=sys.argv[3])
"""


def test_two_ranks_and_one_process_give_the_same(two, grounder, tmp_path):
    alone = evaluate(grounder, str(two), "toy", str(tmp_path / "alone"))
    (tmp_path / "run.py").write_text(RANK)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    arguments = [str(tmp_path / "run.py"), str(two), str(tmp_path / "out"), str(tmp_path / "cache")]
    subprocess.run([*launch, *arguments], env=environment, check=True, capture_output=True, timeout=120)
    together = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert together == json.loads(json.dumps(alone))


def test_the_halves_make_the_whole(two, grounder, tmp_path, monkeypatch):
    assert attend(grounder, str(two), "toy", str(tmp_path / "cache")) == ["8"]
    monkeypatch.setattr(grounder.topdown, "look", lambda *_: pytest.fail("looked again"))
    assert rescore(grounder, str(two), "toy", str(tmp_path / "out"), str(tmp_path / "cache")) == ["8"]
    evaluate(grounder, str(two), "toy", str(tmp_path / "whole"), cache=str(tmp_path / "cache"))
    half, whole = (tmp_path / name / "predictions.jsonl" for name in ("out", "whole"))
    assert half.read_bytes() == whole.read_bytes()
    with pytest.raises(InputError, match="nowhere to keep what is seen: set cache=FOLDER"):
        attend(grounder, str(two), "toy", None)


@pytest.fixture
def many(root, coffee, monkeypatch) -> Path:  # noqa: F811
    """Ten photos of two kinds, and two that are another split; what is asked of them are no intervals."""
    monkeypatch.setattr(bootstrap, "RESAMPLES", 20)
    for number in range(20, 32):
        for folder, suffix in (("Annotations", "xml"), ("Sentences", "txt"), ("images", "jpg")):
            shutil.copy(root / folder / f"7.{suffix}", root / folder / f"{number}.{suffix}")
        if number % 3 == 0:
            Image.open(coffee).convert("RGB").resize((100, 80)).save(root / "images" / f"{number}.jpg")
    (root / "toy.txt").write_text("\n".join(map(str, range(20, 30))))
    (root / "other.txt").write_text("30\n31\n")
    return root


def test_gamma_is_chosen_on_photos_that_it_is_not_reported_on(many, grounder, tmp_path, monkeypatch):
    tried, cache = [0.9, 0.0, 0.3, 0.6], str(tmp_path / "cache")
    counted = defaultdict(dict)  # by gamma and half: hits of R@1, R@5 and R@10, from an evaluation each
    for gamma in tried:
        monkeypatch.setattr(grounder, "settings", Settings(side=224, gamma=gamma))
        evaluate(grounder, str(many), "toy", str(tmp_path / str(gamma)), cache=cache)
        phrases = list(map(json.loads, (tmp_path / str(gamma) / "phrases.jsonl").read_text().splitlines()))
        for side in (0, 1):
            ranks = [p["rank"] or 99 for p in phrases if half(p["image"]) == side]
            counted[side][gamma] = sum(rank <= k for rank in ranks for k in (1, 5, 10))
    best = [max(sorted(tried), key=counted[1 - side].get) for side in (0, 1)]
    monkeypatch.setattr(grounder.topdown, "look", lambda *_: pytest.fail("looked again"))
    metrics = evaluate(grounder, str(many), "toy", str(tmp_path / "out"), cache=cache, choose=tried)
    assert metrics["chosen"] == {"gammas": tuple(best), "tried": tuple(tried), "on": "the other half"}
    assert metrics["gamma"] == (best[0] if best[0] == best[1] else None)
    found = (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()
    for gamma, side in ((best[0], 0), (best[1], 1)):
        lines = (tmp_path / str(gamma) / "predictions.jsonl").read_text().splitlines()
        mine = [i for i, line in enumerate(lines) if half(json.loads(line)["image"]) == side]
        assert mine and [found[i] for i in mine] == [lines[i] for i in mine]


@pytest.mark.parametrize("twofold", [True, False])
@pytest.mark.parametrize("seed", range(10))
def test_each_half_gets_what_is_best_on_the_other(monkeypatch, seed, twofold):
    rng, tried = np.random.default_rng(seed), [0.75, 0.25, 0.5]
    images = [EntityImage(str(i), Path(), (1, 1), (None,)) for i in range(12)]
    counted = {image.id: rng.integers(0, 2, 3) for image in images}  # with ties
    monkeypatch.setattr(choice, "scenes", lambda _, asked, *__: ((image, None) for image in asked))
    monkeypatch.setattr(choice, "hits", lambda _, image, __: counted[image.id])
    found = choice.choose_gammas(None, images, tried, "", twofold)
    for image in images:
        others = [other for other in images if not twofold or half(other.id) != half(image.id)]
        sums = {gamma: sum(counted[other.id][i] for other in others) for i, gamma in enumerate(tried)}
        assert found.of(image) == min(gamma for gamma in tried if sums[gamma] == max(sums.values()))


@given(st.sets(st.text(min_size=1), max_size=50))
def test_the_halves_are_disjoint_and_cover_everything(names):
    halves = [{name for name in names if half(name) == side} for side in (0, 1)]
    assert halves[0] | halves[1] == names and not halves[0] & halves[1]


def test_the_halves_are_about_as_large_and_always_the_same():
    assert 450 < sum(half(str(number)) for number in range(1000)) < 550
    assert [half(str(number)) for number in range(8)] == [1, 1, 0, 0, 1, 1, 1, 1]


def test_gamma_is_chosen_on_another_split(many, grounder, tmp_path, capsys):
    where = {"cache": str(tmp_path / "cache"), "choose": [0.2, 1.0]}
    metrics = evaluate(grounder, str(many), "toy", str(tmp_path / "out"), choose_on="other", **where)
    one, other = metrics["chosen"]["gammas"]
    assert one == other == metrics["gamma"] and metrics["chosen"]["on"] == "other" and metrics["images"] == 10
    assert f"c-mwp-partial, gamma {one:g}, chosen" in capsys.readouterr().out
    plain = evaluate(
        Grounder.load(side=224, gamma=one), str(many), "toy", str(tmp_path / "plain"), cache=where["cache"]
    )
    assert plain["recall"] == metrics["recall"]


def test_what_cannot_be_chosen_is_told(many, grounder, tmp_path):
    where, cache = (grounder, str(many), "toy", str(tmp_path / "out")), str(tmp_path / "cache")
    wrong = {
        "choose=[]: give two gammas": {"choose": [], "cache": cache},
        "choose=0.5: give two gammas": {"choose": 0.5, "cache": cache},
        "gamma=-1 must be": {"choose": [0.5, -1], "cache": cache},
        "set cache=FOLDER": {"choose": [0.5, 1]},
        "predictions=null": {"choose": [0.5, 1], "cache": cache, "predictions": "p.jsonl"},
        "say which": {"choose_on": "other", "cache": cache},
        "photo 20 is of both splits": {"choose": [0.5, 1], "choose_on": "toy", "cache": cache},
        "no phrase to choose a gamma on": {"choose": [0.5, 1], "cache": cache, "limit": 1},
        "limit=0 must be a whole number": {"limit": 0},
    }
    for message, given_so in wrong.items():
        with pytest.raises(InputError, match=re.escape(message)):
            evaluate(*where, **given_so)


def test_of_several_ranks_the_first_judges_a_file(two, grounder, tmp_path, monkeypatch):
    evaluate(grounder, str(two), "toy", str(tmp_path / "a"))
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    file = str(tmp_path / "a" / "predictions.jsonl")
    assert evaluate(grounder, str(two), "toy", str(tmp_path / "b"), predictions=file) == {}
    assert not (tmp_path / "b").exists()
    monkeypatch.setenv("RANK", "0")
    assert evaluate(grounder, str(two), "toy", str(tmp_path / "b"), predictions=file)["phrases"] == 6


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


def test_real_photos_are_judged_by_the_definitions(data, grounder, tmp_path):
    entities = data / "flickr30k_entities"
    metrics = evaluate(grounder, str(entities), "val", str(tmp_path), limit=6)
    predicted = {p.place: p for p in read_predictions(tmp_path / "predictions.jsonl")}
    judged = []
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
            judged.append(Judged(place, entity.text, entity.types, area, np.inf, False, rank, scores=scores))
    assert len(judged) == metrics["phrases"] > 50
    small = [p for p in judged if p.area < 0.25]
    for k in (1, 5, 10):
        assert same(metrics["recall"][str(k)], slow_recall(judged, k))
        assert same(metrics["recall_small"][str(k)], slow_recall(small, k))
    for name, found in metrics["ap_by_type"].items():
        assert same(found, slow_precision([p for p in judged if name in p.types]))


def test_a_test_split_is_judged_in_seconds(tmp_path):
    """14,481 phrases with 500 boxes each take below a minute; here a twentieth of it, the file written first."""
    rng = np.random.default_rng(0)
    boxes = np.sort(rng.random((500, 2, 2)) * 300, 1).reshape(500, 4)
    predictions = [Prediction((str(i // 15), 0, i % 15), boxes, np.sort(rng.random(500))[::-1]) for i in range(724)]
    write_predictions(tmp_path / "p.jsonl", predictions)
    start = time.perf_counter()
    judged = [
        Judged(place=p.place, text=TEXTS[i % 4], types=(TYPES[i % 8],), area=0.1, whole_rank=np.inf, centred=True,
               rank=float(1 + i % 700), scores=p.scores)
        for i, p in enumerate(read_predictions(tmp_path / "p.jsonl"))
    ]  # fmt: skip
    measure(judged, own=False)
    assert time.perf_counter() - start < 10
