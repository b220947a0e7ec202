"""Phrase: a text to ground, the tags of the vocabulary that it contains, and the words without a tag."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import groupby, takewhile
from pathlib import Path

from grounding.text.lexicon import Meaning
from grounding.text.vocabulary import Vocabulary
from grounding.text.words import FUNCTION_WORDS, WordPart, base_forms, normalize, word_parts, words
from proposals.errors import InputError


@dataclass(frozen=True)
class Reading:
    """How a word of a phrase is read: a distribution over tags, the prior P(A_0) of Zhang et al., Sec. 3.1.

    Attributes:
        text: the word, or the words that name one thing, as written.
        tags: the tags that stand for it, 1 to 8.
        weights: the prior weight of each tag; they sum to 1.
        how: see :class:`grounding.text.lexicon.Meaning`.
    """

    text: str
    tags: tuple[str, ...]
    weights: tuple[float, ...]
    how: str


@dataclass(frozen=True)
class Phrase:
    """A text to ground.

    Attributes:
        text: the caller's text, unchanged.
        tags: the vocabulary's tags for the text, in the order of its words, without repetitions.
        skipped: the words without a tag, as written, without repetitions. Function words are listed only if the phrase
            has no other word, so that a phrase without tags always has a skipped word.
        readings: how each word with a tag is read, in the order of the words. A word whose tags repeat those of an
            earlier word is left out, except if words are plain. Not compared.
    """

    text: str
    tags: tuple[str, ...]
    skipped: tuple[str, ...]
    readings: tuple[Reading, ...] = field(default=(), compare=False)

    @classmethod
    def parse(cls, text: str, vocabulary: Vocabulary) -> "Phrase":
        """Finds the tags of a text.

        At each word it tries, in this order: the longest tag or entry of the lexicon of several words (separate or
        hyphenated), the joined parts of a hyphenated word, the word itself as a tag, the word in the lexicon, its base
        forms (irregular plurals, the lemma) as tags and then in the lexicon, and the word joined with the next one. A
        form counts only if the vocabulary or its lexicon contains it.

        With ``vocabulary.plain_words``, each word is only looked up as it is written, without regard to case, and a
        repeated word is read again: "we first compute the word attention map for each word" (Zhang et al., Sec. 4.3).

        Args:
            text: the text to ground.
            vocabulary: the tags of the classifier, with or without a lexicon.

        Returns:
            The phrase.

        Raises:
            InputError: the text is blank or not a string.
        """
        if not isinstance(text, str):
            raise InputError(f"a phrase must be text, not {text!r}: put it in quotes")
        if not text.strip():
            raise InputError("a phrase is empty: write what to find, such as 'a red mug'")
        plain = vocabulary.plain_words
        readings, skipped = (_plain_readings if plain else _readings_and_skipped)(text, vocabulary)
        if not readings and not skipped:
            skipped = words(text) or [text.strip()]
        tags = dict.fromkeys(tag for reading in readings for tag in reading.tags)
        kept = readings if plain else _without_repetitions(readings)
        return cls(text, tuple(tags), tuple(dict.fromkeys(skipped)), tuple(kept))

    @property
    def read_as(self) -> str:
        """The words that are read as other tags, such as "antelope -> hartebeest, impala, gazelle".

        Several words are separated by "; ". A word that is a tag itself is left out, also if it is read with its kinds:
        :attr:`readings` has them. The text is empty if each word is a tag.
        """
        others = [reading for reading in self.readings if not _is_tag(reading)]
        return "; ".join(f"{reading.text} -> {', '.join(reading.tags)}" for reading in others)


def _is_tag(reading: Reading) -> bool:
    """Whether a word, or a base form of it, is one of its tags."""
    word = normalize(reading.text)
    return reading.how == "tag" or not {word, *base_forms(word)}.isdisjoint(reading.tags)


def listed(phrases: Iterable[str]) -> list[str]:
    """The phrases of a question as a list.

    Args:
        phrases: a list, or any other iterable of texts, such as a generator.

    Raises:
        InputError: this is one text or one path, or not iterable.
    """
    if isinstance(phrases, str | bytes | os.PathLike) or not isinstance(phrases, Iterable):
        raise InputError(f"phrases must be a list, such as ['a red mug'], not {repr(phrases)[:60]}")
    return [str(text) if isinstance(text, str) else text for text in phrases]


def at_least_one(phrases: Iterable[str]) -> list[str]:
    """The phrases of a question as a list that is not empty.

    Args:
        phrases: see :func:`listed`.

    Raises:
        InputError: see :func:`listed`; or there is no phrase.
    """
    texts = listed(phrases)
    if not texts:
        raise InputError("no phrase to ground: give a list of at least one")
    return texts


def read_phrases(source: str | Sequence[str]) -> list[str]:
    """Reads phrases from a text file, one on each line.

    Lines end with LF or CRLF. Blank lines are left out.

    Args:
        source: path of the file, or a list of phrases, which is returned as it is.

    Returns:
        The phrases, unchanged.

    Raises:
        InputError: the file cannot be read, is not UTF-8 or has no phrase, or the source is neither a path nor a list.
    """
    if not isinstance(source, str):
        if not isinstance(source, Sequence):
            raise InputError(f"phrases={source} must be a list, such as 'phrases=[a cat, the red mug]', or a text file")
        return list(source)
    try:
        text = Path(source).read_bytes().decode("utf-8-sig")
    except OSError as error:
        reason = error.strerror or error
        raise InputError(
            f"the file phrases={source} cannot be read ({reason}): write a list as 'phrases=[a cat, the red mug]'"
        ) from error
    except UnicodeDecodeError as error:
        raise InputError(f"{source} is not UTF-8 text: save the file as UTF-8") from error
    phrases = [line for line in text.replace("\r\n", "\n").split("\n") if line.strip()]
    if not phrases:
        raise InputError(f"{source} has no phrases: write one phrase on each line")
    return phrases


def _without_repetitions(readings: list[Reading]) -> list[Reading]:
    """The first reading with each tuple of tags."""
    first: dict[tuple[str, ...], Reading] = {}
    for reading in readings:
        first.setdefault(reading.tags, reading)
    return list(first.values())


def _plain_readings(text: str, vocabulary: Vocabulary) -> tuple[list[Reading], list[str]]:
    """The words that are tags as they are written, and the other words except function words."""
    written = words(text)
    tagged = [(word, tag) for word in written if (tag := normalize(word)) in vocabulary]
    others = [word for word in written if normalize(word) not in vocabulary]
    missing = [word for word in others if normalize(word) not in FUNCTION_WORDS]
    return [Reading(word, (tag,), (1.0,), "tag") for word, tag in tagged], missing


def _readings_and_skipped(text: str, vocabulary: Vocabulary) -> tuple[list[Reading], list[str]]:
    """The readings of a text, and its words without a tag except function words.

    If a tag covers only one part of a hyphenated word, the other part is listed instead of the whole word.
    """
    parts, written = word_parts(text), words(text)
    readings: list[Reading] = []
    missing: list[WordPart] = []
    covered: set[int] = set()  # numbers of the words that have a tag for at least one part
    start = 0
    while start < len(parts):
        meaning, count = _next_meaning(parts, start, vocabulary)
        if meaning:
            taken, size = parts[start : start + count], len(meaning.tags)
            readings.append(Reading(_written(taken), meaning.tags, (1 / size,) * size, meaning.how))
            covered |= {part.word for part in taken}
        elif parts[start].normalized not in FUNCTION_WORDS:
            missing.append(parts[start])
        start += count
    return readings, [part.text if part.word in covered else written[part.word] for part in missing]


def _written(parts: list[WordPart]) -> str:
    """The text of some parts: a hyphen within a word, a space between words."""
    return " ".join("-".join(part.text for part in word) for _, word in groupby(parts, lambda part: part.word))


def _next_meaning(parts: list[WordPart], start: int, vocabulary: Vocabulary) -> tuple[Meaning | None, int]:
    """The meaning of the beginning of ``parts[start:]`` and its number of parts; (None, 1) if there is none."""
    meaning, count = _several(parts, start, vocabulary)
    if meaning:
        return meaning, count
    following = (parts[i] for i in range(start, len(parts)))
    first, *rest = (part.normalized for part in takewhile(lambda part: part.word == parts[start].word, following))
    if rest and (meaning := vocabulary.meaning_of("".join((first, *rest)))):
        return meaning, 1 + len(rest)
    if first in FUNCTION_WORDS:
        return (Meaning((first,), "tag") if first in vocabulary else None), 1
    if meaning := vocabulary.meaning_of(first):
        return meaning, 1
    second = parts[start + 1].normalized if start + 1 < len(parts) else ""
    if second and second not in FUNCTION_WORDS and (tag := vocabulary.tag_of(first + second)):
        return Meaning((tag,), "tag"), 2
    return None, 1


def _several(parts: list[WordPart], start: int, vocabulary: Vocabulary) -> tuple[Meaning | None, int]:
    """The longest tag or entry of the lexicon of several words; a tag comes before an entry of the same length."""
    tag, count = vocabulary.match(parts, start)
    if vocabulary.lexicon is not None:
        meaning, length = vocabulary.lexicon.match(parts, start, max(2, count + 1))
        if meaning:
            return meaning, length
    return (Meaning((tag,), "tag") if tag else None), count
