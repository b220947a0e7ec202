"""The selection of gamma on other photos than those that it is evaluated on."""

import json
import re
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from entities_folder import copy_photo, write_entities
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from eval import bootstrap, gamma_selection
from eval.evaluate import evaluate
from eval.flickr30k import EntityImage
from eval.gamma_selection import half
from eval.gammas import best_gamma
from grounding import Grounder
from grounding.settings import Settings
from proposals import BoxProposer
from proposals.errors import InputError


@pytest.fixture(scope="module")
def grounder() -> Grounder:
    """The embedded tagger with few proposals, which these tests compute again for each gamma."""
    return Grounder.load(side=224, proposer=BoxProposer(50, 64))


@pytest.fixture
def many(tmp_path, coffee, monkeypatch) -> Path:
    """Six photos of two kinds in the split "toy", and two in "other"; with few resamples, to save time."""
    monkeypatch.setattr(bootstrap, "RESAMPLES", 20)
    root = write_entities(tmp_path)
    copy_photo(root, map(str, range(20, 32)))
    for number in range(21, 32, 3):
        Image.open(coffee).convert("RGB").resize((100, 80)).save(root / "images" / f"{number}.jpg")
    (root / "toy.txt").write_text("\n".join(map(str, range(20, 26))))
    (root / "other.txt").write_text("30\n31\n")
    return root


def test_gamma_is_selected_on_photos_that_it_is_not_evaluated_on(many, grounder, tmp_path, monkeypatch):
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
    monkeypatch.setattr(grounder.topdown, "look", lambda *_: pytest.fail("computed again"))
    metrics = evaluate(grounder, str(many), "toy", str(tmp_path / "out"), cache=cache, gamma_candidates=tried)
    assert metrics["chosen"] == {"gammas": tuple(best), "tried": tuple(tried), "on": "the other half"}
    assert metrics["gamma"] == (best[0] if best[0] == best[1] else None)
    found = (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()
    for gamma, side in ((best[0], 0), (best[1], 1)):
        lines = (tmp_path / str(gamma) / "predictions.jsonl").read_text().splitlines()
        mine = [i for i, line in enumerate(lines) if half(json.loads(line)["image"]) == side]
        assert mine and [found[i] for i in mine] == [lines[i] for i in mine]


@pytest.mark.parametrize("twofold", [True, False])
@pytest.mark.parametrize("seed", range(10))
def test_each_half_gets_the_gamma_that_is_best_on_the_other_half(monkeypatch, seed, twofold):
    rng, tried = np.random.default_rng(seed), [0.75, 0.25, 0.5]
    images = [EntityImage(str(i), Path(), (1, 1), (None,)) for i in range(12)]
    counted = {image.id: rng.integers(0, 2, 3) for image in images}  # with ties
    monkeypatch.setattr(gamma_selection, "scenes", lambda _, asked, *__: ((image, None) for image in asked))
    monkeypatch.setattr(gamma_selection, "count_hits", lambda _, image, *__: counted[image.id])
    found = gamma_selection.select_gammas(None, images, tried, "", twofold)
    for image in images:
        others = [other for other in images if not twofold or half(other.id) != half(image.id)]
        sums = {gamma: sum(counted[other.id][i] for other in others) for i, gamma in enumerate(tried)}
        assert found.gamma_for(image) == min(gamma for gamma in tried if sums[gamma] == max(sums.values()))


@given(st.sets(st.text(min_size=1), max_size=50))
def test_halves_are_disjoint_and_complete(names):
    halves = [{name for name in names if half(name) == side} for side in (0, 1)]
    assert halves[0] | halves[1] == names and not halves[0] & halves[1]


def test_halves_are_of_similar_size_and_reproducible():
    assert 450 < sum(half(str(number)) for number in range(1000)) < 550
    assert [half(str(number)) for number in range(8)] == [1, 1, 0, 0, 1, 1, 1, 1]


def test_gamma_is_selected_on_another_split(many, grounder, tmp_path, capsys):
    where = {"cache": str(tmp_path / "cache"), "gamma_candidates": [0.2, 1.0]}
    metrics = evaluate(grounder, str(many), "toy", str(tmp_path / "out"), gamma_split="other", **where)
    one, other = metrics["chosen"]["gammas"]
    assert one == other == metrics["gamma"] and metrics["chosen"]["on"] == "other" and metrics["images"] == 6
    assert f"c-mwp-partial, gamma {one:g}, chosen" in capsys.readouterr().out
    same = Grounder(grounder.tagger, grounder.proposer, Settings(side=224, gamma=one))
    plain = evaluate(same, str(many), "toy", str(tmp_path / "plain"), cache=where["cache"])
    assert plain["recall"] == metrics["recall"]


def test_selection_errors(many, grounder, tmp_path):
    where, cache = (grounder, str(many), "toy", str(tmp_path / "out")), str(tmp_path / "cache")
    wrong = {
        "gamma_candidates=[] must be two or more numbers": {"gamma_candidates": [], "cache": cache},
        "gamma_candidates=0.5 must be two": {"gamma_candidates": 0.5, "cache": cache},
        "gamma=-1 must be": {"gamma_candidates": [0.5, -1], "cache": cache},
        "set cache=FOLDER": {"gamma_candidates": [0.5, 1]},
        "predictions=null": {"gamma_candidates": [0.5, 1], "cache": cache, "predictions": "p.jsonl"},
        "needs gammas to select from": {"gamma_split": "other", "cache": cache},
        "photo 20 is in both splits": {"gamma_candidates": [0.5, 1], "gamma_split": "toy", "cache": cache},
        "no phrase to select gamma on": {"gamma_candidates": [0.5, 1], "cache": cache, "limit": 1},
        "limit=0 must be a whole number": {"limit": 0},
    }
    for message, settings in wrong.items():
        with pytest.raises(InputError, match=re.escape(message)):
            evaluate(*where, **settings)


def test_of_equal_gammas_the_smallest_is_best():
    assert best_gamma({0.75: 60, 0.25: 60, 0.5: 59}) == 0.25
    assert best_gamma({"1.0": 60.0, "0.5": 60.0}) == "0.5"
