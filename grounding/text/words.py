"""The words of a text: how they are cut, compared, and led back to their base forms."""

import re
import unicodedata
from collections.abc import Iterator
from importlib.resources import files
from typing import NamedTuple

from nltk.tokenize import RegexpTokenizer
from simplemma import lemmatize


def _read_words(name: str) -> frozenset[str]:
    lines = (files("grounding.text") / name).read_text("utf-8").splitlines()
    return frozenset(word for line in lines if not line.startswith("#") for word in line.split())


FUNCTION_WORDS = _read_words("function_words.txt")

_APOSTROPHES = "'\u2018\u2019\u201b\u02bc\uff07`\u00b4"
_HYPHENS = "-\u2010\u2011\ufe63\uff0d"
# What stands between words: spaces, controls, invisible marks, and the punctuation of ASCII, Latin-1, Hebrew, Arabic,
# CJK and full width. Everything else, an emoji or a sign of any script, belongs to a word.
_BREAKS = (
    r"\s\x00-\x1f!-/:-@\[-`{-\xa9\xab-\xb1\xb4\xb6-\xb8\xbb\xbf\u02bc\u05be\u060c\u061b\u061f\u200b\u200e-\u205e"
    r"\u2060-\u206f\u3000-\u3003\u3008-\u3011\ufe50-\ufe6b\ufeff\uff01-\uff0f\uff1a-\uff20\uff5f-\uff65"
)
_LETTERS = f"[^{_BREAKS}]+"
_TOKENIZER = RegexpTokenizer(f"{_LETTERS}(?:[{_HYPHENS}{_APOSTROPHES}]{_LETTERS})*")
_CLITICS = re.compile(f"[{_APOSTROPHES}](?:s|m|d|re|ve|ll)(?![^{_BREAKS}])", re.IGNORECASE)
_HYPHEN = re.compile(f"[{_HYPHENS}]")

# what simplemma and the endings below get wrong in captions; an empty entry has no other form
_IRREGULAR = {
    "people": ("person",),
    "leaves": ("leaf",),
    "lives": ("life",),
    "skies": ("sky",),
    "sunglasses": ("glasses",),
    "busses": ("bus",),
    "lenses": ("lens",),
    "passersby": ("passerby",),
    **dict.fromkeys(("shorts", "pants", "tights", "overalls", "briefs", "slacks", "clothes", "news", "dice"), ()),
}
_ENDINGS = [
    (re.compile(r"men$"), "man"),
    (re.compile(r"people$"), "person"),
    (re.compile(r"ves$"), "f"),
    (re.compile(r"ves$"), "fe"),
    (re.compile(r"ies$"), "y"),
    (re.compile(r"(s|x|z|o|sh|ch)es$"), r"\1"),
    (re.compile(r"(?<=[^su])s$"), ""),
]


def normalize(text: str) -> str:
    """The form in which texts are compared: NFKC, case folded, one kind of apostrophe and hyphen, single spaces.

    Idempotent.
    """
    text = re.sub(f"[{_HYPHENS}]", "-", re.sub(f"[{_APOSTROPHES}]", "'", text))
    # twice, and decomposed before: case folding and composition undo one another for a few letters (Unicode, D146)
    for _ in range(2):
        text = unicodedata.normalize("NFKD", unicodedata.normalize("NFD", text).casefold())
    text = unicodedata.normalize("NFKC", text)
    return " ".join(text.split())


def words(text: str) -> list[str]:
    """The words of a text, in order and as written; hyphenated words are one, possessive 's is none.

    >>> words("A man's blue-striped T-shirt, 2 dogs!")
    ['A', 'man', 'blue-striped', 'T-shirt', '2', 'dogs']
    """
    found: list[str] = _TOKENIZER.tokenize(_CLITICS.sub(" ", text))
    return found


class Part(NamedTuple):
    """A word or one part of a hyphenated word: as written, normalised, and the number of its word in the text."""

    written: str
    spelled: str
    word: int


def word_parts(text: str) -> list[Part]:
    """The words of a text, cut at hyphens too: ``A Hot-Dog`` to a, hot and dog, of the words 0, 1 and 1."""
    return [Part(part, normalize(part), i) for i, word in enumerate(words(text)) for part in _HYPHEN.split(word)]


def base_forms(word: str) -> Iterator[str]:
    """What a normalised word may be a form of, likeliest first: irregular plurals, the lemma, plain plural endings.

    Guesses may be no words at all: keep only those that a dictionary has.
    """
    if word in _IRREGULAR:
        yield from _IRREGULAR[word]
        return
    if word.isalpha():
        yield lemmatize(word, lang="en").casefold()
    for ending, replacement in _ENDINGS:
        if ending.search(word):
            yield ending.sub(replacement, word)


def caption_tags(caption: str) -> set[str]:
    """The noisy tags that a caption puts on its photo: its normalised words, without function words.

    No lemma is taken: ``dog`` and ``dogs`` are two tags. A hyphenated word counts whole and in its parts.
    """
    whole = set(map(normalize, words(caption)))
    parts = {part.spelled for part in word_parts(caption) if len(part.spelled) > 1}
    # a few letters of odd scripts are normalised to mere punctuation
    return {tag for tag in (whole | parts) - FUNCTION_WORDS if tag.isalnum() or words(tag)}
