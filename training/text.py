"""The text beside a photo, and the tags that it puts on it."""

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from grounding.text.vocabulary import Vocabulary
from grounding.text.words import caption_tags, normalize, word_parts, words

TAGS, CAPTIONS = ("tags", "keywords"), ("captions", "caption", "text")
MAX_TAG = 100  # characters: what is longer is a sentence or an attack
FIRST = 5  # the tags of a photo that count most (Sec. 4.3)
MOST_AGREE = 255  # that a byte holds


class Text(NamedTuple):
    """What stands beside a photo: tags in the order in which they were given, or captions."""

    tags: tuple[str, ...] = ()
    captions: tuple[str, ...] = ()

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> "Text":
        """The text in the fields of a JSON object or of a row; tags go before captions, what is no text is left out.

        Args:
            fields: ``tags`` or ``keywords``: a list, or one text that is cut at commas, semicolons and bars;
                ``captions``, ``caption`` or ``text``: a text or a list.
        """
        for names in (TAGS, CAPTIONS):
            for name in names:
                if found := _strings(fields.get(name), names is TAGS):
                    return cls(tags=found) if names is TAGS else cls(captions=found)
        return cls()

    def named(self) -> list[str]:
        """The distinct tags that the text names, whether known or not: normalised, the words of captions sorted."""
        if self.tags:
            # what is much longer than a tag is not worth a normalisation
            tags = dict.fromkeys(normalize(tag) for tag in self.tags if len(tag) <= 4 * MAX_TAG)
            return [tag for tag in tags if _is_tag(tag)]
        return sorted(tag for tag in set().union(*map(caption_tags, self.captions)) if _is_tag(tag))

    def known(self, vocabulary: Vocabulary) -> tuple[list[int], list[int]]:
        """The tags that a vocabulary has, and how many of the captions name each.

        Tags keep their order. Those of captions (``Vocabulary.tags_in``) are ordered by how
        many captions agree, most first, then by where they first stand; a tag of several words stands where its first
        does.

        Returns:
            The rows in the vocabulary, each once, and as many numbers 1..255, which are 1 for tags.
        """
        if self.tags:
            rows = [vocabulary.index(tag) for tag in self.named() if tag in vocabulary]
            return rows, [1] * len(rows)
        agree = Counter(tag for caption in self.captions for tag in vocabulary.tags_in(caption))
        places = _places(self.captions)
        tags = sorted(agree, key=lambda tag: (-agree[tag], _place(tag, places), tag))
        return [vocabulary.index(tag) for tag in tags], [min(agree[tag], MOST_AGREE) for tag in tags]


def _strings(value: Any, cut: bool) -> tuple[str, ...]:
    """The texts in a value, blank ones left out."""
    if isinstance(value, str):
        value = _json_list(value) or (re.split("[,;|]", value) if cut else [value])
    if not isinstance(value, list | tuple):
        return ()
    return tuple(text for text in value if isinstance(text, str) and text.strip())


def _json_list(text: str) -> list | None:
    """A cell of a table may hold a list as JSON."""
    if not text.startswith("["):
        return None
    try:
        return list(json.loads(text))
    except (ValueError, RecursionError):
        return None


def _is_tag(tag: str) -> bool:
    """Whether a normalised text can be a tag: it has a word, is not too long, and UTF-8 can write it."""
    return len(tag) <= MAX_TAG and not re.search("[\ud800-\udfff]", tag) and (tag.isalnum() or bool(words(tag)))


Place = tuple[int, int]


def _places(captions: Sequence[str]) -> dict[str, Place]:
    """Where each word, and each part of a hyphenated one, first stands: caption and word."""
    places: dict[str, Place] = {}
    for number, caption in enumerate(captions):
        for at, word in enumerate(map(normalize, words(caption))):
            for part in (word, *word.split("-")):
                places.setdefault(part, (number, at))
    return places


def _place(tag: str, places: Mapping[str, Place]) -> Place:
    """Of a tag as it is, else of it written as one word (tshirt), else of its first word."""
    for form in (tag, tag.replace(" ", "").replace("-", ""), word_parts(tag)[0].normalized):
        if form in places:
            return places[form]
    return max(places.values())
