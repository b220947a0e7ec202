"""The text of a photo: its tags, or captions from which its tags are taken."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from grounding.text.vocabulary import Vocabulary
from grounding.text.words import caption_tags, normalize, word_parts, words
from training.cells import column_names, parse_list, plain_text, split_tags

TAGS = ("tags", "keywords")
CAPTIONS = ("captions", "caption", "text", "comment", "sentences", "sentence", "raw")
MAX_TAG = 100  # characters; a longer text is not a tag
FIRST = 5  # tags of a photo that the paper trains on (Sec. 4.3)
MAX_AGREE = 255  # fits into a byte


class SampleText(NamedTuple):
    """The tags or the captions of a photo.

    Attributes:
        tags: tags in their given order; empty for captions.
        captions: captions; empty for tags.
    """

    tags: tuple[str, ...] = ()
    captions: tuple[str, ...] = ()

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> "SampleText":
        """Reads the text from the fields of a JSON object or of a row of a table.

        Tags are preferred to captions. Values that are not text are left out. HTML becomes plain text.

        Args:
            fields: a name in ``TAGS``: a list, or one text, which is split at commas, semicolons and bars; a name in
                ``CAPTIONS``: one text or a list. A text may be a list as JSON, pandas or NumPy writes it.

        Returns:
            The text; it is empty if no field has any.
        """
        fields = column_names(fields)
        for names in (TAGS, CAPTIONS):
            for name in names:
                if found := _strings(fields.get(name), names is TAGS):
                    return cls(tags=found) if names is TAGS else cls(captions=found)
        return cls()

    def all_tags(self) -> list[str]:
        """The distinct normalised tags of the text, in or out of a vocabulary; words of captions are sorted."""
        if self.tags:
            # a text that is much longer than a tag is not normalised, to save time
            tags = dict.fromkeys(normalize(tag) for tag in self.tags if len(tag) <= 4 * MAX_TAG)
            return [tag for tag in tags if _is_tag(tag)]
        return sorted(tag for tag in set().union(*map(caption_tags, self.captions)) if _is_tag(tag))

    def known_tags(self, vocabulary: Vocabulary) -> tuple[list[int], list[int]]:
        """The tags that are in a vocabulary, and the number of captions that contain each.

        Tags keep their order. Tags of captions (:meth:`grounding.text.vocabulary.Vocabulary.tags_in`) are sorted by the
        number of captions that contain them, largest first, then by their first place in the captions. The place of a
        tag of several words is that of its first word.

        Args:
            vocabulary: the tags to look for.

        Returns:
            The distinct indices in the vocabulary, and for each a number in 1..255, which is 1 for tags.
        """
        if self.tags:
            rows = [vocabulary.index(tag) for tag in self.all_tags() if tag in vocabulary]
            return rows, [1] * len(rows)
        agree = Counter(tag for caption in self.captions for tag in vocabulary.tags_in(caption))
        places = _places(self.captions)
        tags = sorted(agree, key=lambda tag: (-agree[tag], _place(tag, places), tag))
        return [vocabulary.index(tag) for tag in tags], [min(agree[tag], MAX_AGREE) for tag in tags]


def _strings(value: Any, split: bool) -> tuple[str, ...]:
    """The texts in a value that are not blank."""
    if isinstance(value, str):
        value = split_tags(value) if split else parse_list(value) or [plain_text(value)]
    elif isinstance(value, list | tuple):
        value = [plain_text(text) for text in value if isinstance(text, str)]
    else:
        return ()
    return tuple(text for text in value if text.strip())


def _is_tag(tag: str) -> bool:
    """Whether a normalised text can be a tag: it has a word, is not too long, and can be encoded as UTF-8."""
    return len(tag) <= MAX_TAG and not re.search("[\ud800-\udfff]", tag) and (tag.isalnum() or bool(words(tag)))


_Place = tuple[int, int]  # number of the caption, number of the word


def _places(captions: Sequence[str]) -> dict[str, _Place]:
    """The first place of each word, and of each part of a hyphenated word."""
    places: dict[str, _Place] = {}
    for number, caption in enumerate(captions):
        for at, word in enumerate(map(normalize, words(caption))):
            for part in (word, *word.split("-")):
                places.setdefault(part, (number, at))
    return places


def _place(tag: str, places: Mapping[str, _Place]) -> _Place:
    """The place of a tag as it is, or of the tag written as one word (tshirt), or of its first word."""
    for form in (tag, tag.replace(" ", "").replace("-", ""), word_parts(tag)[0].normalized):
        if form in places:
            return places[form]
    return max(places.values())
