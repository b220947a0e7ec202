"""Vocabulary: the tags that a classifier knows, and how a text's words find them."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from grounding.text.words import Part, base_forms, caption_tags, normalize, word_parts, words
from proposals.errors import InputError


@dataclass(frozen=True)
class Vocabulary:
    """Tags in a fixed order; a tag's index is its row in the classifier. Immutable, safe between threads.

    Args:
        tags: normalised (see :func:`grounding.text.words.normalize`), each once; a tag may have several words.

    Raises:
        InputError: no tag, or a tag that is empty, not normalised, without any word, or given twice.
    """

    tags: tuple[str, ...]

    def __post_init__(self) -> None:
        if isinstance(self.tags, str):
            raise InputError("a vocabulary is a list of tags, not one string")
        object.__setattr__(self, "tags", tuple(self.tags))
        if not self.tags:
            raise InputError("a vocabulary needs at least one tag")
        for number, tag in enumerate(self.tags):
            _check(number, tag)
        if len(self._rows) < len(self.tags):
            twice, count = Counter(self.tags).most_common(1)[0]
            raise InputError(f"tag {twice!r} is given {count} times: give each tag once")

    @classmethod
    def of_captions(cls, captions_per_image: Iterable[Sequence[str]], minimum: int = 10) -> "Vocabulary":
        """The words that occur in the captions of at least ``minimum`` photos, the most frequent first.

        Words are those of :func:`grounding.text.words.caption_tags`; equal counts are ordered by the alphabet.

        Args:
            captions_per_image: all captions of one photo, for each photo. A word counts once a photo.

        Raises:
            InputError: no word is frequent enough.
        """
        counts: Counter[str] = Counter()
        for captions in captions_per_image:
            counts.update(set().union(*map(caption_tags, captions)))
        kept = [word for word, count in counts.items() if count >= minimum]
        if not kept:
            raise InputError(f"no word occurs in the captions of {minimum} photos: lower the minimum or add captions")
        return cls(tuple(sorted(kept, key=lambda word: (-counts[word], word))))

    def __len__(self) -> int:
        return len(self.tags)

    def __iter__(self) -> Iterator[str]:
        return iter(self.tags)

    def __contains__(self, tag: object) -> bool:
        return tag in self._rows

    def __getitem__(self, index: int) -> str:
        return self.tags[index]

    def index(self, tag: str) -> int:
        """The row of a tag.

        Raises:
            InputError: the vocabulary has no such tag.
        """
        if tag not in self._rows:
            raise InputError(f"the vocabulary has no tag {tag!r}: Phrase.parse finds the tags of a text")
        return self._rows[tag]

    def tag_of(self, word: str) -> str | None:
        """The tag of one normalised word, or of several joined without a space: exact, else by its base forms."""
        return next((tag for form in (word, *base_forms(word)) if (tag := self._spelled(form))), None)

    def match(self, parts: Sequence[Part], at: int) -> tuple[str | None, int]:
        """The longest tag of several words with which ``parts[at:]`` begin, and how many of them it takes.

        The last word may be inflected (``hot dogs``). (None, 0) when no such tag fits.
        """
        spelled = [part.spelled for part in parts[at : at + self._longest]]
        for count in range(len(spelled), 1, -1):
            for last in (spelled[count - 1], *base_forms(spelled[count - 1])):
                if tag := self._spaced.get(" ".join((*spelled[: count - 1], last))):
                    return tag, count
        return None, 0

    def find(self, caption: str) -> set[str]:
        """The tags that a caption puts on its photo: :func:`grounding.text.words.caption_tags`, and tags of several
        words.

        A word inside a tag with a space is not found on its own: ``a hot dog`` is no dog. Only tags of several words
        are found inflected.
        """
        written, parts = words(caption), word_parts(caption)
        found, taken, at = set(), set(), 0
        while at < len(parts):
            tag, count = self.match(parts, at)
            if tag:
                found.add(tag)
                taken |= {part.word for part in parts[at : at + count] if " " in tag}
            at += max(count, 1)
        rest = " ".join(word for number, word in enumerate(written) if number not in taken)
        return found | {tag for word in caption_tags(rest) if (tag := self._spelled(word))}

    def _spelled(self, word: str) -> str | None:
        return word if word in self._rows else self._joined.get(word)

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {tag: index for index, tag in enumerate(self.tags)}

    @cached_property
    def _spaced(self) -> dict[str, str]:
        # reversed, so that of two spellings (t-shirt, t shirt) the more frequent, earlier one stays
        return {
            " ".join(part.spelled for part in parts): tag
            for tag in reversed(self.tags)
            if len(parts := word_parts(tag)) > 1
        }

    @cached_property
    def _joined(self) -> dict[str, str]:
        return {key.replace(" ", ""): tag for key, tag in self._spaced.items()}

    @cached_property
    def _longest(self) -> int:
        return max((key.count(" ") + 1 for key in self._spaced), default=1)


def _check(number: int, tag: str) -> None:
    if not isinstance(tag, str):
        raise InputError(f"tag {number} is {tag!r}, not text")
    if tag != normalize(tag):
        raise InputError(f"tag {number} {tag!r} is not normalised: write {normalize(tag)!r}")
    if not words(tag):
        raise InputError(f"tag {number} {tag!r} has no word: leave it out")
