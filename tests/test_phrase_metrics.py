"""The metrics of phrases compared with plain loops over their definitions, and their bootstrap intervals."""

import time
from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from phrase_loops import TEXTS, mean, random_results, same, slow_precision, slow_recall

from eval import bootstrap
from eval.average_precision import PooledBoxes
from eval.localization import TYPES
from eval.metrics import Metrics
from eval.phrase_metrics import phrase_metrics
from eval.phrase_results import PhraseResult
from eval.predictions import Prediction, read_predictions, write_predictions
from proposals.errors import InputError


def check_against_loops(metrics: dict, results: list[PhraseResult]) -> None:
    names = sorted({name for phrase in results for name in phrase.types})
    small = [p for p in results if p.area < 0.25]
    for k in (1, 5, 10):
        assert same(metrics["recall"][str(k)], slow_recall(results, k))
        assert same(metrics["recall_small"][str(k)], slow_recall(small, k))
        assert same(metrics["recall_any_box"][str(k)], slow_recall(results, k, "any_rank"))
        each = [slow_recall([p for p in results if name in p.types], k) for name in names]
        assert [metrics["recall_by_type"][name][str(k)] for name in names] == pytest.approx(each)
        assert same(metrics["recall_type_mean"][str(k)], mean(each))
    for suffix, chosen in (("", results), ("_small", small)):
        each = [slow_precision([p for p in chosen if name in p.types]) for name in names]
        assert all(same(metrics[f"ap_by_type{suffix}"][n], e) for n, e in zip(names, each, strict=True))
        assert same(metrics[f"ap_group{suffix}"], mean(each))
        by_text = defaultdict(list)
        for phrase in chosen:
            by_text[phrase.text.lower()].append(phrase)
        assert same(metrics[f"ap_phrase{suffix}"], mean([slow_precision(p) for p in by_text.values()]))
    large = [p for p in results if p.area >= 0.05]
    assert same(metrics["pointing"], 100 * sum(p.pointed for p in results) / len(results))
    assert same(metrics["pointing_without_tiny"], mean([100.0 * p.pointed for p in large]))
    assert same(metrics["coverage"], 100 * sum(p.covered for p in results) / len(results))


@given(st.integers(0, 2**32))
@settings(deadline=None, max_examples=100)  # each has many phrases of all kinds
def test_metrics_match_their_definitions(seed):
    results = random_results(np.random.default_rng(seed))
    bootstrap.RESAMPLES, before = 20, bootstrap.RESAMPLES
    try:
        check_against_loops(phrase_metrics(results), results)
    finally:
        bootstrap.RESAMPLES = before


@given(st.integers(0, 2**32))
@settings(deadline=None, max_examples=60)
def test_resample_equals_metrics_of_the_drawn_photos(seed):
    rng = np.random.default_rng(seed)
    results = random_results(rng)
    photos = list(dict.fromkeys(p.place[0] for p in results))
    drawn = rng.multinomial(len(photos), np.full(len(photos), 1 / len(photos)))
    again = [p for p in results for _ in range(drawn[photos.index(p.place[0])])]
    photo = np.array([photos.index(p.place[0]) for p in results])
    ranks = np.array([p.rank for p in results])
    precision = PooledBoxes.of([p.scores for p in results], ranks, photo).average_precision(drawn[None].astype(float))
    assert same(float(precision[0]), slow_precision(again))
    share = bootstrap.resampled_share(ranks <= 5, photo, drawn[None].astype(float))
    assert same(float(share[0]), slow_recall(again, 5))


def test_intervals_contain_the_metric_and_are_reproducible():
    results = random_results(np.random.default_rng(1), photos=40, most=400)
    one, other = phrase_metrics(results), phrase_metrics(results)
    assert one == other
    low, high = one["intervals"]["recall"]["5"]
    assert low < one["recall"]["5"] < high
    share = one["recall"]["5"] / 100
    spread = 100 * 1.96 * (share * (1 - share) / len(results)) ** 0.5  # of independent phrases
    assert 0.5 * spread < (high - low) / 2 < 2 * spread
    low, high = one["intervals"]["ap_group"]
    assert low < high and one["intervals"]["recall_type_mean"]["1"] is not None


def test_mean_leaves_out_metrics_without_a_value():
    metrics = Metrics(["a", "a", "b"])
    metrics.add_share(("x",), np.array([True, False, True]), np.array([True, True, True]))
    metrics.add_share(("y",), np.array([True, False, True]), np.zeros(3, bool))
    metrics.add_mean(("m",), [("x",), ("y",)])
    assert metrics.values == {"x": pytest.approx(200 / 3), "y": None, "m": pytest.approx(200 / 3)}
    assert metrics.intervals["y"] is None and metrics.intervals["m"] == metrics.intervals["x"]


def test_no_phrase_is_an_error():
    with pytest.raises(InputError, match="no phrase to evaluate"):
        phrase_metrics([])


def test_split_of_the_size_of_test_takes_seconds(tmp_path):
    """14,481 phrases with 500 boxes each take less than a minute; this is a twentieth of it, with writing the file."""
    rng = np.random.default_rng(0)
    boxes = np.sort(rng.random((500, 2, 2)) * 300, 1).reshape(500, 4)
    predictions = [Prediction((str(i // 15), 0, i % 15), boxes, np.sort(rng.random(500))[::-1]) for i in range(724)]
    write_predictions(tmp_path / "p.jsonl", predictions)
    start = time.perf_counter()
    results = [
        PhraseResult(place=p.place, text=TEXTS[i % 4], types=(TYPES[i % 8],), area=0.1, whole_rank=np.inf, centred=True,
               rank=float(1 + i % 700), scores=p.scores)
        for i, p in enumerate(read_predictions(tmp_path / "p.jsonl"))
    ]  # fmt: skip
    phrase_metrics(results, own=False)
    assert time.perf_counter() - start < 10
