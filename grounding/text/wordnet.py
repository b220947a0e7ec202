"""Derives a lexicon for a vocabulary from the database of WordNet 3.x, the text files that wndb(5WN) describes."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

from grounding.text.lexicon import MOST_TAGS, Lexicon, Meaning, digest
from grounding.text.lines import read_lines
from grounding.text.words import FUNCTION_WORDS, base_forms, normalize
from proposals.errors import InputError

# numbers of lexicographer files, lexnames(5WN)
ACT, ANIMAL, ARTIFACT, BODY, EVENT, FOOD, GROUP, LOCATION, OBJECT = 4, 5, 6, 8, 11, 13, 14, 15, 17
PERSON, PHENOMENON, PLANT, SUBSTANCE = 18, 19, 20, 27
THINGS = {ANIMAL, ARTIFACT, BODY, FOOD, OBJECT, PERSON, PLANT}
VISIBLE = THINGS | {ACT, EVENT, GROUP, LOCATION, PHENOMENON, SUBSTANCE}
SENSES = 3  # of a word; later senses are rare
STEPS = 3  # from a word up to a tag
KIN_STEPS = 1  # from a word up to a kind whose other members are tags
MOST_BENEATH = 60  # a word with more tags beneath it is too general
MOST_KIN = 8
ROOTS = {ANIMAL: "animal", PERSON: "person"}  # these are reached from any distance
COLOURS = {
    *("black", "white", "grey", "gray", "red", "green", "blue", "yellow", "orange"),
    *("brown", "pink", "purple", "golden", "silver", "beige", "tan", "teal"),
}
VAGUE = {
    *("thing", "object", "something", "item", "piece", "structure", "equipment", "device"),
    *("part", "group", "unit", "whole", "body"),
}


class Synset(NamedTuple):
    """One meaning in WordNet.

    Attributes:
        words: its words, as in the database.
        file: number of its lexicographer file.
        above: hypernyms, by their offsets.
        beneath: hyponyms, by their offsets.
        named: whether it is one individual, such as a city.
    """

    words: tuple[str, ...]
    file: int
    above: tuple[str, ...]
    beneath: tuple[str, ...]
    named: bool


class WordNet:
    """The nouns and adjectives of a WordNet folder.

    Args:
        folder: has ``data.noun``, ``index.noun``, ``data.adj``, ``index.adj`` and ``cntlist.rev``.

    Attributes:
        synsets: nouns, by offset.
        adjectives: adjectives, by offset.
        senses: word -> offsets of its noun meanings, the most frequent first.
        qualities: word -> offsets of its adjective meanings.
        licence: the notice of WordNet's licence, from the head of ``data.noun``.
        counts: word -> occurrences in WordNet's corpora as a noun, and as something else.

    Raises:
        InputError: a file is missing or not WordNet's.
    """

    def __init__(self, folder: str | Path) -> None:
        folder = Path(folder)
        if not (folder / "data.noun").is_file():
            raise InputError(
                f"{folder} has no WordNet (data.noun is missing): install it with 'apt-get install wordnet-base', or "
                "download WordNet 3.0 from wordnet.princeton.edu, and set step.wordnet=FOLDER"
            )
        self.synsets, self.senses = _synsets(folder / "data.noun"), _index(folder / "index.noun")
        self.adjectives, self.qualities = _synsets(folder / "data.adj"), _index(folder / "index.adj")
        self.licence = _licence(folder / "data.noun")
        self.counts = _counts(folder / "cntlist.rev")


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """(number of the line, its fields before the gloss) for each line without the licence's indent."""
    for number, line in enumerate(read_lines(path), 1):
        if line and not line.startswith("  "):
            yield number, line.partition(" | ")[0].split()


def _licence(path: Path) -> str:
    lines = (line.split(maxsplit=1) for line in read_lines(path)[:40] if line.startswith("  "))
    return " ".join(words[1].strip() for words in lines if len(words) > 1)


def _synsets(path: Path) -> dict[str, Synset]:
    synsets = {}
    for number, fields in _rows(path):
        try:
            size = int(fields[3], 16)
            pointers = fields[5 + 2 * size : 5 + 2 * size + 4 * int(fields[4 + 2 * size])]
            links = list(zip(pointers[::4], pointers[1::4], strict=True))
            above = tuple(to for kind, to in links if kind == "@")
            beneath = tuple(to for kind, to in links if kind == "~")
            names = tuple(word.split("(")[0] for word in fields[4 : 4 + 2 * size : 2])
            named = any(kind == "@i" for kind, _ in links)
            synsets[fields[0]] = Synset(names, int(fields[1]), above, beneath, named)
        except (ValueError, IndexError) as error:
            raise InputError(f"{path}:{number} is not a line of WordNet 3.x: install it again") from error
    return synsets


def _index(path: Path) -> dict[str, list[str]]:
    index = {}
    for number, fields in _rows(path):
        try:
            index[normalize(fields[0].replace("_", " ").replace("-", " "))] = fields[-int(fields[2]) :]
        except (ValueError, IndexError) as error:
            raise InputError(f"{path}:{number} is not a line of WordNet 3.x: install it again") from error
    return index


def _counts(path: Path) -> dict[str, tuple[int, int]]:
    counts: dict[str, tuple[int, int]] = defaultdict(lambda: (0, 0))
    for _, (key, *_, count) in _rows(path) if path.is_file() else ():
        word, _, rest = key.partition("%")
        nouns, others = counts[word.replace("_", " ")]
        noun = int(count) * rest.startswith("1")
        counts[word.replace("_", " ")] = nouns + noun, others + int(count) - noun
    return counts


class Derivation:
    """Reads the words of WordNet as tags of a vocabulary.

    Args:
        wordnet: the database.
        tags: the tags of the vocabulary.
    """

    def __init__(self, wordnet: WordNet, tags: Sequence[str]) -> None:
        self._wordnet, self._tags = wordnet, dict(zip(tags, range(len(tags)), strict=True))
        self._joined = {_join(tag): tag for tag in reversed(tags)}
        self._beneath_of: dict[str, dict[str, int]] = {}

    def lexicon(self) -> Lexicon:
        """Derives the meaning of every word that is not a tag.

        Returns:
            The lexicon.
        """
        found = {word: meaning for word in self._wordnet.qualities if (meaning := self._colour(word))}
        for word in self._wordnet.senses:
            if word not in found and self._wanted(word) and (meaning := self._noun(word)):
                found[word] = meaning
        for word in list(found) + [tag for tag in self._tags if " " not in tag]:
            if (split := self._split(word)) and split not in self._tags:
                found[split] = found.pop(word) if word in found else Meaning((word,), "spelling")
        found |= self._singulars() | self._additions()
        return Lexicon(digest(self._tags), dict(sorted(found.items())))

    def _wanted(self, word: str) -> bool:
        """Whether a word may be an entry: no tag, of at most three words, without digits."""
        parts = word.split()
        if word in self._tags or {parts[0], parts[-1]} & FUNCTION_WORDS or not all(map(str.isalpha, parts)):
            return False
        return len(parts) <= 3 and len(word) > 1

    def _is_noun(self, word: str) -> bool:
        """Whether a word is a noun at least as often as something else."""
        nouns, others = self._wordnet.counts.get(word, (0, 0))
        return nouns >= others

    def _noun(self, word: str) -> Meaning | None:
        if tag := self._joined.get(_join(word)):
            return Meaning((tag,), "spelling") if tag not in word.split() else None
        noun = self._is_noun(word)
        senses = [sense for sense in self._visible(word) if noun or self._wordnet.synsets[sense].file in THINGS]
        for sense in senses:
            if names := self._names.get(sense):
                spelled = [tag for tag in names if _alike(tag, word)]
                return Meaning(tuple(spelled or names)[:MOST_TAGS], "spelling" if spelled else "synonym")
        for sense in senses:
            if tags := self._members(sense, MOST_BENEATH):
                return Meaning(tags, "narrower")
        inflected = any(form in self._tags for form in base_forms(word))
        return self._broader(word, senses[0]) if senses and noun and not inflected else None

    def _visible(self, word: str) -> list[str]:
        """The first senses of a word that a photo can show; an act, a place or a group only as the first one."""
        first = self._wordnet.senses[word][:SENSES]
        known = [(sense, self._wordnet.synsets[sense]) for sense in first if sense in self._wordnet.synsets]
        shown = ((sense, THINGS if number else VISIBLE, synset) for number, (sense, synset) in enumerate(known))
        return [sense for sense, allowed, synset in shown if synset.file in allowed and not synset.named]

    @cached_property
    def _names(self) -> dict[str, list[str]]:
        """Meaning -> the tags that name it. A tag names only its first meaning that a photo can show."""
        names: dict[str, list[str]] = defaultdict(list)
        for tag in self._tags:
            word = tag.replace("-", " ")
            usual = self._is_noun(word) and tag not in VAGUE and tag not in COLOURS - {"orange"}
            if usual and word in self._wordnet.senses and (senses := self._visible(word)):
                names[senses[0]].append(tag)
        return names

    def _beneath(self, sense: str) -> dict[str, int]:
        """The tags beneath a meaning, each with its distance."""
        if sense not in self._beneath_of:
            found: dict[str, int] = {}
            self._beneath_of[sense] = found
            for below in self._wordnet.synsets[sense].beneath if sense in self._wordnet.synsets else ():
                tags = dict.fromkeys(self._names[below], 0) if below in self._names else self._beneath(below)
                for tag, steps in tags.items():
                    found[tag] = min(steps + 1, found.get(tag, 99))
        return self._beneath_of[sense]

    def _broader(self, word: str, sense: str) -> Meaning | None:
        """The nearest tag above a meaning, or the other members of its kind."""
        file, several = self._wordnet.synsets[sense].file, " " in word
        chain = list(self._above(sense))
        common = self._wordnet.counts.get(word, (0, 0))[0] > 0
        near = 1 if several else len(chain) if file in ROOTS and common else STEPS
        for above in chain[:near]:
            if names := self._names.get(above):
                return Meaning(tuple(names)[:MOST_TAGS], "broader")
        root = ROOTS.get(file)
        if root in self._tags and common and not several:
            return Meaning((root,), "broader")
        for above in () if several or file not in THINGS else chain[:KIN_STEPS]:
            if tags := self._members(above, MOST_KIN):
                return Meaning(tags, "broader")
        return None

    def _members(self, sense: str, most: int) -> tuple[str, ...]:
        """The nearest 8 tags beneath a meaning; none if there are more than ``most``."""
        tags = self._beneath(sense)
        nearest = sorted(tags, key=lambda tag: (tags[tag], self._tags[tag]))
        return tuple(nearest[:MOST_TAGS]) if len(tags) <= most else ()

    def _above(self, sense: str) -> Iterator[str]:
        seen = {sense}
        level = [sense]
        while level:
            level = [up for one in level if one in self._wordnet.synsets for up in self._wordnet.synsets[one].above]
            level = [up for up in dict.fromkeys(level) if up not in seen]
            seen.update(level)
            yield from level

    def _colour(self, word: str) -> Meaning | None:
        """An adjective that is another spelling of a tag, or another name of a colour."""
        if word in self._tags or word in FUNCTION_WORDS or " " in word:
            return None
        for offset in self._wordnet.qualities[word][:1]:
            names = [normalize(name) for name in self._wordnet.adjectives[offset].words]
            for tag in (name for name in names if name in self._tags):
                if _alike(tag, word):
                    return Meaning((tag,), "spelling")
                if tag in COLOURS:
                    return Meaning((tag,), "synonym")
        return None

    def _split(self, word: str) -> str | None:
        """A compound as two words, if both are nouns and the first is no adjective: "wineglass" -> "wine glass"."""
        if " " in word or not word.isalpha():
            return None
        senses, qualities = self._wordnet.senses, self._wordnet.qualities
        halves = ((word[:i], word[i:]) for i in range(3, len(word) - 2))
        pairs = (f"{a} {b}" for a, b in halves if a in senses and b in senses and a not in qualities)
        return next((pair for pair in pairs if not set(pair.split()) & FUNCTION_WORDS), None)

    def _singulars(self) -> dict[str, Meaning]:
        """Nouns of which only the plural is a tag: "shoe" -> "shoes"."""
        plurals = [(tag, next(base_forms(tag), tag)) for tag in self._tags if tag.endswith("s") and tag.isalpha()]
        known = [(tag, one) for tag, one in plurals if one not in self._tags and one in self._wordnet.senses]
        return {one: Meaning((tag,), "spelling") for tag, one in known if self._is_noun(one) and self._visible(one)}

    def _additions(self) -> dict[str, Meaning]:
        """Words that are younger than WordNet, names of data sets, and corrections; see ``lexicon_words.txt``."""
        added: dict[str, Meaning] = {}
        for line in (files("grounding.text") / "lexicon_words.txt").read_text("utf-8").splitlines():
            if line.strip() and not line.startswith("#"):
                word, _, targets = line.partition("=")
                kept = [target.strip() for target in targets.split(",") if target.strip() in self._tags]
                if kept and word.strip() not in self._tags:
                    added[word.strip()] = Meaning(tuple(kept[:MOST_TAGS]), "synonym")
        return added


def _join(word: str) -> str:
    return word.replace(" ", "").replace("-", "")


def _alike(tag: str, word: str) -> bool:
    """Whether two names of one thing are spellings of one word: "tyre", "tire"."""
    short = (abs(len(tag) - len(word)) <= 2 and tag[0] == word[0] and tag[-1] == word[-1]) or tag + "e" == word
    return short and SequenceMatcher(None, tag, word).ratio() >= 0.75
