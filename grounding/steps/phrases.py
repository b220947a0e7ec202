"""The step ``phrases``: extracts the phrases of captions.

grounding step=phrases captions=captions.jsonl
"""

import json
import logging
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from grounding.runtime.artefacts import atomic_path
from grounding.text.captions import Caption, read_captions
from grounding.text.chunks import noun_phrases
from grounding.text.markup import parse_sentence
from grounding.text.phrases import Phrase
from grounding.text.vocabulary import Vocabulary
from proposals.errors import InputError

log = logging.getLogger(__name__)

MOST_SKIPPED = 20  # words in the summary


@dataclass(frozen=True)
class PhraseCounts:
    """The counts of an extraction.

    Attributes:
        images: number of images.
        sentences: number of captions.
        phrases: number of phrases.
        untagged: number of phrases without a tag.
        skipped: the most frequent words without a tag, in lower case, each with the number of its phrases.
    """

    images: int
    sentences: int
    phrases: int
    untagged: int
    skipped: tuple[tuple[str, int], ...]


def extract_phrases(source: str | Path, output: str | Path, vocabulary: Vocabulary) -> PhraseCounts:
    """Writes the phrases of captions as JSON lines, one line for each phrase, and logs a summary.

    A line is ``{"image", "sentence", "phrase", "text", "tags", "skipped", "read_as"}``. Sentences are numbered from 0
    within an image, phrases from 0 within a sentence. The phrases of a sentence with markup are the marked ones, those
    of a plain sentence its noun phrases (:func:`grounding.text.chunks.noun_phrases`).

    Args:
        source: the captions, a file or folder that :func:`grounding.text.captions.read_captions` can read.
        output: the file to write. If the extraction fails, the file is not changed.
        vocabulary: the tags of the classifier.

    Returns:
        The counts.

    Raises:
        InputError: the source is malformed (the message has the file and the line), or the output cannot be written.
    """
    images: set[str] = set()
    sentences = phrases = untagged = 0
    skipped: Counter[str] = Counter()
    with atomic_path(output) as temporary, temporary.open("w", encoding="utf-8") as file:
        for caption in read_captions(source):
            images.add(caption.image)
            sentences += 1
            for number, text in enumerate(_phrase_texts(caption)):
                phrase = Phrase.parse(text, vocabulary)
                place = {"image": caption.image, "sentence": caption.sentence, "phrase": number}
                found = {"text": text, "tags": phrase.tags, "skipped": phrase.skipped, "read_as": phrase.read_as}
                file.write(json.dumps(place | found) + "\n")
                phrases += 1
                untagged += not phrase.tags
                skipped.update({word.lower() for word in phrase.skipped})
    counts = PhraseCounts(len(images), sentences, phrases, untagged, tuple(skipped.most_common(MOST_SKIPPED)))
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
        "%s: %d phrases in %d sentences of %d images; %d phrases without a tag; most frequent words without a tag: %s",
        *(output, counts.phrases, counts.sentences, counts.images, counts.untagged),
        ", ".join(f"{word} ({count})" for word, count in counts.skipped) or "none",
    )
