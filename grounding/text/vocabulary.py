"""Vocabulary: the tags of a classifier, and the lookup of words among them."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain

from grounding.text.lexicon import Lexicon, Meaning
from grounding.text.words import WordPart, base_forms, caption_tags, normalize, word_parts, words
from proposals.errors import InputError


@dataclass(frozen=True)
class Vocabulary:
    """The tags of a classifier, in the order of its outputs. Immutable, so threads may share it.

    Args:
        tags: normalised texts (see :func:`grounding.text.words.normalize`) without repetitions; a tag may have several
            words.
        lexicon: the meanings of words that are not tags; None if only tags and their inflected forms are known. Two
            vocabularies with the same tags are equal, whatever their lexicons.
        plain_words: whether ``Phrase.parse`` looks up each word only as it is written, as the paper does: no base
            forms, no tags of several words, and a repeated word counts again.

    Raises:
        InputError: there are no tags, or a tag is empty, not normalised, without a word, or repeated; or there is a
            lexicon although words are plain.
    """

    tags: tuple[str, ...]
    lexicon: Lexicon | None = field(default=None, compare=False, repr=False)
    plain_words: bool = field(default=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        if isinstance(self.tags, str):
            raise InputError("a vocabulary must be a list of tags, not one string: put the tag in a list")
        object.__setattr__(self, "tags", tuple(self.tags))
        if not self.tags:
            raise InputError("a vocabulary needs at least one tag")
        for number, tag in enumerate(self.tags):
            _check(number, tag)
        if len(self._rows) < len(self.tags):
            repeated, count = Counter(self.tags).most_common(1)[0]
            raise InputError(f"tag {repeated!r} is given {count} times: give each tag once")
        if self.lexicon is not None and self.plain_words:
            raise InputError(
                "plain_words=true reads each word as it is written: set lexicon=false, too, or plain_words=false"
            )
        if self.lexicon is not None:
            self.lexicon.check(self.tags)

    @classmethod
    def from_captions(cls, captions_per_image: Iterable[Sequence[str]], minimum: int = 10) -> "Vocabulary":
        """The words that occur in the captions of at least ``minimum`` photos, the most frequent first.

        Words are those of :func:`grounding.text.words.caption_tags`. Words with equal counts are in alphabetical order.

        Args:
            captions_per_image: for each photo, all its captions. A word is counted once for each photo.
            minimum: the smallest number of photos.

        Returns:
            The vocabulary.

        Raises:
            InputError: no word is frequent enough.
        """
        counts: Counter[str] = Counter()
        for captions in captions_per_image:
            counts.update(set().union(*map(caption_tags, captions)))
        kept = [word for word, count in counts.items() if count >= minimum]
        if not kept:
            raise InputError(f"no word occurs in the captions of {minimum} photos: use a lower minimum")
        return cls(tuple(sorted(kept, key=lambda word: (-counts[word], word))))

    def __deepcopy__(self, memo: object) -> "Vocabulary":
        return self  # immutable; copies of a tagger share its tags and its lexicon

    def __len__(self) -> int:
        return len(self.tags)

    def __iter__(self) -> Iterator[str]:
        return iter(self.tags)

    def __contains__(self, tag: object) -> bool:
        return tag in self._rows

    def __getitem__(self, index: int) -> str:
        return self.tags[index]

    def index(self, tag: str) -> int:
        """The index of a tag, which is its output in the classifier.

        Args:
            tag: a tag of the vocabulary.

        Returns:
            Its index, from 0.

        Raises:
            InputError: the vocabulary has no such tag.
        """
        if tag not in self._rows:
            raise InputError(f"the vocabulary has no tag {tag!r}: use Phrase.parse to find the tags of a text")
        return self._rows[tag]

    def tag_of(self, word: str) -> str | None:
        """The tag of a word: the word itself, or else one of its base forms.

        Args:
            word: one normalised word, or several joined without a space.

        Returns:
            The tag, or None if the vocabulary has no form of the word.
        """
        return next((tag for form in chain((word,), base_forms(word)) if (tag := self._exact(form))), None)

    def meaning_of(self, word: str) -> Meaning | None:
        """How a word is read: as the tag that it is, as an entry of the lexicon, or by one of its base forms.

        Args:
            word: one normalised word, or several joined without a space.

        Returns:
            The meaning, or None if neither the tags nor the lexicon have a form of the word.
        """
        if tag := self._exact(word):
            return self._tagged(tag)
        if self.lexicon is None:
            return Meaning((tag,), "tag") if (tag := self.tag_of(word)) else None
        if meaning := self.lexicon.get(word):
            return meaning
        if tag := self.tag_of(word):
            return self._tagged(tag)
        return next((meaning for form in base_forms(word) if (meaning := self.lexicon.get(form))), None)

    def _tagged(self, tag: str) -> Meaning:
        """A tag as it is, or with its kinds if the lexicon has it."""
        general = None if self.lexicon is None else self.lexicon.meanings.get(tag)
        return general or Meaning((tag,), "tag")

    def match(self, parts: Sequence[WordPart], start: int) -> tuple[str | None, int]:
        """The longest tag of several words at the beginning of ``parts[start:]``.

        The last word may be inflected (``hot dogs``).

        Args:
            parts: the parts of a text's words.
            start: index of the first part to use.

        Returns:
            The tag and its number of parts, or (None, 0) if no such tag fits.
        """
        spelled = [part.normalized for part in parts[start : start + self._longest]]
        for count in range(len(spelled), 1, -1):
            if " ".join(spelled[: count - 1]) not in self._heads:
                continue
            for last in chain((spelled[count - 1],), base_forms(spelled[count - 1])):
                if tag := self._spaced.get(" ".join((*spelled[: count - 1], last))):
                    return tag, count
        return None, 0

    def tags_in(self, caption: str) -> set[str]:
        """The tags that occur in a caption: single words as in :func:`grounding.text.words.caption_tags`, and tags of
        several words.

        A word inside a tag with a space is not found separately: ``a hot dog`` does not give ``dog``. Only tags of
        several words are found in an inflected form.

        Args:
            caption: a sentence.

        Returns:
            The tags.
        """
        written, parts = words(caption), word_parts(caption)
        found, taken, start = set(), set(), 0
        while start < len(parts):
            tag, count = self.match(parts, start)
            if tag:
                found.add(tag)
                taken |= {part.word for part in parts[start : start + count] if " " in tag}
            start += max(count, 1)
        rest = " ".join(word for number, word in enumerate(written) if number not in taken)
        return found | {tag for word in caption_tags(rest) if (tag := self._exact(word))}

    def _exact(self, word: str) -> str | None:
        return word if word in self._rows else self._joined.get(word)

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {tag: index for index, tag in enumerate(self.tags)}

    @cached_property
    def _spaced(self) -> dict[str, str]:
        # reversed, so that of two spellings (t-shirt, t shirt) the one that comes first in the vocabulary is kept
        return {
            " ".join(part.normalized for part in parts): tag
            for tag in reversed(self.tags)
            if len(parts := word_parts(tag)) > 1
        }

    @cached_property
    def _heads(self) -> set[str]:
        """The tags of several words without their last word."""
        return {key.rpartition(" ")[0] for key in self._spaced}

    @cached_property
    def _joined(self) -> dict[str, str]:
        return {key.replace(" ", ""): tag for key, tag in self._spaced.items()}

    @cached_property
    def _longest(self) -> int:
        return max((key.count(" ") + 1 for key in self._spaced), default=1)


def _check(number: int, tag: str) -> None:
    if not isinstance(tag, str):
        raise InputError(f"tag {number} is {tag!r}, not text: put it in quotes")
    if tag != normalize(tag):
        raise InputError(f"tag {number} {tag!r} is not normalised: write {normalize(tag)!r}")
    if not words(tag):
        raise InputError(f"tag {number} {tag!r} has no word: remove it")
