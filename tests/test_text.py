"""The tags of a photo's text, and their counting in bounded memory, beside plain definitions."""

import json
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grounding.text.vocabulary import Vocabulary
from grounding.text.words import caption_tags, normalize, words
from training.counting import TagCounter
from training.text import MAX_TAG, Text

VOCABULARY = Vocabulary(("dog", "hot dog", "red", "t-shirt", "cat", "собака", "猫"))
WORDS = [
    "dog",
    "dogs",
    "hot",
    "Hot",
    "red",
    "t-shirt",
    "tshirt",
    "T",
    "shirt",
    "cat",
    "a",
    "the",
    "猫",
    "Собака",
    ",",
    "-",
]


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"tags": "a; b,c | d e"}, Text(tags=("a", " b", "c ", " d e"))),
        ({"tags": ["a, b", None, 3, " "]}, Text(tags=("a, b",))),
        ({"tags": '["a", "b;c"]'}, Text(tags=("a", "b;c"))),
        ({"tags": "[oh, no"}, Text(tags=("[oh", " no"))),
        ({"keywords": ("a",)}, Text(tags=("a",))),
        ({"tags": [], "caption": "a, b"}, Text(captions=("a, b",))),
        ({"tags": ["x"], "caption": "a"}, Text(tags=("x",))),
        ({"captions": ["a", "b"], "caption": "c"}, Text(captions=("a", "b"))),
        ({"text": "a"}, Text(captions=("a",))),
        ({"caption": None, "url": "x"}, Text()),
        ({"caption": {"a": 1}}, Text()),
        ({"caption": float("nan")}, Text()),
    ],
)
def test_the_fields_that_hold_a_text(fields, text):
    assert Text.of(fields) == text


def test_tags_are_normalised_in_their_order_and_kept_whole():
    text = Text(
        tags=("Hot  Dog", "DOG", "hot dog", "!!!", "Собака", "x" * (MAX_TAG + 1), "x" * 10**6, "\ud800", "dogs")
    )
    assert text.named() == ["hot dog", "dog", "собака", "dogs"]
    assert text.known(VOCABULARY) == ([1, 0, 5], [1, 1, 1])


def test_captions_are_ordered_by_those_that_agree_and_then_by_place():
    text = Text(captions=("A cat and a dog", "Red t-shirt, dog", "two hot dogs", "猫"))
    rows, agree = text.known(VOCABULARY)
    assert [VOCABULARY[row] for row in rows] == ["dog", "cat", "red", "t-shirt", "hot dog", "猫"]
    assert agree == [2, 1, 1, 1, 1, 1]
    assert Text(captions=("a tshirt on a dog",)).known(VOCABULARY)[0] == [3, 0]
    assert Text(captions=("dog",) * 300).known(VOCABULARY) == ([0], [255])


@given(st.lists(st.lists(st.sampled_from(WORDS), max_size=6).map(" ".join), max_size=4))
def test_the_tags_of_captions_are_those_of_the_plain_definition(captions):
    rows, agree = Text(captions=tuple(captions)).known(VOCABULARY)
    found = [VOCABULARY.tags_in(caption) for caption in captions]
    assert {VOCABULARY[row] for row in rows} == set().union(*found) and len(set(rows)) == len(rows)
    assert agree == [sum(VOCABULARY[row] in tags for tags in found) for row in rows]
    assert agree == sorted(agree, reverse=True)
    written = [normalize(word) for caption in captions for word in words(caption)]
    single = [row for row in rows if VOCABULARY[row] in written]
    assert single == sorted(single, key=lambda row: (-agree[rows.index(row)], written.index(VOCABULARY[row])))


@given(st.lists(st.text()))
def test_named_tags_are_fit_for_a_vocabulary(texts):
    for text in (Text(tags=tuple(texts)), Text(captions=tuple(texts))):
        named = text.named()
        if named:
            vocabulary = Vocabulary(tuple(named))
            text.known(vocabulary)
        assert not any("\n" in tag or "\t" in tag or len(tag.splitlines()) > 1 for tag in named)
    assert set(Text(captions=tuple(texts)).named()) <= set().union(*map(caption_tags, texts))


@given(st.lists(st.lists(st.integers(0, 30).map(str), max_size=6, unique=True)), st.integers(1, 40))
def test_counts_are_too_low_by_no_more_than_is_said(photos, most):
    counter, true = TagCounter(most), Counter()
    for tags in photos:
        counter.add(tags)
        true.update(tags)
    assert counter.photos == len(photos) and len(counter.counts) <= most
    assert all(true[tag] - counter.error <= counter.counts[tag] <= true[tag] for tag in true)
    if len(true) <= most:
        assert counter.error == counter.forgotten == 0 and counter.counts == true
    assert len(counter.counts) + counter.forgotten >= len(true)


@given(st.lists(st.lists(st.integers(0, 9).map(str), unique=True)), st.integers(0, 9), st.integers(1, 12))
def test_parts_add_up(photos, cut, most):
    whole, one, other, true = TagCounter(), TagCounter(most), TagCounter(most), Counter()
    for i, tags in enumerate(photos):
        whole.add(tags)
        (one if i < cut else other).add(tags)
        true.update(tags)
    one.merge(other)
    assert one.photos == whole.photos and whole.counts == true
    assert all(true[tag] - one.error <= one.counts[tag] <= true[tag] for tag in true)
    if not one.error:
        assert one.counts == whole.counts


def test_the_best_tags():
    counter = TagCounter()
    for tags in (["b", "a", "c"], ["b", "a", "stop"], ["stop", "d"], ["e"]):
        counter.add(tags)
    assert counter.best(10, 2, frozenset({"stop"})) == [("a", 2), ("b", 2)]
    assert counter.best(1, 1) == [("a", 2)] and counter.best(9, 3) == []
    assert json.dumps(counter.best(3, 1)) == '[["a", 2], ["b", 2], ["stop", 2]]'
