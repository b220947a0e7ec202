"""Phrase: the caller's text, the tags that stand for it, and the words that no tag covers; the step ``phrases``."""

import json
import logging
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple

from grounding.runtime.artefacts import atomic_path
from grounding.text.captions import Caption, read_captions
from grounding.text.chunks import noun_phrases
from grounding.text.vocabulary import Vocabulary
from grounding.text.words import FUNCTION_WORDS, Part, caption_tags, word_parts, words
from proposals.errors import InputError

__all__ = ["Markup", "Phrase", "PhraseCounts", "caption_tags", "extract_phrases", "parse_sentence"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Phrase:
    """What a caller asks for.

    Attributes:
        text: the caller's text, unchanged.
        tags: the vocabulary's tags for it, in the order of its words, each once.
        skipped: the words that no tag covers, as written, each once. Function words count only when there is nothing
            else, so that a phrase without a tag always names a reason.
    """

    text: str
    tags: tuple[str, ...]
    skipped: tuple[str, ...]

    @classmethod
    def parse(cls, text: str, vocabulary: Vocabulary) -> "Phrase":
        """Finds the tags of a text.

        At each word, in this order: the longest tag of several words (spaced, hyphenated or joined), the tag itself,
        irregular plurals, the lemma, the parts of a hyphenated word, and two words joined. The dictionary decides: a
        form counts only if it is a tag.

        Raises:
            InputError: the text is blank or no text.
        """
        if not isinstance(text, str):
            raise InputError(f"a phrase must be text, not {text!r}: put it in quotes")
        if not text.strip():
            raise InputError("a phrase is empty: say what to find, such as 'a red mug'")
        tags, skipped = _cover(text, vocabulary)
        if not tags and not skipped:
            skipped = words(text) or [text.strip()]
        return cls(text, tuple(dict.fromkeys(tags)), tuple(dict.fromkeys(skipped)))


def read_phrases(source: str | Sequence[str]) -> list[str]:
    """The phrases of a text file, one a line, as they stand there; a list is taken as it is.

    Lines end with a line feed, or a carriage return and one; blank lines are left out.

    Raises:
        InputError: the file cannot be read, is not UTF-8, or has no phrase; or it is neither a file nor a list.
    """
    if not isinstance(source, str):
        if not isinstance(source, Sequence):
            raise InputError(f"phrases={source} must be a list, such as 'phrases=[a cat, the red mug]', or a text file")
        return list(source)
    try:
        text = Path(source).read_bytes().decode("utf-8-sig")
    except OSError as error:
        mend = f"{error.strerror or error}; a list is written 'phrases=[a cat, the red mug]'"
        raise InputError(f"phrases={source} is no file that can be read: {mend}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{source}: not UTF-8 text; save the file as UTF-8") from error
    phrases = [line for line in text.replace("\r\n", "\n").split("\n") if line.strip()]
    if not phrases:
        raise InputError(f"{source} holds no phrase: write one a line")
    return phrases


def _cover(text: str, vocabulary: Vocabulary) -> tuple[list[str], list[str]]:
    """The tags of a text and its uncovered words but for function words; a word half covered leaves its other half."""
    parts, written = word_parts(text), words(text)
    tags: list[str] = []
    missing: list[Part] = []
    touched: set[int] = set()
    at = 0
    while at < len(parts):
        tag, count = _next_tag(parts, at, vocabulary)
        if tag:
            tags.append(tag)
            touched |= {part.word for part in parts[at : at + count]}
        elif parts[at].spelled not in FUNCTION_WORDS:
            missing.append(parts[at])
        at += count
    return tags, [part.written if part.word in touched else written[part.word] for part in missing]


def _next_tag(parts: list[Part], at: int, vocabulary: Vocabulary) -> tuple[str | None, int]:
    """The tag with which ``parts[at:]`` begin and how many it takes; (None, 1) when no tag covers the first."""
    tag, count = vocabulary.match(parts, at)
    if tag:
        return tag, count
    following = (parts[i] for i in range(at, len(parts)))
    first, *rest = (part.spelled for part in takewhile(lambda part: part.word == parts[at].word, following))
    if rest and (tag := vocabulary.tag_of("".join((first, *rest)))):
        return tag, 1 + len(rest)
    if first in FUNCTION_WORDS:
        return (first if first in vocabulary else None), 1
    if tag := vocabulary.tag_of(first):
        return tag, 1
    second = parts[at + 1].spelled if at + 1 < len(parts) else ""
    if second and second not in FUNCTION_WORDS and (tag := vocabulary.tag_of(first + second)):
        return tag, 2
    return None, 1


class Markup(NamedTuple):
    """A phrase as Flickr30k Entities marks it: the chain of boxes that it belongs to (0: none), its types, its text."""

    chain: str
    types: tuple[str, ...]
    text: str


_MARKUP = re.compile(r"\[/EN#([0-9]+)/([^\s\[\]]+)\s([^\[\]]+)\]")


def parse_sentence(line: str) -> list[Markup]:
    """The marked phrases of a Flickr30k Entities sentence, in order.

    >>> parse_sentence("A cat on [/EN#8/clothing/other a red hat] .")
    [Markup(chain='8', types=('clothing', 'other'), text='a red hat')]

    Raises:
        InputError: a bracket that is not closed, nested, or without a chain, a type or words.
    """
    found = [Markup(chain, tuple(types.split("/")), text.strip()) for chain, types, text in _MARKUP.findall(line)]
    broken = re.search(r"[\[\]].{,30}", _MARKUP.sub("", line))
    if broken or not all(markup.text and all(markup.types) for markup in found):
        at = f" at {broken[0]!r}" if broken else ""
        raise InputError(f"broken markup{at}: write [/EN#CHAIN/type words], each bracket closed and none in another")
    return found


@dataclass(frozen=True)
class PhraseCounts:
    """What :func:`extract_phrases` met.

    Attributes:
        images, sentences, phrases: how many; untagged: the phrases without any tag.
        skipped: the most frequent words that no tag covers, lower-cased, and how many phrases hold them.
    """

    images: int
    sentences: int
    phrases: int
    untagged: int
    skipped: tuple[tuple[str, int], ...]


def plain_sentence(line: str) -> str:
    """A Flickr30k Entities sentence without its marks.

    >>> plain_sentence("A cat on [/EN#8/clothing/other a red hat] .")
    'A cat on a red hat .'
    """
    return _MARKUP.sub(r"\3", line)


def extract_phrases(source: str | Path, output: str | Path, vocabulary: Vocabulary) -> PhraseCounts:
    """Writes the phrases of captions to ``phrases.jsonl``, one line a phrase, and logs a summary.

    A line is ``{"image", "sentence", "phrase", "text", "tags", "skipped"}``; sentences are numbered from 0 in an image,
    phrases from 0 in a sentence. Marked sentences give all their marked phrases, plain ones their noun phrases
    (:func:`grounding.text.chunks.noun_phrases`).

    Args:
        source: what :func:`grounding.text.captions.read_captions` reads; output: the file to write, whole or not at
            all.

    Raises:
        InputError: the source is malformed (file and line are named) or the output cannot be written.
    """
    images: set[str] = set()
    sentences = phrases = untagged = 0
    skipped: Counter[str] = Counter()
    with atomic_path(output) as aside, aside.open("w", encoding="utf-8") as file:
        for caption in read_captions(source):
            images.add(caption.image)
            sentences += 1
            for number, text in enumerate(_phrase_texts(caption)):
                phrase = Phrase.parse(text, vocabulary)
                place = {"image": caption.image, "sentence": caption.sentence, "phrase": number}
                file.write(json.dumps(place | asdict(phrase)) + "\n")
                phrases += 1
                untagged += not phrase.tags
                skipped.update({word.lower() for word in phrase.skipped})
    counts = PhraseCounts(len(images), sentences, phrases, untagged, tuple(skipped.most_common(20)))
    _log(counts, output)
    return counts


def _phrase_texts(caption: Caption) -> list[str]:
    if not caption.marked:
        return noun_phrases(caption.text)
    try:
        return [markup.text for markup in parse_sentence(caption.text)]
    except InputError as error:
        raise InputError(f"{caption.where}: {error}") from error


def _log(counts: PhraseCounts, output: str | Path) -> None:
    log.info(
        "%s: %d phrases in %d sentences of %d images; %d phrases without any tag; most often skipped: %s",
        *(output, counts.phrases, counts.sentences, counts.images, counts.untagged),
        ", ".join(f"{word} ({count})" for word, count in counts.skipped) or "none",
    )
