"""Derives a lexicon for a vocabulary from WordNet.

A tag that names a thing is read as itself, its plural, its other names and its kinds (bottle: also water bottle, wine
bottle), because captions name the kind. A very general one, such as "person", is read with its most frequent kinds.
Another word is read in this order: other spellings; tags that name one of its first meanings; the tags beneath its
meaning; a tag close above; other tags of the same kind.
"""

from collections import ChainMap, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from difflib import SequenceMatcher
from functools import cached_property

from grounding.text.lexicon import MOST_TAGS, Lexicon, Meaning, digest
from grounding.text.word_facts import COLOURS, NOT_KINDS, SEXES, VAGUE, english_words
from grounding.text.wordnet import Synset, WordNet
from grounding.text.words import FUNCTION_WORDS, base_forms, normalize

# kinds of meanings, the names of lexicographer files
THINGS = {f"noun.{kind}" for kind in ("animal", "artifact", "body", "food", "object", "person", "plant")}
VISIBLE = THINGS | {f"noun.{kind}" for kind in ("act", "event", "group", "location", "phenomenon", "substance")}
SENSES = 3  # of a word; later senses are rare
STEPS = 3  # from a word up to a tag
KIN_STEPS = 2  # from a word up to a kind whose other members are tags
MOST_BENEATH = 60  # a word with more tags beneath it is too general
MOST_KIN = 16
FEW = 3  # tags beneath a word, so few that they do not cover it
PERSONS = {"person", "people", "adult", "child", "man", "woman", "boy", "girl"}
RARE = 0.1  # share of the uses of a word, below which a meaning is left out
ROOTS = {"noun.animal": "animal", "noun.food": "food"}  # these are reached from any distance


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
        self._same, self._preferred = english_words()

    def lexicon(self) -> Lexicon:
        """Derives the meaning of every word that is not a tag, and of tags with kinds or other names.

        Returns:
            The lexicon.
        """
        found = {word: meaning for word in self._wordnet.qualities if (meaning := self._colour(word))}
        for word in self._wordnet.senses:
            if word not in found and self._wanted(word) and (meaning := self._noun(word)):
                found[word] = meaning
        found |= self._singulars()
        others: dict[str, Meaning] = {}
        for word, other in [*self._same.items()] * 2:  # twice, as another name may be another name itself
            if word not in self._tags and (meaning := self._as_other(word, other, ChainMap(others, found))):
                others[word] = meaning
        for word in list(found) + [tag for tag in self._tags if " " not in tag]:
            if (split := self._split(word)) and split not in self._tags:
                found[split] = found.pop(word) if word in found else Meaning((word,), "spelling")
        found |= others
        pairs = ((tag, other) for tag, other in self._same.items() if {tag, other} <= self._tags.keys())
        named = {tag: Meaning((tag, other), "spelling" if _alike(tag, other) else "synonym") for tag, other in pairs}
        kinds = self._with_others() | named | self._general()
        for word, (tags, how) in found.items():  # another name of a tag has the tag's kinds, too
            if len(tags) == 1 and how in ("spelling", "synonym") and tags[0] in kinds:
                found[word] = Meaning(kinds[tags[0]].tags, how)
        found |= kinds
        return Lexicon(digest(self._tags), dict(sorted(found.items())))

    def _as_other(self, word: str, other: str, found: Mapping[str, Meaning]) -> Meaning | None:
        """The meaning of a word's other name: a tag, or an entry."""
        for form in (other, *base_forms(other)):
            if tag := self._joined.get(_join(form)):
                return Meaning((tag,), "spelling" if _alike(tag, word) else "synonym")
            if meaning := found.get(form):
                return meaning
        return None

    def _wanted(self, word: str) -> bool:
        """Whether a word may be an entry: no tag, of at most three words, without digits."""
        parts = word.split()
        if word in self._tags or {parts[0], parts[-1]} & FUNCTION_WORDS or not all(map(str.isalpha, parts)):
            return False
        return len(parts) <= 3 and len(word) > 1

    def _is_noun(self, word: str) -> bool:
        """Whether a word is a noun about as often as something else."""
        nouns, others = self._wordnet.counts.get(word, (0, 0))
        return nouns + FEW >= others or word in self._preferred

    def _noun(self, word: str) -> Meaning | None:
        if tag := self._joined.get(_join(word)):
            return Meaning((tag,), "spelling") if tag not in word.split() else None
        noun = self._is_noun(word)
        inflected = any(form in self._tags for form in base_forms(word))
        senses = [sense for sense in self._visible(word) if noun or self._kind(sense) in THINGS]
        meaning = next(filter(None, (self._synonyms(word, sense) for sense in senses)), None)
        meaning = meaning or next(filter(None, map(self._narrower, senses)), None)
        if not meaning and senses and noun and not inflected:
            meaning = self._further(word, senses[0])
        first, *others = word.split()
        if meaning and others and first in self._wordnet.qualities and set(meaning.tags) <= set(others):
            return None  # "little girl" is read as two words
        return meaning

    def _synonyms(self, word: str, sense: str) -> Meaning | None:
        names = self._names.get(sense, [])
        spelled = [tag for tag in names if _alike(tag, word)]
        return Meaning(tuple(spelled or names)[:MOST_TAGS], "spelling" if spelled else "synonym") if names else None

    def _narrower(self, sense: str) -> Meaning | None:
        tags = self._members(sense, MOST_BENEATH)
        if not tags or (self._kind(sense) == "noun.person" and len(tags) == 1):
            return None
        return Meaning(self._with_kind(tags, sense), "narrower")

    def _visible(self, word: str) -> list[str]:
        """The first and frequent meanings of a word that a photo can show; an act or a place only as the first one.

        Of rare words the animal comes first.
        """
        if word in self._preferred:
            return [sense for sense in self._wordnet.senses[word] if sense == self._preferred[word]]
        known = [sense for sense in self._wordnet.senses[word] if not self._wordnet.synsets[sense].named][:SENSES]
        rare = RARE * self._wordnet.counts.get(word, (0, 0))[0]
        frequent = (sense for sense in known if self._wordnet.uses[word, sense] >= rare)
        allowed = ((sense, THINGS if sense != known[0] else VISIBLE) for sense in frequent)
        shown = [sense for sense, kinds in allowed if self._kind(sense) in kinds]
        if self._wordnet.uses[word, known[0]] < FEW if known else False:  # a turtle is an animal, not a sweater
            shown.sort(key=lambda sense: self._kind(sense) != "noun.animal")
        return shown

    @cached_property
    def _names(self) -> dict[str, list[str]]:
        """Meaning -> the tags of which it is the first meaning that a photo can show.

        A plant's tag also names the food. A tag that is a plural names the meaning of the singular.
        """
        names: dict[str, list[str]] = defaultdict(list)
        for tag in self._tags:
            word = tag.replace("-", " ")
            if word not in self._wordnet.senses and tag.endswith("s"):
                word = next((form for form in base_forms(tag) if form in self._wordnet.senses), word)
                if word in self._tags:
                    continue
            usual = word in self._wordnet.senses and self._is_noun(word) and tag not in VAGUE | COLOURS - {"orange"}
            senses = self._visible(word) if usual else []
            for number, sense in enumerate(senses):
                if not number or (self._kind(sense), self._kind(senses[0])) == ("noun.food", "noun.plant"):
                    names[sense].append(tag)
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

    def _with_kind(self, tags: tuple[str, ...], sense: str) -> tuple[str, ...]:
        """Adds the tag directly above to few tags beneath: a catamaran, a trimaran, or a boat for "sailboat"."""
        near = (up for up in self._wordnet.synsets[sense].above if len(self._beneath(up)) <= MOST_KIN)
        above = [tag for up in near for tag in self._names.get(up, ())]
        return tuple(dict.fromkeys((*tags, *above)))[:MOST_TAGS] if len(tags) < FEW else tags

    def _further(self, word: str, sense: str) -> Meaning | None:
        """The tags for a word that has none itself or beneath."""
        synset, several = self._wordnet.synsets[sense], " " in word
        chain = list(self._above(sense))
        if synset.kind != "noun.person" and (names := self._names.get(next(iter(chain), ""))):
            return Meaning(tuple(names)[:MOST_TAGS], "broader")
        if tag := self._head(word, synset, chain) or self._young(synset):
            return Meaning((tag,), "broader")
        if synset.kind == "noun.person":
            return None if several else self._person(synset, chain)
        for above in chain[1 : 1 if several else STEPS]:
            if names := self._names.get(above):
                return Meaning(tuple(names)[:MOST_TAGS], "broader")
        last = word.split()[-1]
        if several and any(last in self._wordnet.synsets[above].words for above in chain[:STEPS]):
            return self._noun(last) if last not in self._tags else None
        return None if several or synset.kind not in THINGS else self._kin(synset, chain)

    def _young(self, synset: Synset) -> str | None:
        """The tag that WordNet's definition of a young or male animal ends with: "young domestic cat"."""
        words = synset.gloss.lower().replace(";", " ;").replace(",", " ,").split()
        if synset.kind != "noun.animal" or not {"young", "male", "female"} & set(words[:4]):
            return None
        for word in words:
            tags = [word] if word in self._tags else self._names.get((self._wordnet.senses.get(word) or [""])[0], [])
            kinds = map(self._kind, self._visible(tags[0])) if tags and tags[0] in self._wordnet.senses else ()
            if tags and tags[0] not in VAGUE and "noun.animal" in kinds:
                return tags[0]
        return None

    def _kin(self, synset: Synset, chain: list[str]) -> Meaning | None:
        """Parts with a thing's name (toilet seat), or other members of its kind.

        For animals and food also the nearest tag above, at any distance.
        """
        root = None if "microorganism.n.01" in chain or _is_proper(synset) else ROOTS.get(synset.kind)
        far = [tag for above in chain if root for tag in self._names.get(above, ())][:1]
        last = tuple(far or ([root] if root in self._tags else []))
        parts = tuple(self._parts(synset))
        kin = (self._members(above, MOST_KIN) for above in chain[:KIN_STEPS])
        tags = parts or next((tags for level, tags in enumerate(kin) if len(tags) > level), ())
        if tags:
            return Meaning(tuple(dict.fromkeys((*tags[: MOST_TAGS - len(last)], *last))), "related")
        return Meaning(last, "broader") if last else None

    def _with_others(self) -> dict[str, Meaning]:
        """Tags that name a thing, each with its plural or singular, its other names and its kinds, at most 16.

        A person is not read as the kinds of person, and hair not as the kinds of hair, such as a beard.
        """
        found = {}
        for sense, names in self._names.items():
            if self._kind(sense) not in THINGS - {"noun.person", "noun.body"}:
                continue
            kinds, how = self._kinds(sense)
            for tag in names:
                forms = [form for name in (tag, *names) for form in (name, *self._plurals.get(name, ()))]
                family = tuple(dict.fromkeys((*forms, *kinds)))
                for form in (tag, *self._plurals.get(tag, ())) if len(family) > 1 else ():
                    tags = tuple(dict.fromkeys((form, *family)))[:MOST_TAGS]
                    found[form] = Meaning(tags, how)
        return found

    def _kinds(self, sense: str) -> tuple[list[str], str]:
        """The kinds of a thing; without kinds, the parts that have its name (toilet seat); for a kitten, the cat."""
        synset = self._wordnet.synsets[sense]
        kinds = [kind for kind in self._members(sense, MOST_KIN) if kind not in NOT_KINDS] or self._parts(synset)
        if kinds:
            return kinds, "narrower"
        adult = self._young(synset) if "young" in synset.gloss.split()[:3] else None
        return ([adult], "broader") if adult else ([], "synonym")

    @cached_property
    def _plurals(self) -> dict[str, list[str]]:
        """Tag -> the tag that is its plural; not artifacts of their own, such as "glasses" and "trunks"."""
        plurals: dict[str, list[str]] = defaultdict(list)
        for tag in self._tags:
            one = next(base_forms(tag), tag)
            own = self._visible(tag)[:1] if tag in self._wordnet.senses else ()
            if one != tag and one in self._tags and tag.endswith("s") and "noun.artifact" not in map(self._kind, own):
                plurals[one].append(tag)
        return plurals

    def _parts(self, synset: Synset) -> list[str]:
        """The tags that name a part of a thing and begin with its name, such as "toilet seat"."""
        names = {name.lower() for name in synset.words}
        return [tag for part in synset.parts for tag in self._names.get(part, ()) if tag.split()[0] in names]

    def _general(self) -> dict[str, Meaning]:
        """Tags that name one of WordNet's most general meanings, each with its most frequent kinds of things."""
        general = [(tag, sense) for tag in self._tags.keys() - VAGUE for sense in self._names_of(tag)]
        found = {}
        for tag, sense in ((tag, sense) for tag, sense in general if self._kind(sense) == "noun.Tops"):
            kinds = {kind for kind in self._all_beneath(sense) if set(map(self._kind, self._names_of(kind))) & THINGS}
            plurals = {other for other in self._tags if next(base_forms(other), None) == tag}
            frequent = sorted((kinds | plurals) - VAGUE - {tag}, key=self._tags.__getitem__)[: MOST_TAGS - 1]
            if kinds:
                found[tag] = Meaning((tag, *frequent), "narrower")
        return found

    def _all_beneath(self, sense: str) -> set[str]:
        """The tags beneath a meaning, and those beneath them; not names that are rare, such as "skate" for a fish."""
        tags: set[str] = set()
        waiting, seen = [sense], {sense}
        while waiting:
            below = [one for one in self._wordnet.synsets[waiting.pop()].beneath if one in self._wordnet.synsets]
            waiting += [one for one in below if one not in seen]
            seen.update(below)
            named = ((tag, one) for one in below for tag in self._names.get(one, ()))
            tags.update(tag for tag, one in named if self._wordnet.uses.get((tag, one), 0) >= FEW)
        return tags

    def _head(self, word: str, synset: Synset, chain: list[str]) -> str | None:
        """The tag in which a compound ends, if it names a kind of it: toothbrush -> brush, fireman -> man."""
        kinds = {name.lower() for above in chain[:STEPS] for name in self._wordnet.synsets[above].words}
        tails = (word[start:].strip() for start in range(3, len(word) - 2))
        heads = (tag for tail in tails if (tag := self._joined.get(tail)) and tag not in VAGUE)
        if synset.kind == "noun.person":
            persons = (tag for tag in heads if "noun.person" in map(self._kind, self._names_of(tag)))
            return next(persons, None)
        return next((tag for tag in heads if tag in kinds), None)

    def _names_of(self, tag: str) -> list[str]:
        return self._wordnet.senses.get(tag, [])[:1]

    def _kind(self, sense: str) -> str:
        return self._wordnet.synsets[sense].kind

    def _person(self, synset: Synset, chain: list[str]) -> Meaning | None:
        """A person: a tag directly above, or else by the sex that WordNet tells, or else person, man and woman."""
        for above in chain[:1]:
            if (names := self._names.get(above)) and not set(names) & PERSONS:
                return Meaning(tuple(names)[:MOST_TAGS], "broader")
        said = [word.strip(";,()") for word in synset.gloss.lower().split()[:4]]
        for above in chain[:STEPS]:
            said += [name.lower().split("_")[0] for name in self._wordnet.synsets[above].words]
        for mark, sexed in SEXES.items():
            if mark in said and (tags := tuple(tag for tag in sexed if tag in self._tags)):
                return Meaning(tags, "broader")
        tags = () if _is_proper(synset) else tuple(tag for tag in ("person", "man", "woman") if tag in self._tags)
        return Meaning(tags, "broader") if tags else None

    def _members(self, sense: str, most: int) -> tuple[str, ...]:
        """The nearest 8 tags beneath a meaning; none if there are more than ``most``."""
        tags = self._beneath(sense)
        nearest = sorted(tags, key=lambda tag: (tags[tag], self._tags[tag]))
        return tuple(nearest[:MOST_TAGS]) if len(tags) <= most else ()

    def _above(self, sense: str) -> Iterator[str]:
        seen = {sense}
        level = [sense]
        while level:
            level = [up for one in level for up in self._wordnet.synsets[one].above if up in self._wordnet.synsets]
            level = [up for up in dict.fromkeys(level) if up not in seen]
            seen.update(level)
            yield from level

    def _colour(self, word: str) -> Meaning | None:
        """An adjective that is another spelling of a tag, or another name of a colour."""
        nouns, others = self._wordnet.counts.get(word, (0, 0))
        if (
            word in self._tags
            or word in FUNCTION_WORDS
            or " " in word
            or word in self._preferred
            or nouns > others + FEW
        ):
            return None
        for offset in self._wordnet.qualities[word][:1]:
            names = [normalize(name) for name in self._wordnet.synsets[offset].words]
            for tag in (name for name in names if name in self._tags):
                differing = sum(a != b for a, b in zip(tag, word, strict=False)) + abs(len(tag) - len(word))
                if (tag in COLOURS and differing == 1) or tag in {word.replace("our", "or"), word.replace("ll", "l")}:
                    return Meaning((tag,), "spelling")
                if tag in COLOURS:
                    return Meaning((tag,), "synonym")
        return None

    def _split(self, word: str) -> str | None:
        """A compound as two words, if both are nouns and the first is no adjective: "wineglass" -> "wine glass"."""
        if " " in word or not word.isalpha():
            return None
        halves = [(word[:i], word[i:]) for i in range(3, len(word) - 2)]
        nouns = {half for pair in halves for half in pair if half in self._wordnet.senses}
        known = {half for half in nouns if half in self._tags or self._wordnet.counts.get(half, (0, 0))[0] > 1}
        pairs = (f"{a} {b}" for a, b in halves if {a, b} <= known and a not in self._wordnet.qualities)
        return next((pair for pair in pairs if not set(pair.split()) & FUNCTION_WORDS), None)

    def _singulars(self) -> dict[str, Meaning]:
        """Nouns of which only the plural is a tag: "shoe" -> "shoes", "tooth" -> "teeth"."""
        plurals = [(tag, next(base_forms(tag), tag)) for tag in self._tags if tag.isalpha()]
        plurals = [(tag, one) for tag, one in plurals if tag.endswith("s") or not tag.endswith(("ing", "ed", one))]
        known = [(tag, one) for tag, one in plurals if one not in self._tags and one in self._wordnet.senses]
        return {one: Meaning((tag,), "spelling") for tag, one in known if self._is_noun(one) and self._visible(one)}


def _is_proper(synset: Synset) -> bool:
    """Whether a meaning is written with a capital letter, such as the Latin name of a genus."""
    return synset.words[0][:1].isupper()


def _join(word: str) -> str:
    return word.replace(" ", "").replace("-", "")


def _alike(tag: str, word: str) -> bool:
    """Whether two names of one thing are spellings of one word: "tyre", "tire"."""
    short = (abs(len(tag) - len(word)) <= 2 and tag[0] == word[0] and tag[-1] == word[-1]) or tag + "e" == word
    return short and SequenceMatcher(None, tag, word).ratio() >= 0.75
