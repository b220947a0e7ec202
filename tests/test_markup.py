"""Phrases of Flickr30k Entities sentences, and noun phrases of plain captions."""

import os
import re
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grounding.text.chunks import noun_phrases
from grounding.text.markup import Markup, parse_sentence
from proposals.errors import InputError


def test_a_sentence_gives_its_marked_phrases():
    assert parse_sentence("[/EN#7/people/other A man] in [/EN#0/notvisual front] of it .") == [
        Markup("7", ("people", "other"), "A man"),
        Markup("0", ("notvisual",), "front"),
    ]
    assert parse_sentence("nothing is marked") == []


@pytest.mark.parametrize(
    "line",
    [
        *["[/EN#7/people A man", "A man]", "[/EN#7/people A [/EN#8/other hat]]", "[/EN#7/people ]", "[/EN#7 A man]"],
        *["[/EN#x/people A man]", "[/EN#7//people A man]", "[EN#7/people A man]", "[]"],
    ],
)
def test_broken_markup_is_refused(line):
    with pytest.raises(InputError, match="broken markup"):
        parse_sentence(line)


TEXTS = st.text("ab cd'-", min_size=1).filter(str.strip)


@given(st.lists(st.tuples(st.integers(0, 10**6), st.lists(st.sampled_from(["people", "other"]), min_size=1), TEXTS)))
def test_parsing_inverts_writing(phrases):
    line = " , ".join(f"[/EN#{chain}/{'/'.join(types)} {text}]" for chain, types, text in phrases)
    assert parse_sentence(line) == [(str(chain), tuple(types), text.strip()) for chain, types, text in phrases]


@pytest.mark.parametrize(
    ("caption", "phrases"),
    [
        ("A man in a blue shirt is walking a dog.", "A man|a blue shirt|a dog"),
        ("Two dogs run across the field of grass .", "Two dogs|the field of grass"),
        ("A black and white dog jumps in front of her house", "A black and white dog|her house"),
        ("The man 's red hat", "The man 's red hat"),
        ("the man's red hat isn't small", "the man's red hat"),
        ("People race on a dirt bike track", "People|a dirt bike track"),
        ("she watches them", "she|them"),
        ("walking slowly", ""),
        ("", ""),
        ("<NP> {brackets} [of doors", "NP|brackets|doors"),
    ],
)
def test_noun_phrases(caption, phrases):
    assert noun_phrases(caption) == [phrase for phrase in phrases.split("|") if phrase]


@given(st.text(max_size=80))
def test_noun_phrases_are_in_the_caption_in_order(caption):
    at = 0
    for phrase in noun_phrases(caption):
        at = caption.index(phrase, at) + len(phrase)


def test_a_long_sequence_of_adjectives_is_parsed_quickly():
    assert noun_phrases("red " * 3000 + "dog")[-1].endswith("dog")


def test_noun_phrases_agree_with_marked_phrases():
    data = os.environ.get("GROUNDING_DATA")
    if not data:
        pytest.skip("set GROUNDING_DATA to a folder with flickr30k_entities/Sentences to measure the chunker")
    right = found = marked = 0
    for path in sorted(Path(data, "flickr30k_entities", "Sentences").glob("*.txt")):
        for line in filter(str.strip, path.read_text("utf-8").splitlines()):
            gold = Counter(markup.text.lower() for markup in parse_sentence(line))
            ours = Counter(map(str.lower, noun_phrases(re.sub(r"\[/EN#\S+ |\]", "", line))))
            right, found, marked = right + (gold & ours).total(), found + ours.total(), marked + gold.total()
    assert 2 * right / (found + marked) > 0.94
