"""Lexicon: the tags that stand for words that are not tags themselves, such as "elephant" or "grey".

``grounding step=lexicon`` derives it from WordNet for one vocabulary (``grounding.text.wordnet``) and writes it beside
the tagger. WordNet is not needed to read it.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from grounding.text.lines import decode
from grounding.text.words import WordPart, base_forms
from proposals.errors import InputError

FORMAT = "grounding-lexicon-1"
SUFFIX = ".lexicon.json"
MOST_TAGS = 8  # of one word
MOST_BYTES = 32 << 20
KINDS = ("spelling", "synonym", "narrower", "broader", "related")


class Meaning(NamedTuple):
    """How a word is read.

    Attributes:
        tags: the tags that stand for the word, 1 to 8. All have the same prior weight.
        how: "tag": the word itself or an inflected form of it; "spelling": another spelling; "synonym": another name of
            the same thing; "narrower": the kinds of the thing; "broader": the kind that the thing belongs to;
            "related": other things of that kind, or parts of the thing, which may look like it.
    """

    tags: tuple[str, ...]
    how: str


@dataclass(frozen=True)
class Lexicon:
    """The meanings of words, for one vocabulary. Immutable, so threads may share it.

    Args:
        vocabulary: the digest of the vocabulary, see :func:`digest`.
        meanings: for each normalised word, or several words with a space between them, how it is read.
        source: where the lexicon comes from, for error messages.
    """

    vocabulary: str
    meanings: Mapping[str, Meaning]
    source: str = "the lexicon"

    def check(self, tags: Iterable[str]) -> None:
        """Checks that the lexicon was made for a vocabulary.

        Args:
            tags: the tags of the vocabulary, in order.

        Raises:
            InputError: it was made for another vocabulary, or contains a tag that the vocabulary does not have.
        """
        tags = tuple(tags)
        if self.vocabulary != digest(tags):
            raise InputError(
                f"{self.source} was made for other tags: make it again with 'grounding step=lexicon tagger.path=FILE', "
                "or set lexicon=false"
            )
        distinct = {id(meaning): meaning for meaning in self.meanings.values()}  # faster than to compare them
        odd = {tag for meaning in distinct.values() for tag in meaning.tags} - set(tags)
        if odd:
            raise InputError(
                f"{self.source} reads words as {min(odd)!r}, which is not a tag: make it again with "
                "'grounding step=lexicon tagger.path=FILE'"
            )

    def get(self, word: str) -> Meaning | None:
        """The meaning of one normalised word, or of several joined without a space.

        Args:
            word: the word. Inflected forms are not tried.

        Returns:
            The meaning, or None if the lexicon does not have the word.
        """
        return self.meanings.get(word) or self._joined.get(word)

    def match(self, parts: Sequence[WordPart], start: int, shortest: int = 2) -> tuple[Meaning | None, int]:
        """The longest entry of several words at the beginning of ``parts[start:]``.

        The last word may be inflected (``wine glasses``).

        Args:
            parts: the parts of a text's words.
            start: index of the first part to use.
            shortest: the smallest number of parts.

        Returns:
            The meaning and its number of parts, or (None, 0) if no entry fits.
        """
        longest = self._longest.get(parts[start].normalized, 0)
        spelled = [part.normalized for part in parts[start : start + longest]]
        for count in range(len(spelled), shortest - 1, -1):
            if " ".join(spelled[: count - 1]) not in self._heads:
                continue
            for last in chain((spelled[count - 1],), base_forms(spelled[count - 1])):
                if meaning := self.meanings.get(" ".join((*spelled[: count - 1], last))):
                    return meaning, count
        return None, 0

    @cached_property
    def _joined(self) -> dict[str, Meaning]:
        return {word.replace(" ", ""): meaning for word, meaning in self.meanings.items() if " " in word}

    @cached_property
    def _heads(self) -> set[str]:
        """The entries of several words without their last word."""
        return {word.rpartition(" ")[0] for word in self.meanings if " " in word}

    @cached_property
    def _longest(self) -> dict[str, int]:
        """First word -> the largest number of words of an entry that begins with it."""
        longest: dict[str, int] = {}
        for word in self.meanings:
            if " " in word:
                first, count = word.split(" ", 1)[0], word.count(" ") + 1
                longest[first] = max(longest.get(first, 0), count)
        return longest


def digest(tags: Iterable[str]) -> str:
    """Identifies a vocabulary.

    Args:
        tags: the tags, in order.

    Returns:
        64 hexadecimal digits.
    """
    return sha256("\n".join(tags).encode("utf-8", "backslashreplace")).hexdigest()


def lexicon_path(tagger: str | Path) -> Path:
    """The place of a tagger's lexicon.

    Args:
        tagger: the tagger's file, such as ``tagger.safetensors``.

    Returns:
        The file beside it, such as ``tagger.lexicon.json``.
    """
    return Path(tagger).with_suffix(SUFFIX)


def encode(lexicon: Lexicon, licence: str) -> str:
    """The text of a lexicon's file. Equal lexicons give equal texts.

    Args:
        lexicon: the lexicon.
        licence: the notice of WordNet's licence.

    Returns:
        JSON. Each line of "entries" has a kind, its tags, and all words that are read so.
    """
    grouped: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for word, meaning in sorted(lexicon.meanings.items()):
        grouped.setdefault((meaning.how, meaning.tags), []).append(word)
    rows = [json.dumps([how, tags, words], ensure_ascii=False) for (how, tags), words in sorted(grouped.items())]
    head = {"format": FORMAT, "licence": licence, "vocabulary": lexicon.vocabulary}
    text = json.dumps(head, indent=0, ensure_ascii=False).removesuffix("\n}")
    return f'{text},\n"entries": [\n' + ",\n".join(rows) + "\n]\n}\n"


def load_lexicon(path: str | Path) -> Lexicon:
    """Reads the file of a lexicon.

    Args:
        path: a file that step=lexicon wrote.

    Returns:
        The lexicon. It is not yet compared with a vocabulary, see :meth:`Lexicon.check`.

    Raises:
        InputError: the file cannot be read, is too large, or is not a lexicon.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror or error})") from error
    try:
        if len(data) > MOST_BYTES:
            raise InputError(f"it has more than {MOST_BYTES >> 20} MiB")
        return _parse(json.loads(decode(data, "its text")), str(path))
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise InputError(
            f"{path} is not a lexicon ({error}): make it again with 'grounding step=lexicon tagger.path=FILE'"
        ) from error


def _parse(content: Any, source: str) -> Lexicon:
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise InputError(f"it does not say format={FORMAT}")
    meanings: dict[str, Meaning] = {}
    for number, entry in enumerate(content["entries"], 1):
        how, tags, words = entry
        if how not in KINDS or not _texts(tags) or not _texts(words) or len(set(tags)) != len(tags):
            raise InputError(f"entry {number} must be a kind of {', '.join(KINDS)}, a list of tags and a list of words")
        if len(tags) > MOST_TAGS:
            raise InputError(f"entry {number} has {len(tags)} tags, more than {MOST_TAGS}")
        meanings |= dict.fromkeys(words, Meaning(tuple(tags), how))
    return Lexicon(str(content["vocabulary"]), meanings, source)


def _texts(values: object) -> bool:
    return isinstance(values, list) and len(values) > 0 and all(isinstance(value, str) and value for value in values)
