"""Phrase: a text to ground, the tags of the vocabulary that it contains, and the words without a tag."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

from grounding.text.vocabulary import Vocabulary
from grounding.text.words import FUNCTION_WORDS, WordPart, word_parts, words
from proposals.errors import InputError


@dataclass(frozen=True)
class Phrase:
    """A text to ground.

    Attributes:
        text: the caller's text, unchanged.
        tags: the vocabulary's tags for the text, in the order of its words, without repetitions.
        skipped: the words without a tag, as written, without repetitions. Function words are listed only if the phrase
            has no other word, so that a phrase without tags always has a skipped word.
    """

    text: str
    tags: tuple[str, ...]
    skipped: tuple[str, ...]

    @classmethod
    def parse(cls, text: str, vocabulary: Vocabulary) -> "Phrase":
        """Finds the tags of a text.

        At each word it tries, in this order: the longest tag of several words (separate, hyphenated or joined), the
        word itself, irregular plurals, the lemma, the parts of a hyphenated word, and the word joined with the next
        one. A form counts only if the vocabulary contains it.

        Args:
            text: the text to ground.
            vocabulary: the tags of the classifier.

        Returns:
            The phrase.

        Raises:
            InputError: the text is blank or not a string.
        """
        if not isinstance(text, str):
            raise InputError(f"a phrase must be text, not {text!r}: put it in quotes")
        if not text.strip():
            raise InputError("a phrase is empty: write what to find, such as 'a red mug'")
        tags, skipped = _tags_and_skipped(text, vocabulary)
        if not tags and not skipped:
            skipped = words(text) or [text.strip()]
        return cls(text, tuple(dict.fromkeys(tags)), tuple(dict.fromkeys(skipped)))


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


def _tags_and_skipped(text: str, vocabulary: Vocabulary) -> tuple[list[str], list[str]]:
    """The tags of a text, and its words without a tag except function words.

    If a tag covers only one part of a hyphenated word, the other part is listed instead of the whole word.
    """
    parts, written = word_parts(text), words(text)
    tags: list[str] = []
    missing: list[WordPart] = []
    covered: set[int] = set()  # numbers of the words that have a tag for at least one part
    start = 0
    while start < len(parts):
        tag, count = _next_tag(parts, start, vocabulary)
        if tag:
            tags.append(tag)
            covered |= {part.word for part in parts[start : start + count]}
        elif parts[start].normalized not in FUNCTION_WORDS:
            missing.append(parts[start])
        start += count
    return tags, [part.text if part.word in covered else written[part.word] for part in missing]


def _next_tag(parts: list[WordPart], start: int, vocabulary: Vocabulary) -> tuple[str | None, int]:
    """The tag at the beginning of ``parts[start:]`` and its number of parts; (None, 1) if there is no tag."""
    tag, count = vocabulary.match(parts, start)
    if tag:
        return tag, count
    following = (parts[i] for i in range(start, len(parts)))
    first, *rest = (part.normalized for part in takewhile(lambda part: part.word == parts[start].word, following))
    if rest and (tag := vocabulary.tag_of("".join((first, *rest)))):
        return tag, 1 + len(rest)
    if first in FUNCTION_WORDS:
        return (first if first in vocabulary else None), 1
    if tag := vocabulary.tag_of(first):
        return tag, 1
    second = parts[start + 1].normalized if start + 1 < len(parts) else ""
    if second and second not in FUNCTION_WORDS and (tag := vocabulary.tag_of(first + second)):
        return tag, 2
    return None, 1
