"""The presence model: its definition, its file, and how words and phrases combine."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from made_shards import tiny_tagger

from grounding import TagClassifier
from grounding.tagger.presence import PresenceModel, phrase_presence, presence_path, word_presence
from grounding.tagger.tensors import read_tensors, write_tensors
from proposals.errors import InputError

CHANCES = st.lists(st.floats(0, 1), min_size=1, max_size=6)


def model(slopes=(1.0, 2.0, 0.5), offsets=(0.0, -1.0, 3.0), implied=(), context=(0.0, 0.0, 0.0), tagger="x"):
    """A model with one direction of the context, the first tag's score minus the second's."""
    pairs = np.array(implied, np.int64).reshape(-1, 2) if not np.size(implied) else np.array(implied)
    directions = np.array([1.0, -1.0, *[0.0] * (len(slopes) - 2)])[: len(slopes), None]
    return PresenceModel(
        np.array(slopes), np.array(offsets), directions, np.array(context)[None, : len(slopes)], pairs, tagger
    )


def plain_probabilities(maps, presence, weights):
    """The definition, one tag at a time."""
    scores = [max(positions.flatten().tolist()) for positions in maps]
    difference = scores[0] - scores[1]
    rows = zip(scores, presence.slopes, presence.offsets, weights, strict=True)
    return [1 / (1 + math.exp(-(slope * x + offset + difference * weight))) for x, slope, offset, weight in rows]


@given(st.integers(0, 10**6), st.lists(st.floats(-2, 2), min_size=3, max_size=3))
def test_probabilities_follow_the_definition(seed, weights):
    maps = torch.from_numpy(np.random.default_rng(seed).normal(size=(3, 2, 4)))
    presence = model(context=weights)
    found = presence.probabilities(maps)
    np.testing.assert_allclose(found, plain_probabilities(maps, presence, weights))
    assert found.dtype == np.float64


@given(st.integers(0, 10**6), st.floats(0, 1e3))
def test_without_a_context_a_larger_score_gives_no_smaller_probability(seed, more):
    maps = torch.from_numpy(np.random.default_rng(seed).normal(size=(3, 2, 2)))
    below, above = model().probabilities(maps), model().probabilities(maps + more)
    assert (above >= below).all() and (below >= 0).all() and (above <= 1).all()


def test_extreme_scores_do_not_overflow():
    maps = torch.tensor([-1e6, 1e6, 0.0])[:, None, None]
    assert model().probabilities(maps).tolist() == pytest.approx([0, 1, 1 / (1 + math.exp(-3))])


def test_scores_of_another_vocabulary_are_refused():
    with pytest.raises(InputError, match="2 scores for 3 tags"):
        model().probabilities(torch.zeros(2, 1, 1))


@given(st.integers(0, 10**6))
def test_a_tag_is_at_least_as_probable_as_those_beneath_it(seed):
    maps = torch.from_numpy(np.random.default_rng(seed).normal(size=(3, 2, 2)))
    alone = model().probabilities(maps)
    found = model(implied=[(0, 2), (1, 2)]).probabilities(maps)
    assert found.tolist() == [alone[0], alone[1], alone.max()]


def test_the_tags_keep_their_order():
    maps, order = torch.randn(3, 2, 2), [2, 0, 1]
    turned = model(model().slopes[order], model().offsets[order])
    assert turned.probabilities(maps[order]).tolist() == model().probabilities(maps)[order].tolist()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"slopes": (1.0, 0.0, 1.0)}, "slopes must be"),
        ({"slopes": (1.0, -1.0, 1.0)}, "slopes must be"),
        ({"slopes": (1.0, math.nan, 1.0)}, "slopes must be"),
        ({"slopes": (1.0, math.inf, 1.0)}, "slopes must be"),
        ({"offsets": (1.0, math.nan, 1.0)}, "offsets must be"),
        ({"context": (1.0, math.nan, 1.0)}, "context must be within"),
        ({"context": (1.0, 2.0)}, "directions .* and context .* must fit"),
        ({"offsets": (1.0, 1.0)}, "one for each tag"),
        ({"slopes": (), "offsets": ()}, "one for each tag"),
        ({"implied": [(0, 3)]}, "pairs of tags in 0..2"),
        ({"implied": [(-1, 2)]}, "pairs of tags in 0..2"),
        ({"implied": [(0, 1, 2)]}, "pairs of tags in 0..2"),
    ],
)
def test_wrong_numbers_are_refused(changes, message):
    with pytest.raises(InputError, match=message):
        model(**changes)


def test_a_file_is_read_as_it_was_written(tmp_path):
    path = tmp_path / "a.presence.safetensors"
    model(implied=[(0, 1)], context=(0.5, 0.25, 0)).save(path, photos="7")
    read = PresenceModel.load(path)
    assert read.slopes.tolist() == model().slopes.tolist() and read.offsets.tolist() == model().offsets.tolist()
    assert (read.implied.tolist(), read.context.tolist(), read.tagger) == ([[0, 1]], [[0.5, 0.25, 0]], "x")
    assert read.directions.tolist() == [[1], [-1], [0]]
    first = path.read_bytes()
    model(implied=[(0, 1)], context=(0.5, 0.25, 0)).save(path, photos="7")
    assert path.read_bytes() == first
    assert read_tensors(path)[0]["photos"] == "7"


def damaged(path, kind):
    metadata, tensors = read_tensors(path)
    if kind == "truncated":
        path.write_bytes(path.read_bytes()[:40])
    elif kind == "text":
        path.write_text("{}")
    else:
        metadata = {name: value for name, value in metadata.items() if name != kind}
        tensors = {name: value for name, value in tensors.items() if name != kind}
        tensors |= {"slopes": torch.full((3,), math.nan)} if kind == "nan" else {}
        tensors |= {"slopes": torch.ones(3, 3)} if kind == "matrix" else {}
        tensors |= {"slopes": torch.ones(3, dtype=torch.complex64)} if kind == "complex" else {}
        tensors |= {"directions": torch.zeros(2, 1, dtype=torch.float16)} if kind == "short" else {}
        write_tensors(path, tensors, metadata)


@pytest.mark.parametrize(
    "kind",
    [
        "truncated",
        "text",
        "format",
        "tagger",
        "directions",
        "context",
        "slopes",
        "offsets",
        "implied",
        "nan",
        "matrix",
        "complex",
        "short",
    ],
)
def test_a_damaged_file_is_refused(tmp_path, kind):
    path = tmp_path / "a.presence.safetensors"
    model().save(path)
    damaged(path, kind)
    with pytest.raises(InputError, match=r"a\.presence\.safetensors is (truncated|not a presence model)"):
        PresenceModel.load(path)


def fitted(path, **changes):
    tagger = TagClassifier.load(path)
    presence = model(**({"tagger": tagger.digest()} | changes))
    presence.save(presence_path(path))


def test_a_tagger_reads_the_model_beside_it(tmp_path):
    path = tiny_tagger(tmp_path / "tagger.safetensors")
    assert TagClassifier.load(path).presence is None
    fitted(path)
    assert presence_path(path).name == "tagger.presence.safetensors"
    assert TagClassifier.load(path).presence.slopes.tolist() == [1, 2, 0.5]


def test_the_digest_survives_saving(tmp_path):
    tagger = TagClassifier.load(tiny_tagger(tmp_path / "tagger.safetensors"))
    tagger.save(tmp_path / "copy.safetensors", note="another")
    assert TagClassifier.load(tmp_path / "copy.safetensors").digest() == tagger.digest()


@pytest.mark.parametrize("changes", [{"tagger": "another"}, {"slopes": (1.0, 1.0), "offsets": (1.0, 1.0)}])
def test_the_model_of_another_tagger_is_refused(tmp_path, changes):
    path = tiny_tagger(tmp_path / "tagger.safetensors")
    fitted(path, **changes)
    with pytest.raises(InputError, match=r"fitted for another tagger .* run step=calibrate"):
        TagClassifier.load(path)


def test_a_tagger_with_other_tags_is_another_one(tmp_path):
    path = tiny_tagger(tmp_path / "tagger.safetensors")
    fitted(path)
    tiny_tagger(tmp_path / "tagger.safetensors", ["cat", "zebra", "dog"])
    with pytest.raises(InputError, match="fitted for another tagger"):
        TagClassifier.load(path)


def test_new_weights_lose_the_model(tmp_path):
    path = tiny_tagger(tmp_path / "tagger.safetensors")
    fitted(path)
    tagger = TagClassifier.load(path)
    tagger.set_weights(tagger.state_dict(), path)
    assert tagger.presence is None


@given(CHANCES)
def test_a_phrase_is_the_mean_of_its_words_in_log_odds(words):
    found = phrase_presence(words)
    kept = [min(max(word, 1e-6), 1 - 1e-6) for word in words]
    odds = math.prod(word / (1 - word) for word in kept) ** (1 / len(kept))
    assert found == pytest.approx(odds / (1 + odds))
    assert min(kept) - 1e-9 <= found <= max(kept) + 1e-9
    assert found == pytest.approx(phrase_presence(words[::-1]))


@given(CHANCES)
def test_a_word_is_as_probable_as_its_most_probable_tag(chances):
    assert word_presence([1 / len(chances)] * len(chances), chances) == max(chances)


def test_tags_without_weight_do_not_count():
    assert word_presence([0, 1], [0.9, 0.2]) == 0.2
    with pytest.raises(InputError, match="without a tag"):
        word_presence([0], [0.5])


def test_no_word_has_no_presence():
    with pytest.raises(InputError, match="without a known word"):
        phrase_presence([])
