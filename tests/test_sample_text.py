"""The tags of a photo's text, and their counting in bounded memory, compared with plain definitions."""

import json
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grounding.text.vocabulary import Vocabulary
from grounding.text.words import caption_tags, normalize, words
from training.sample_text import MAX_TAG, SampleText
from training.tag_counter import TagCounter

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
        ({"tags": "a; b,c | d e"}, SampleText(tags=("a", " b", "c ", " d e"))),
        ({"tags": ["a, b", None, 3, " "]}, SampleText(tags=("a, b",))),
        ({"tags": '["a", "b;c"]'}, SampleText(tags=("a", "b;c"))),
        ({"tags": "[oh, no"}, SampleText(tags=("[oh", " no"))),
        ({"keywords": ("a",)}, SampleText(tags=("a",))),
        ({"tags": [], "caption": "a, b"}, SampleText(captions=("a, b",))),
        ({"tags": ["x"], "caption": "a"}, SampleText(tags=("x",))),
        ({"captions": ["a", "b"], "caption": "c"}, SampleText(captions=("a", "b"))),
        ({"text": "a"}, SampleText(captions=("a",))),
        ({"caption": None, "url": "x"}, SampleText()),
        ({"caption": {"a": 1}}, SampleText()),
        ({"caption": float("nan")}, SampleText()),
    ],
)
def test_the_text_is_read_from_its_fields(fields, text):
    assert SampleText.of(fields) == text


def test_tags_are_normalised_and_keep_their_order():
    text = SampleText(
        tags=("Hot  Dog", "DOG", "hot dog", "!!!", "Собака", "x" * (MAX_TAG + 1), "x" * 10**6, "\ud800", "dogs")
    )
    assert text.all_tags() == ["hot dog", "dog", "собака", "dogs"]
    assert text.known_tags(VOCABULARY) == ([1, 0, 5], [1, 1, 1])


def test_tags_of_captions_are_ordered_by_agreement_and_then_by_place():
    text = SampleText(captions=("A cat and a dog", "Red t-shirt, dog", "two hot dogs", "猫"))
    rows, agree = text.known_tags(VOCABULARY)
    assert [VOCABULARY[row] for row in rows] == ["dog", "cat", "red", "t-shirt", "hot dog", "猫"]
    assert agree == [2, 1, 1, 1, 1, 1]
    assert SampleText(captions=("a tshirt on a dog",)).known_tags(VOCABULARY)[0] == [3, 0]
    assert SampleText(captions=("dog",) * 300).known_tags(VOCABULARY) == ([0], [255])


@given(st.lists(st.lists(st.sampled_from(WORDS), max_size=6).map(" ".join), max_size=4))
def test_the_tags_of_captions_equal_a_plain_definition(captions):
    rows, agree = SampleText(captions=tuple(captions)).known_tags(VOCABULARY)
    found = [VOCABULARY.tags_in(caption) for caption in captions]
    assert {VOCABULARY[row] for row in rows} == set().union(*found) and len(set(rows)) == len(rows)
    assert agree == [sum(VOCABULARY[row] in tags for tags in found) for row in rows]
    assert agree == sorted(agree, reverse=True)
    written = [normalize(word) for caption in captions for word in words(caption)]
    single = [row for row in rows if VOCABULARY[row] in written]
    assert single == sorted(single, key=lambda row: (-agree[rows.index(row)], written.index(VOCABULARY[row])))


@given(st.lists(st.text()))
def test_all_tags_can_be_in_a_vocabulary(texts):
    for text in (SampleText(tags=tuple(texts)), SampleText(captions=tuple(texts))):
        named = text.all_tags()
        if named:
            vocabulary = Vocabulary(tuple(named))
            text.known_tags(vocabulary)
        assert not any("\n" in tag or "\t" in tag or len(tag.splitlines()) > 1 for tag in named)
    assert set(SampleText(captions=tuple(texts)).all_tags()) <= set().union(*map(caption_tags, texts))


@given(st.lists(st.lists(st.integers(0, 30).map(str), max_size=6, unique=True)), st.integers(1, 40))
def test_counts_are_too_low_by_at_most_the_error(photos, capacity):
    counter, true = TagCounter(capacity), Counter()
    for tags in photos:
        counter.add(tags)
        true.update(tags)
    assert counter.photos == len(photos) and len(counter.counts) <= capacity
    assert all(true[tag] - counter.error <= counter.counts[tag] <= true[tag] for tag in true)
    if len(true) <= capacity:
        assert counter.error == counter.dropped == 0 and counter.counts == true
    assert len(counter.counts) + counter.dropped >= len(true)


@given(st.lists(st.lists(st.integers(0, 9).map(str), unique=True)), st.integers(0, 9), st.integers(1, 12))
def test_merged_counters_equal_one_counter(photos, cut, capacity):
    whole, one, other, true = TagCounter(), TagCounter(capacity), TagCounter(capacity), Counter()
    for i, tags in enumerate(photos):
        whole.add(tags)
        (one if i < cut else other).add(tags)
        true.update(tags)
    one.merge(other)
    assert one.photos == whole.photos and whole.counts == true
    assert all(true[tag] - one.error <= one.counts[tag] <= true[tag] for tag in true)
    if not one.error:
        assert one.counts == whole.counts


def test_the_most_common_tags():
    counter = TagCounter()
    for tags in (["b", "a", "c"], ["b", "a", "stop"], ["stop", "d"], ["e"]):
        counter.add(tags)
    assert counter.most_common(10, 2, frozenset({"stop"})) == [("a", 2), ("b", 2)]
    assert counter.most_common(1, 1) == [("a", 2)] and counter.most_common(9, 3) == []
    assert json.dumps(counter.most_common(3, 1)) == '[["a", 2], ["b", 2], ["stop", 2]]'
