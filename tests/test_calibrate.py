"""The step calibrate: what captions name, the fit, its measures, and the step from photos to the file."""

import itertools
import json
import math
import tarfile
from io import BytesIO

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_shards import TAGS, jpeg, make_shards, tiny_tagger

from grounding import TagClassifier, Vocabulary
from grounding.tagger.presence import presence_path
from grounding.tagger.tensors import read_tensors
from grounding.text.lexicon import Lexicon, Meaning, digest
from proposals.errors import InputError
from training.calibrate import calibrate
from training.presence_fit import (
    LEFT_OUT,
    CaptionCounts,
    fit_platt,
    frequency_shift,
    principal_directions,
    recall_shift,
    shown_given_captions,
    sigmoid,
)
from training.presence_labels import CaptionLabels
from training.presence_measures import area_under_roc, calibration_error, measure
from training.sample_text import SampleText

WORDS = Vocabulary(("person", "man", "dog", "dogs", "puppy", "cat", "table"))
SEEDS = st.integers(0, 10**6)


def named(caption, vocabulary=WORDS):
    found = CaptionLabels(vocabulary).of(SampleText(captions=(caption,)))
    return {vocabulary[row] for row in found.named}, {vocabulary[row] for row in found.unknown}


def test_a_caption_names_the_tags_above_its_words():
    assert named("a puppy sleeps") == ({"puppy", "dog"}, {"dogs"})
    assert named("two dogs run") == ({"dogs", "dog"}, {"puppy"})
    assert named("a kitten and a carpenter") == ({"cat"}, set())  # kitten is no tag


def test_a_more_general_word_says_nothing_about_the_tags_beneath():
    assert named("a person") == ({"person"}, {"man"})
    assert named("a man") == ({"man", "person"}, set())


def test_a_word_of_the_lexicon_names_no_tag():
    lexicon = Lexicon(digest(WORDS), {"feline": Meaning(("cat",), "synonym")})
    assert named("a feline", Vocabulary(WORDS.tags, lexicon)) == (set(), set())


def test_the_pairs_of_tags_are_those_that_captions_imply():
    pairs = {(WORDS[a], WORDS[b]) for a, b in CaptionLabels(WORDS).implied_tags()}
    assert pairs == {("man", "person"), ("puppy", "dog"), ("dogs", "dog")}


@pytest.mark.parametrize("line", ["dog", ": puppy", "dog:", "dog: puppy,, cat"])
def test_a_wrong_line_of_broader_words_is_refused(tmp_path, line):
    (tmp_path / "words.txt").write_text(f"# comment\n{line}\n")
    with pytest.raises(InputError, match=r"words\.txt:2: write a word, a colon"):
        CaptionLabels(WORDS, tmp_path / "words.txt")


def test_a_missing_file_of_broader_words_is_refused(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        CaptionLabels(WORDS, tmp_path / "none.txt")


def plain_area(truth, chances):
    pairs = [(a > b) + (a == b) / 2 for a in chances[truth] for b in chances[~truth]]
    return np.mean(pairs)


@given(SEEDS)
def test_the_area_is_the_share_of_pairs_in_order(seed):
    random = np.random.default_rng(seed)
    truth, chances = np.arange(12) < 5, random.integers(0, 6, 12) / 5
    assert area_under_roc(truth, chances) == pytest.approx(plain_area(truth, chances))
    assert area_under_roc(truth, np.exp(chances)) == pytest.approx(area_under_roc(truth, chances))


def test_the_area_needs_both_kinds():
    assert np.isnan(area_under_roc(np.ones(3, bool), np.ones(3)))


def test_the_calibration_error_of_two_bins():
    truth, chances = np.array([True, False, True, True]), np.array([0.25, 0.25, 0.9, 1.0])
    assert calibration_error(truth, chances) == pytest.approx((abs(0.5 - 0.25) * 2 + 0.1 + 0) / 4)


def test_the_measures_of_perfect_answers():
    truth = np.array([True, False])
    assert measure(truth, truth.astype(float)) == pytest.approx(
        {"auc": 1, "ece": 0, "brier": 0, "log_loss": 0}, abs=1e-5
    )


def drawn(seed, photos=3000, recall=0.5):
    """Photos whose captions leave things out, with known probabilities."""
    random = np.random.default_rng(seed)
    scores = random.normal(-1, 2, (photos, 12)).astype(np.float32)
    shown = random.random(scores.shape) < sigmoid(scores)
    mentioned = (shown & (random.random(scores.shape) < recall)).astype(np.float32)
    return scores, CaptionCounts(mentioned, 1 - mentioned)


def test_the_fit_finds_probabilities_although_captions_leave_things_out():
    scores, captions = drawn(0)
    fit = fit_platt(scores, captions)
    assert abs(fit.shown(scores) - sigmoid(scores)).mean() < 0.1
    assert abs((fit.recall * fit.shown(scores)).mean() - captions.named.mean()) < 0.02
    assert (fit.slopes > 0).all() and (fit.recall > 0).all() and (fit.recall < 1).all()


def test_captions_of_one_photo_that_disagree_have_a_low_recall():
    random, recall = np.random.default_rng(3), np.tile([0.15, 0.5, 0.9], 4)
    scores = random.normal(-1, 2, (3000, 12)).astype(np.float32)
    shown = random.random(scores.shape) < sigmoid(scores)
    named = random.binomial(5, recall * shown).astype(np.float32)
    fit = fit_platt(scores, CaptionCounts(named, 5 - named))
    np.testing.assert_allclose(fit.recall, recall, atol=0.05)
    assert abs(fit.shown(scores) - sigmoid(scores)).mean() < 0.03


@given(st.floats(0.01, 0.99), st.floats(0.01, 0.99), st.integers(0, 3), st.integers(0, 3))
def test_what_captions_say_equals_its_definition(p, recall, named, unnamed):
    """Of all ways to write the captions, those with these names: P(shown and captions) / P(captions)."""
    ways = list(itertools.product([True, False], repeat=named + unnamed))
    asked = [way for way in ways if sum(way) == named]
    with_it = p * sum(math.prod(recall if name else 1 - recall for name in way) for way in asked)
    without_it = (1 - p) * (named == 0)
    captions = CaptionCounts(*(np.full((1, 1), n, np.float32) for n in (named, unnamed)))
    found = shown_given_captions(np.full((1, 1), p), np.full(1, recall), captions)
    assert found[0, 0] == pytest.approx(with_it / (with_it + without_it))


def test_many_captions_that_leave_out_a_sure_thing_are_finite():
    p, recall = np.ones((1, 1), np.float32), np.full(1, 0.99, np.float32)
    captions = CaptionCounts(np.zeros((1, 1), np.float32), np.full((1, 1), 100, np.float32))
    assert shown_given_captions(p, recall, captions) == 1


def test_a_tag_that_no_caption_names_keeps_the_mean():
    scores, captions = drawn(1, 200)
    captions.named[:, 3] = 0
    fit = fit_platt(scores, captions)
    others = np.arange(12) != 3
    assert fit.slopes[3] == pytest.approx(fit.slopes[others].mean())
    assert not fit.context[:, 3].any() and fit.context[:, others].any()


def test_the_other_scores_make_a_tag_more_probable():
    random = np.random.default_rng(2)
    scores, kitchen = random.normal(-1, 1, (2000, 12)).astype(np.float32), random.random(2000) < 0.5
    scores[:, 4:] += 2 * kitchen[:, None]  # but not the spoon, tag 0, which only kitchens have
    named = np.zeros_like(scores)
    named[:, 0], named[:, 4:] = kitchen, kitchen[:, None]
    shown = fit_platt(scores, CaptionCounts(named, 1 - named)).shown(scores)[:, 0]
    assert area_under_roc(kitchen, shown) > 0.9 > 0.6 > area_under_roc(kitchen, scores[:, 0].astype(float))


@given(SEEDS, st.integers(1, 100), st.integers(1, 90))
def test_directions_are_whitened(seed, photos, tags):
    scores = np.random.default_rng(seed).normal(-1, 2, (photos, tags)).astype(np.float32)
    directions = principal_directions(scores)
    assert directions.shape[1] <= min(64, photos, tags)
    moved = (scores - scores.mean(0)) @ directions
    np.testing.assert_allclose(moved.T @ moved / photos, np.eye(directions.shape[1]), atol=0.05)


@given(SEEDS)
def test_a_fit_of_few_photos_is_finite(seed):
    scores, captions = drawn(seed, 2)
    fit = fit_platt(scores, captions)
    assert all(np.isfinite(part).all() for part in fit)
    assert np.isfinite(frequency_shift(fit, scores, captions.has_caption)).all()


def test_photos_without_captions_correct_the_frequencies():
    """Tag 0 is more frequent in the photos without captions, tag 1 rarer, the others are as in those with captions."""
    scores, captions = drawn(4)
    fit = fit_platt(scores, captions)
    other, _ = drawn(5)
    other[:, 0] += 2
    other[:, 1] -= 2
    both = np.concatenate([scores, other])
    shift = frequency_shift(fit, both, np.arange(len(both)) < len(scores))
    assert shift[0] > 0.5 and shift[1] < -0.3
    assert abs(shift[2:]).max() < 0.1
    mean, before = (sigmoid(fit.slopes * rows + fit.offsets + rows @ fit.directions @ fit.context).mean(0)
                    for rows in (both, scores))  # fmt: skip
    np.testing.assert_allclose(np.exp(shift), mean / (1 - mean) / (before / (1 - before)))
    assert not frequency_shift(fit, scores, captions.has_caption).any()


def test_what_captions_leave_out_has_a_higher_offset():
    scores, captions = drawn(6)
    fit = fit_platt(scores, captions)._replace(recall=np.array([1, 0.5, 0.01]))
    np.testing.assert_allclose(recall_shift(fit), LEFT_OUT * np.log([1, 2, 100]))


def test_a_photo_without_captions_has_no_counts():
    counts = np.array([[0, 0], [0, 1], [1, 0]], np.float32)
    assert CaptionCounts(counts, np.zeros_like(counts)).has_caption.tolist() == [False, True, True]
    assert CaptionCounts(np.zeros_like(counts), counts).has_caption.tolist() == [False, True, True]


def write_tar(path, captions=None, broken=0):
    """A WebDataset tar of the photos in ``TAGS`` with captions."""
    with tarfile.open(path, "w") as tar:
        for turn in range(2):
            for name, tags in TAGS.items():
                text = json.dumps({"captions": captions or [f"a {tags[0]}", " and ".join(tags)]}).encode()
                add(tar, f"{turn}-{name}.jpg", b"no photo" if broken else jpeg(name, turn, 240))
                add(tar, f"{turn}-{name}.json", text)
        add(tar, "broken.jpg", b"no photo")
        add(tar, "broken.json", b'{"captions": ["a cat"]}')
    return path


def add(tar, name, data):
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, BytesIO(data))


@pytest.fixture
def tagger(tmp_path):
    return tiny_tagger(tmp_path / "tagger.safetensors", ("cat", "woman", "rocket", "cup", "person"))


def test_the_step_from_photos_to_the_file(tmp_path, tagger, capsys):
    root = write_tar(tmp_path / "photos.tar")
    path = calibrate(str(root), str(tmp_path / "out"), tagger, 224, folds=2)
    assert path == presence_path(tagger)
    measured = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert measured.keys() == {"auc", "ece", "brier", "log_loss"}
    presence = TagClassifier.load(tagger).presence
    assert len(presence.slopes) == 5 and presence.implied.tolist() == [[1, 4]]
    assert "broken" in (tmp_path / "out" / "skipped.jsonl").read_text()
    first = path.read_bytes()
    calibrate([str(root)], str(tmp_path / "out"), tagger, 224, folds=2)
    assert path.read_bytes() == first


def test_photos_without_captions_count_only_if_asked(tmp_path, tagger):
    root = write_tar(tmp_path / "photos.tar")
    with tarfile.open(root, "a") as tar:
        for number in range(3):
            add(tar, f"plain-{number}.jpg", jpeg("coffee", number, 240))
    step = {"roots": str(root), "output": str(tmp_path), "tagger": tagger, "side": 224, "folds": 2}
    calibrate(**step)
    assert "plain-1" in (tmp_path / "skipped.jsonl").read_text()
    alone = TagClassifier.load(tagger).presence
    calibrate(**step, untagged=True)
    assert "plain-1" not in (tmp_path / "skipped.jsonl").read_text()
    both = TagClassifier.load(tagger).presence
    np.testing.assert_array_equal(both.slopes, alone.slopes)
    assert abs(both.offsets - alone.offsets).max() > 0.01
    metadata, _ = read_tensors(presence_path(tagger))
    assert (metadata["photos"], metadata["untagged"]) == ("8", "3")


def test_several_roots_and_a_half_precision(tmp_path, tagger):
    roots = [str(write_tar(tmp_path / f"{name}.tar")) for name in "ab"]
    path = calibrate(roots, str(tmp_path), tagger, 224, [1, 0.5], 2, "bfloat16")
    assert path.exists()


def test_of_shards_the_photos_for_validation_are_used(tmp_path, tagger):
    root = make_shards(tmp_path / "shards", each=2)
    (root / "train-000000.npz").unlink()
    calibrate(str(root), str(tmp_path), tagger, 224, folds=2)
    assert TagClassifier.load(tagger).presence is not None


def test_a_model_of_other_weights_is_replaced(tmp_path, tagger):
    root = str(write_tar(tmp_path / "photos.tar"))
    calibrate(root, str(tmp_path), tagger, 224, folds=2)
    tiny_tagger(tmp_path / "tagger.safetensors", ("cat", "woman"))
    calibrate(root, str(tmp_path), tagger, 224, folds=2)
    assert len(TagClassifier.load(tagger).presence.slopes) == 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"held_out": 0}, r"held_out=\[0.0\]"),
        ({"held_out": [1, 1]}, "for each of 1 roots"),
        ({"folds": 1}, "folds=1 must be at least 2"),
        ({"side": 100}, "side=100 at least 224"),
        ({"precision": "half"}, "precision=half is unknown"),
        ({"device": "abacus"}, "device=abacus"),
        ({"tagger": "none.safetensors"}, "does not exist"),
        ({"roots": "none"}, "none does not exist"),
        ({"roots": []}, "0 roots"),
    ],
)
def test_wrong_settings_are_refused(tmp_path, tagger, settings, message):
    given_settings = {"roots": str(write_tar(tmp_path / "photos.tar")), "tagger": tagger, "side": 224} | settings
    with pytest.raises(InputError, match=message):
        calibrate(output=str(tmp_path), **given_settings)
    assert not presence_path(tagger).exists()


def test_captions_without_a_tag_are_refused(tmp_path, tagger):
    root = write_tar(tmp_path / "photos.tar", ["eine Katze"])
    with tarfile.open(root, "w") as tar:
        add(tar, "a.jpg", jpeg("chelsea"))
        add(tar, "a.json", b'{"captions": ["eine Katze"]}')
    with pytest.raises(InputError, match="no caption names a tag"):
        calibrate(str(root), str(tmp_path), tagger, 224)


def test_only_broken_photos_are_refused(tmp_path, tagger):
    with pytest.raises(InputError, match=r"none of 9 photos can be used \(9 unreadable"):
        calibrate(str(write_tar(tmp_path / "photos.tar", broken=1)), str(tmp_path), tagger, 224)
