"""From a text to the tags that it contains and the words without a tag; the examples in the docstrings."""

import doctest

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grounding.tagger.tagger import TagClassifier
from grounding.text import chunks, markup
from grounding.text import words as words_module
from grounding.text.phrases import Phrase
from grounding.text.vocabulary import Vocabulary
from grounding.text.words import FUNCTION_WORDS, normalize, word_parts, words
from proposals.errors import InputError

TAGS = "dog,man,woman,child,leaf,short,shorts,hot,blue,shirt,t-shirt,backpack,skateboard,striped,stripe,cup,run,sun"
VOCABULARY = Vocabulary([*TAGS.split(","), "fire hydrant", "cup of tea", "hot dog", "ice cream", "sunglasses"])


@pytest.mark.parametrize(
    ("text", "tags", "skipped"),
    [
        ("a man's hot dog", "man|hot dog", ""),
        ("HOT-DOGS and a hotdog", "hot dog", ""),
        ("fire  hydrants", "fire hydrant", ""),
        ("a hot blue dog", "hot|blue|dog", ""),
        ("cups of tea", "cup", "tea"),
        ("a cup of tea", "cup of tea", ""),
        ("T-shirts", "t-shirt", ""),
        ("t shirt", "t-shirt", ""),
        ("tshirt", "t-shirt", ""),
        ("ICECREAM cone", "ice cream", "cone"),
        ("the blue-striped backpack", "blue|striped|backpack", ""),
        ("a back-pack", "backpack", ""),
        ("sun-glasses", "sunglasses", ""),
        ("two skate boards", "skateboard", "two"),
        ("leaves, children and shorts", "leaf|child|shorts", ""),
        ("the dog's dog", "dog", ""),
        ("men 's shirt", "man|shirt", ""),
        ("a running dog", "run|dog", ""),
        ("Zorg, zorg and Zorg", "", "Zorg|zorg"),
        ("blue-Zorg", "blue", "Zorg"),
        ("Zorg-blarg", "", "Zorg-blarg"),
        ("of the", "", "of|the"),
        ("!!!", "", "!!!"),
        ("🐕 dog 👩\u200d👧", "dog", "🐕|👩\u200d👧"),
        ("dog🐕", "dog", "🐕"),
        ("☕\ufe0fdog's", "dog", "☕\ufe0f"),
        ("כלב אדום", "", "כלב|אדום"),
        ("2 dogs", "dog", "2"),
        ("Ｄｏｇ", "dog", ""),
        ("\ud800 dog", "dog", "\ud800"),
    ],
)
def test_the_vocabulary_decides_which_forms_are_tags(text, tags, skipped):
    phrase = Phrase.parse(text, VOCABULARY)
    assert phrase == Phrase(text, tuple(filter(None, tags.split("|"))), tuple(filter(None, skipped.split("|"))))


PLAIN = Vocabulary(VOCABULARY.tags, plain_words=True)


@pytest.mark.parametrize(
    ("text", "tags", "skipped"),
    [
        ("a man's hot dog", "man|hot|dog", ""),
        ("HOT-DOGS and a hotdog", "", "HOT-DOGS|hotdog"),
        ("the Dog near a dog", "dog|dog", "near"),
        ("T-shirts, a t-shirt", "t-shirt", "T-shirts"),
        ("a cup of tea", "cup", "tea"),
        ("the", "", "the"),
    ],
)
def test_plain_words_are_tags_only_as_they_are_written(text, tags, skipped):
    phrase = Phrase.parse(text, PLAIN)
    assert [tag for reading in phrase.readings for tag in reading.tags] == [tag for tag in tags.split("|") if tag]
    assert phrase.skipped == tuple(word for word in skipped.split("|") if word and word not in FUNCTION_WORDS - {"the"})
    assert not phrase.read_as and phrase.tags == tuple(dict.fromkeys(tag for tag in tags.split("|") if tag))


def test_plain_words_have_no_lexicon():
    with pytest.raises(InputError, match="plain_words=true reads each word as it is written: set lexicon=false, too"):
        TagClassifier.load(plain_words=True)


def test_longer_tags_come_first():
    vocabulary = Vocabulary(("hot", "dog", "hot dog", "hot dog stand"))
    assert Phrase.parse("hot dog stands", vocabulary).tags == ("hot dog stand",)
    assert Phrase.parse("hot dog hot", vocabulary).tags == ("hot dog", "hot")


@pytest.mark.parametrize(("text", "expected"), [
    ("dog🐕", ["dog", "🐕"]), ("🐕dog's ball", ["🐕", "dog", "ball"]), ("a dog's🐕", ["a", "dog", "🐕"]),
    ("❤️ a cat", ["❤️", "a", "cat"]), ("👩‍🚀s", ["👩‍🚀", "s"]), ("3️⃣ dogs", ["3", "dogs"]), ("🏳️‍🌈flag", ["🏳️‍🌈", "flag"]),
    ("می‌خواهم", ["می‌خواهم"]),
])  # fmt: skip
def test_emoji_are_words_of_their_own(text, expected):
    assert words(text) == expected


def test_an_emoji_beside_a_word_does_not_hide_it():
    phrase = Phrase.parse("dog🐕", Vocabulary(["dog"]))
    assert (phrase.tags, phrase.skipped) == (("dog",), ("🐕",))


def test_a_function_word_is_found_if_it_is_a_tag():
    assert Phrase.parse("the one behind", Vocabulary(("behind",))) == Phrase("the one behind", ("behind",), ("one",))


def test_function_words_are_never_joined_or_reduced():
    vocabulary = Vocabulary(("across", "inside", "be", "do"))
    assert Phrase.parse("a cross was in side", vocabulary).tags == ()


@pytest.mark.parametrize("text", ["", "  ", "\n\t"])
def test_a_blank_phrase_is_refused(text):
    with pytest.raises(InputError, match="phrase is empty: write what to find"):
        Phrase.parse(text, VOCABULARY)


def test_a_phrase_must_be_text():
    with pytest.raises(InputError, match="must be text, not 2: put it in quotes"):
        Phrase.parse(2, VOCABULARY)


OTHERS = ("Dogs", "people", "zorg", "Blarg", "hot-dog", "tea-cup", "man's", ",", *sorted(FUNCTION_WORDS)[::9])
TEXTS = st.lists(st.sampled_from([*VOCABULARY, *OTHERS])).map(" ".join)


@given((st.text(max_size=60) | TEXTS).filter(str.strip))
def test_every_word_is_covered_or_skipped_or_a_function_word(text):
    phrase = Phrase.parse(text, VOCABULARY)
    assert phrase.text == text
    assert set(phrase.tags) <= set(VOCABULARY)
    assert len(set(phrase.tags)) == len(phrase.tags)
    assert phrase.tags or phrase.skipped
    assert all(word in text for word in phrase.skipped)
    for word in words(text):
        inside = any(normalize(word) in tag.split() for tag in phrase.tags)
        function = all(part.normalized in FUNCTION_WORDS for part in word_parts(word))
        assert word in phrase.skipped or inside or function or Phrase.parse(word, VOCABULARY).tags


@given(st.lists(st.sampled_from(["zorg", "Blarg", "of", "the", "dog", "blue", "leaves"]), min_size=1))
def test_each_word_is_a_tag_or_skipped(written):
    phrase = Phrase.parse(" ".join(written), VOCABULARY)
    spelled = {"dog": "dog", "blue": "blue", "leaves": "leaf"}
    assert phrase.tags == tuple(dict.fromkeys(spelled[word] for word in written if word in spelled))
    unknown = tuple(dict.fromkeys(word for word in written if word in ("zorg", "Blarg")))
    assert phrase.skipped == (unknown if phrase.tags or unknown else tuple(dict.fromkeys(written)))


@pytest.mark.parametrize("module", [words_module, chunks, markup])
def test_examples_in_docstrings(module):
    found = doctest.testmod(module)
    assert found.attempted > 0 == found.failed
