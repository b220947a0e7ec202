"""How the boxes of a phrase are ranked beside the other phrases of a photo, and the map of a word with several tags."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from grounding.cache import Cache
from grounding.maps import map_key
from grounding.rescoring import RIVAL_NORM, contest, first_box, mean_probability, vote, vote_overlaps, winning
from proposals.errors import InputError

BOXES = np.array([[0, 0, 10, 10], [0, 0, 10, 9], [20, 20, 40, 40], [21, 20, 40, 40], [0, 0, 50, 50]], float)


def plain_contest(p, presence, rivalry):
    """The definition, one phrase and one region at a time."""
    g = [[value / max(row) for value in row] for row in p]
    out = []
    for i, row in enumerate(p):
        new = []
        for r, value in enumerate(row):
            others = [min(1, presence[j] / presence[i]) * g[j][r] for j in range(len(p)) if j != i]
            rivals = sum(value**RIVAL_NORM for value in others) ** (1 / RIVAL_NORM)
            new.append(value * (g[i][r] / (g[i][r] + rivals)) ** rivalry)
        out.append([value / sum(new) for value in new])
    return out


rows = st.lists(st.floats(0.01, 1), min_size=3, max_size=3)


@given(st.lists(rows, min_size=1, max_size=4), st.data(), st.floats(0, 3))
def test_a_contest_is_its_definition(values, data, rivalry):
    p = np.array(values) / np.sum(values, 1, keepdims=True)
    presence = np.array(data.draw(st.lists(st.floats(0.01, 1), min_size=len(p), max_size=len(p))))
    np.testing.assert_allclose(contest(p, presence, rivalry), plain_contest(p.tolist(), presence, rivalry), rtol=1e-9)


def test_many_rivals_are_hardly_more_than_one():
    p = np.array([[0.8, 0.2]] + [[0.9, 0.1]] * 15)  # all prefer the first region
    shares = [contest(p[:count], np.ones(count), 1)[0] for count in (2, 16)]
    # the rivals are 1 or 15^(1/4) in the first region and a ninth of it in the second, where g is 0.25
    np.testing.assert_allclose(shares[0], [0.7429, 0.2571], atol=1e-4)
    np.testing.assert_allclose(shares[1], [0.7164, 0.2836], atol=1e-4)


def test_no_rivalry_and_a_single_phrase_change_nothing():
    p = winning(np.array([[1.0, 2, 3], [3, 2, 1]]), 3)
    np.testing.assert_allclose(contest(p, np.ones(2), 0), p)
    np.testing.assert_allclose(contest(p[:1], np.ones(1), 2), p[:1])


def test_what_is_not_in_the_photo_takes_nothing_away():
    p = winning(np.array([[1.0, 2, 3], [1, 2, 3]]), 3)
    contested = contest(p, np.array([0.9, 1e-9]), 1)
    np.testing.assert_allclose(contested[0], p[0], rtol=1e-6)
    assert contest(p, np.array([0.5, 0.0]), 1).sum() == pytest.approx(2)


@pytest.mark.parametrize("rivalry", [-1, np.nan, np.inf])
def test_a_rivalry_out_of_range_is_refused(rivalry):
    with pytest.raises(InputError, match=r"rivalry=.* must be a number >= 0; 0 answers each phrase on its own"):
        contest(np.ones((2, 3)) / 3, np.ones(2), rivalry)


def test_probabilities_sum_to_one_and_follow_the_scores():
    p = winning(np.array([[1.0, 2, 4], [0, 0, 0]]), 2)
    np.testing.assert_allclose(p, [[1 / 21, 4 / 21, 16 / 21], [1 / 3, 1 / 3, 1 / 3]])


def test_the_mean_over_methods_leaves_out_those_without_mass():
    scores = np.array([[[1.0, 2], [0, 0], [3, 1]], [[4, 4], [1, 3], [0, 0]]])
    mean = mean_probability(scores, 1)
    np.testing.assert_allclose(mean, [[(1 / 3 + 1 / 2) / 2, (2 / 3 + 1 / 2) / 2], [1 / 4, 3 / 4], [3 / 4, 1 / 4]])
    np.testing.assert_allclose(mean_probability(np.zeros((2, 1, 4)), 3), np.full((1, 4), 0.25))


def test_a_given_first_box_comes_first_and_the_others_share_what_is_left():
    overlaps, p = vote_overlaps(BOXES), winning(np.array([5.0, 4.9, 3, 2.9, 1]), 1)
    plain, _ = vote(overlaps, p)
    assert plain[0] == first_box(overlaps, p) == 0
    order, won = vote(overlaps, p, first=2)
    assert order.tolist()[:2] == [2, 0]
    assert sorted(order.tolist()) == sorted(plain.tolist())
    assert (np.diff(won) <= 1e-12).all()
    same, shares = vote(overlaps, p, first=0)
    assert same.tolist() == plain.tolist()
    assert shares.sum() <= 1 + 1e-6


def test_rivals_get_different_first_boxes(grounder, astronaut):
    scene = grounder.look(astronaut)
    phrases = ["a woman", "a flag", "a helmet"]
    apart, alone = (scene.ground(phrases, rivalry=rivalry) for rivalry in (5, 0))
    different = [len({tuple(answer.boxes[0]) for answer in answers}) for answers in (apart, alone)]
    assert different[0] >= different[1]
    for one, other in zip(apart, alone, strict=True):
        assert one.point == other.point
        assert one.presence == other.presence
        np.testing.assert_array_equal(one.map, other.map)
    twice = scene.ground(["a woman", "the woman"])
    (once,) = scene.ground(["a woman"])
    for answer in twice:
        np.testing.assert_array_equal(answer.boxes, once.boxes)  # the same words are no rivals


def test_the_map_of_a_word_is_the_map_of_its_distribution(grounder, astronaut):
    scene = grounder.look(astronaut)
    (answer,) = scene.ground(["an elephant"], method="mwp", vote=0)
    (reading,) = answer.phrase.readings
    assert len(reading.tags) > 1
    index = grounder.tagger.vocabulary.index
    shares = np.array(reading.weights) * scene.probabilities[[index(tag) for tag in reading.tags]]
    maps = scene.attend(reading.tags, "mwp")
    expected = np.tensordot(shares / shares.sum(), np.stack(maps), 1)  # MWP is linear in its signal
    np.testing.assert_allclose(answer.map, expected, rtol=1e-3, atol=1e-9)


def test_probabilities_without_a_presence_model(grounder, astronaut, monkeypatch):
    monkeypatch.setattr(grounder.tagger, "presence", None)
    scene = grounder.look(astronaut)
    (answer,) = scene.ground(["an elephant"])
    assert (answer.presence, answer.present) == (None, None)
    assert scene.presence(["an elephant", "zorgophone"]) == [None, None]
    assert ((scene.probabilities > 0) & (scene.probabilities < 1)).all()


def test_a_cached_scene_gives_the_same_answers_without_the_network(grounder, astronaut, tmp_path, monkeypatch):
    phrases = ["an elephant", "a woman in an orange suit", "a zorgophone"]
    cache = Cache(grounder, tmp_path)
    plain, first = grounder.look(astronaut).ground(phrases), cache.look(astronaut, phrases).ground(phrases)
    monkeypatch.setattr(grounder.topdown, "look", lambda *_: pytest.fail("computed again"))
    again = cache.look(astronaut, phrases)
    for answers in (first, again.ground(phrases)):
        for answer, expected in zip(answers, plain, strict=True):
            assert (answer.presence, answer.present, answer.point) == (
                expected.presence,
                expected.present,
                expected.point,
            )
            np.testing.assert_array_equal(answer.boxes, expected.boxes)
            np.testing.assert_array_equal(answer.scores, expected.scores)
    assert again.presence(phrases)[2] is None


def test_a_key_of_the_cache_names_method_tags_and_shares():
    signal = torch.zeros(5, dtype=torch.float64)
    signal[1], signal[3] = 0.25, 0.75
    assert map_key("mwp", signal) == "mwp 1:0.25 3:0.75"
