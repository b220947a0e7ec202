"""The list of phrases that the evaluation program of Plummer et al. (ICCV 2015) reads, or an approximation of it.

Each line of the program's ``phraseList.txt`` names a phrase, says whether the Stanford Parser found exactly this noun
phrase in the caption, and gives the phrase's label of mAP (Phrase): its nouns, adjectives, prepositions and cardinal
numbers above one. The file was published for the split ``test`` only. Without it, our own noun phrases and word classes
(``grounding.text.chunks``) take the parser's place.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from eval.flickr30k import EntityImage, Flickr30kEntities
from eval.phrase_truth import Place
from grounding.text.chunks import noun_phrases, word_classes
from grounding.text.lines import read_lines
from proposals.errors import InputError

NO_WORD = "NO_VALID_POS"  # the program's label of a phrase without a word of these classes
# NN... are nouns, also LOC ("front"); within a noun phrase VB and VBZ are nouns, too ("a ride", "the stands")
LABEL_CLASSES = ("NN", "NNS", "LOC", "VB", "VBZ", "JJ", "PREP", "IN")
LONGEST = 1000  # digits of a number


class ListedPhrase(NamedTuple):
    """What the list says about a phrase.

    Attributes:
        parsed: whether a parser found it in the caption; otherwise it is a miss.
        label: the words that mAP (Phrase) groups it by.
    """

    parsed: bool
    label: str


def approximate_list(data: Flickr30kEntities, images: Sequence[EntityImage]) -> dict[Place, ListedPhrase]:
    """The list of a split without a published one, by our own noun phrases and word classes.

    Args:
        data: the data set, for the captions.
        images: the photos and their phrases.
    """
    listed: dict[Place, ListedPhrase] = {}
    for image in images:
        found = [set(noun_phrases(caption)) for caption in data.captions(image.id)]
        for entity in image.entities:
            label = phrase_label(entity.text)
            listed[entity.place(image.id)] = ListedPhrase(entity.text in found[entity.sentence], label)
    return listed


def phrase_label(text: str) -> str:
    """The nouns, adjectives, prepositions and cardinal numbers above one of a phrase, in lower case.

    >>> phrase_label("The two smiling men in one red car")
    'two men in red car'

    Args:
        text: the phrase.

    Returns:
        The words, joined by spaces; ``NO_WORD`` if there is none.
    """
    kept = [word for word, name in word_classes(text) if name in LABEL_CLASSES or (name == "CD" and _above_one(word))]
    return " ".join(kept) or NO_WORD


def _above_one(word: str) -> bool:
    # int() refuses thousands of digits
    return len(word) > LONGEST or int(word) > 1 if word.isdecimal() else word != "one"


def _is_number(word: str) -> bool:
    """Whether a word is a whole number from 1."""
    return word.isdecimal() and len(word) <= LONGEST and int(word) > 0


def read_phrase_list(path: str | Path) -> dict[Place, ListedPhrase]:
    """Reads a ``phraseList.txt``: on each line ``IMAGE SENTENCE PHRASE MATCH WORDS``, sentence and phrase from 1.

    Args:
        path: the file.

    Returns:
        Its phrases; sentence and phrase count from 0.

    Raises:
        InputError: the file cannot be read, a line is malformed, a phrase is listed twice, or there is no phrase.
    """
    listed: dict[Place, ListedPhrase] = {}
    for number, line in enumerate(read_lines(Path(path)), 1):
        words = line.split()
        if not words:
            continue
        if len(words) < 5 or not all(map(_is_number, words[1:3])) or words[3] not in ("0", "1"):
            raise InputError(f"{path}:{number}: a line must be IMAGE SENTENCE PHRASE MATCH WORDS, and MATCH 0 or 1")
        place: Place = (words[0], int(words[1]) - 1, int(words[2]) - 1)
        if place in listed:
            raise InputError(f"{path}:{number}: {' '.join(words[:3])} is listed twice: keep one")
        listed[place] = ListedPhrase(words[3] == "1", " ".join(words[4:]))
    if not listed:
        raise InputError(f"{path} lists no phrase: use the phraseList.txt of the evaluation program")
    return listed
