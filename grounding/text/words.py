"""Words: splitting a text into words, comparing words, and reducing them to their base forms."""

import re
import unicodedata
from collections.abc import Iterator
from importlib.resources import files
from typing import NamedTuple


def _read_words(name: str) -> frozenset[str]:
    lines = (files("grounding.text") / name).read_text("utf-8").splitlines()
    return frozenset(word for line in lines if not line.startswith("#") for word in line.split())


FUNCTION_WORDS = _read_words("function_words.txt")

_APOSTROPHES = "'\u2018\u2019\u201b\u02bc\uff07`\u00b4"
_HYPHENS = "-\u2010\u2011\ufe63\uff0d"
# Characters that separate words: spaces, controls, invisible marks, and the punctuation of ASCII, Latin-1, Hebrew,
# Arabic, CJK and full-width forms, and marks that choose how an emoji looks. Letters of any script are part of words.
_BREAKS = (
    r"\s\x00-\x1f!-/:-@\[-`{-\xa9\xab-\xb1\xb4\xb6-\xb8\xbb\xbf\u02bc\u05be\u060c\u061b\u061f\u200b\u200e-\u205e"
    r"\u2060-\u206f\u3000-\u3003\u3008-\u3011\u20e3\ufe00-\ufe0f\ufe50-\ufe6b\ufeff\uff01-\uff0f\uff1a-\uff20\uff5f-\uff65"
)
# Emoji and pictographs. A run of them is a word of its own, also beside letters ("dog\U0001f415").
_EMOJI = r"\u2190-\u23ff\u25a0-\u27bf\u2b00-\u2bff\U0001f000-\U0001faff"
_LETTERS = f"[^{_BREAKS}{_EMOJI}]+"
_PICTURES = f"[{_EMOJI}][{_EMOJI}\u200d\ufe0f\U000e0020-\U000e007f]*"
_WORD = re.compile(f"{_PICTURES}|{_LETTERS}(?:[{_HYPHENS}{_APOSTROPHES}]{_LETTERS})*")
_CLITICS = re.compile(f"[{_APOSTROPHES}](?:s|m|d|re|ve|ll)(?![^{_BREAKS}{_EMOJI}])", re.IGNORECASE)
_HYPHEN = re.compile(f"[{_HYPHENS}]")

# words in captions for which simplemma and the endings below are wrong; an empty entry has no other form
_IRREGULAR = {
    "people": ("person",),
    "leaves": ("leaf",),
    "lives": ("life",),
    "skies": ("sky",),
    "sunglasses": ("glasses",),
    "busses": ("bus",),
    "lenses": ("lens",),
    "passersby": ("passerby",),
    "crosses": ("cross",),  # simplemma: crosse
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
    """Normalises a text for comparison: NFKC, case folding, one kind of apostrophe and hyphen, single spaces.

    Args:
        text: any text.

    Returns:
        The normalised text; normalising it again does not change it.
    """
    text = re.sub(f"[{_HYPHENS}]", "-", re.sub(f"[{_APOSTROPHES}]", "'", text))
    # Twice, after decomposition, because case folding and composition undo each other for a few letters (Unicode D146).
    for _ in range(2):
        text = unicodedata.normalize("NFKD", unicodedata.normalize("NFD", text).casefold())
    text = unicodedata.normalize("NFKC", text)
    return " ".join(text.split())


def words(text: str) -> list[str]:
    """Splits a text into words. A hyphenated word is one word; a possessive 's is left out; emoji are a word.

    >>> words("A man's blue-striped T-shirt, 2 dogs!")
    ['A', 'man', 'blue-striped', 'T-shirt', '2', 'dogs']

    Args:
        text: any text.

    Returns:
        The words in order, as written.
    """
    found: list[str] = _WORD.findall(_CLITICS.sub(" ", text))
    return found


class WordPart(NamedTuple):
    """A word, or one part of a hyphenated word.

    Attributes:
        text: the part, as written.
        normalized: the part, normalised.
        word: index of its word in the text, from 0.
    """

    text: str
    normalized: str
    word: int


def word_parts(text: str) -> list[WordPart]:
    """Splits a text into words, and hyphenated words into their parts.

    ``A Hot-Dog`` gives ``a``, ``hot`` and ``dog``, which belong to the words 0, 1 and 1.

    Args:
        text: any text.

    Returns:
        The parts in order.
    """
    return [WordPart(part, normalize(part), i) for i, word in enumerate(words(text)) for part in _HYPHEN.split(word)]


def lemma(word: str) -> str:
    """The English lemma of a word.

    Args:
        word: one word, letters only.

    Returns:
        The lemma; the word itself if it has none.
    """
    # imported here, because the import and reading the dictionary take half a second, and most words are tags
    from simplemma import lemmatize

    return lemmatize(word, lang="en")


def base_forms(word: str) -> Iterator[str]:
    """Possible base forms of a word, the most likely first: irregular plurals, the lemma, regular plural endings.

    A form is a guess and need not be a word, so use only forms that are in a vocabulary.

    Args:
        word: a normalised word.

    Yields:
        The forms.
    """
    if word in _IRREGULAR:
        yield from _IRREGULAR[word]
        return
    if word.isalpha():
        yield lemma(word).casefold()
    for ending, replacement in _ENDINGS:
        if ending.search(word):
            yield ending.sub(replacement, word)


def caption_tags(caption: str) -> set[str]:
    """The noisy tags that a caption gives to its photo: its normalised words without function words.

    Words are not reduced to base forms, so ``dog`` and ``dogs`` are two tags. A hyphenated word gives itself and its
    parts.

    Args:
        caption: a sentence.

    Returns:
        The tags.
    """
    whole = set(map(normalize, words(caption)))
    parts = {part.normalized for part in word_parts(caption) if len(part.normalized) > 1}
    # a few letters of rare scripts are normalised to punctuation only
    return {tag for tag in (whole | parts) - FUNCTION_WORDS if tag.isalnum() or words(tag)}
