"""What the captions of a photo say about each tag: it is named, it is not named, or something more general is named."""

from collections.abc import Iterable, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from grounding.text.phrases import Phrase
from grounding.text.vocabulary import Vocabulary
from grounding.text.words import base_forms, normalize
from proposals.errors import InputError
from training.sample_text import SampleText

EMBEDDED_WORDS = Path(str(files("training") / "broader_words.txt"))


class NamedTags(NamedTuple):
    """What a photo's text says.

    Attributes:
        named: indices of the tags that it names, or beneath which it names something; sorted.
        unknown: indices of tags beneath the words that it names, such as ``man`` if it has ``people``; sorted.
    """

    named: tuple[int, ...]
    unknown: tuple[int, ...]


class CaptionLabels:
    """Finds the tags that captions name.

    Args:
        vocabulary: the tags of the tagger.
        broader: a file like ``broader_words.txt``.

    Raises:
        InputError: the file cannot be read, or a line has no colon or no word.
    """

    def __init__(self, vocabulary: Vocabulary, broader: str | Path = EMBEDDED_WORDS):
        self.vocabulary = Vocabulary(vocabulary.tags)  # without a lexicon: only the tags themselves are named
        beneath = _read_broader(Path(broader))
        self._beneath = {word: _closure(word, beneath) for word in beneath}
        self._above: dict[str, set[str]] = {}
        for word, below in self._beneath.items():
            for narrower in below:
                self._above.setdefault(narrower, set()).add(word)
        self._forms = cache(self._base_forms)

    def of(self, text: SampleText) -> NamedTags:
        """The tags that a photo's captions or tags name.

        Args:
            text: the text of a photo.

        Returns:
            The named and the unknown tags.
        """
        written = self._written(text.tags or text.captions)
        implied = written.union(*(self._above.get(word, ()) for word in written))
        possible = set().union(*(self._beneath.get(word, ()) for word in written)) - implied
        # "two dogs" shows a dog; "a dog" says nothing about "dogs"
        plural = {tag for tag in self.vocabulary if tag not in implied and self._forms(tag) & (implied | possible)}
        return NamedTags(self._rows(implied), self._rows(possible | plural))

    def implied_tags(self) -> NDArray[np.int64]:
        """The pairs of a tag and a tag above it, ``(pairs, 2)``: ``man`` and ``person``, ``dogs`` and ``dog``."""
        pairs = set()
        for row, tag in enumerate(self.vocabulary):
            words = {tag, *self._forms(tag)}
            above = words.union(*(self._above.get(word, ()) for word in words)) - {tag}
            pairs |= {(row, other) for other in self._rows(above)}
        return np.array(sorted(pairs), np.int64).reshape(-1, 2)

    def _written(self, texts: Iterable[str]) -> set[str]:
        """The tags of the texts, their words without a tag, and the base forms of both."""
        phrases = [Phrase.parse(text, self.vocabulary) for text in texts]
        found = {word for phrase in phrases for word in (*phrase.tags, *map(normalize, phrase.skipped))}
        return found.union(*map(self._forms, found))

    @staticmethod
    def _base_forms(word: str) -> frozenset[str]:
        return frozenset(base_forms(word)) - {word}

    def _rows(self, words: Iterable[str]) -> tuple[int, ...]:
        return tuple(sorted(self.vocabulary.index(word) for word in words if word in self.vocabulary))


def _read_broader(path: Path) -> dict[str, tuple[str, ...]]:
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read ({error}): use a text file with lines such as 'dog: puppy'") from error
    words: dict[str, tuple[str, ...]] = {}
    for number, line in enumerate(lines, 1):
        if line.strip() and not line.startswith("#"):
            word, _, rest = line.partition(":")
            narrower = tuple(text.strip() for text in rest.split(","))
            if not word.strip() or not all(narrower):
                cure = "write a word, a colon and narrower words with commas, such as 'dog: puppy, terrier'"
                raise InputError(f"{path}:{number}: {cure}")
            words[word.strip()] = words.get(word.strip(), ()) + narrower
    return words


def _closure(word: str, beneath: dict[str, Sequence[str]]) -> frozenset[str]:
    """All words beneath a word, at any depth."""
    found: set[str] = set()
    queue = list(beneath[word])
    while queue:
        if (narrower := queue.pop()) not in found and narrower != word:
            found.add(narrower)
            queue += beneath.get(narrower, ())
    return frozenset(found)
