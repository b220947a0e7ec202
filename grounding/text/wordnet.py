"""WordNet 3.x, read with nltk's reader."""

from contextlib import closing
from pathlib import Path
from shutil import copyfile
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple
from warnings import catch_warnings, simplefilter

import nltk
from nltk.corpus.reader.wordnet import WordNetCorpusReader, WordNetError

from grounding.text.words import normalize
from proposals.errors import InputError

FILES = [f"{kind}.{part}" for kind in ("index", "data") for part in ("noun", "adj", "verb", "adv")]
NEEDED = ("data.noun", "index.noun", "data.adj", "index.adj")
# lexnames(5WN); Debian's package does not have this file
LEXNAMES = {
    "adj": "all pert",
    "adv": "all",
    "noun": "Tops act animal artifact attribute body cognition communication event feeling food group location motive "
    "object person phenomenon plant possession process quantity relation shape state substance time",
    "verb": "body change cognition communication competition consumption contact creation emotion motion perception "
    "possession social stative weather",
    "adj.": "ppl",
}


class Synset(NamedTuple):
    """One meaning in WordNet.

    Attributes:
        words: its words, as in the database.
        kind: the name of its lexicographer file, such as "noun.animal".
        above: the names of its hypernyms.
        beneath: the names of its hyponyms.
        parts: the names of its parts.
        named: whether it is one individual, such as a city.
        gloss: its definition.
    """

    words: tuple[str, ...]
    kind: str
    above: tuple[str, ...]
    beneath: tuple[str, ...]
    parts: tuple[str, ...]
    named: bool
    gloss: str


class _Reader(WordNetCorpusReader):  # type: ignore[misc]
    def __init__(self, root: str) -> None:
        self._data_file_map: dict[str, Any] = {}
        try:
            super().__init__(root, None)
        except BaseException:
            self.close()
            raise

    def map_wn(self, version: str = "wordnet") -> None:
        """Other versions of WordNet are not used. nltk would look for their files."""

    def close(self) -> None:
        """Closes the files that the reader holds open, for which nltk has no method."""
        for file in self._data_file_map.values():
            file.close()


class WordNet:
    """The nouns and adjectives of a WordNet folder.

    Args:
        folder: has ``data.noun``, ``index.noun``, ``data.adj`` and ``index.adj``; with ``cntlist.rev`` words that are
            mostly verbs or adjectives are known, too.

    Attributes:
        synsets: meanings, by the name that nltk gives them, such as "dog.n.01".
        senses: word -> the names of its noun meanings, the most frequent first.
        qualities: word -> the names of its adjective meanings.
        licence: the notice of WordNet's licence, from the head of ``data.noun``.
        counts: word -> occurrences in WordNet's corpora as a noun, and as something else.
        uses: (word, name of a meaning) -> its occurrences in WordNet's corpora.

    Raises:
        InputError: a file is missing or not WordNet's.
    """

    def __init__(self, folder: str | Path) -> None:
        folder = Path(folder)
        if missing := next((name for name in NEEDED if not (folder / name).is_file()), None):
            raise InputError(
                f"{folder} has no WordNet ({missing} is missing): install it with 'apt-get install wordnet-base', or "
                "download WordNet 3.0 from wordnet.princeton.edu, and set step.wordnet=FOLDER"
            )
        with TemporaryDirectory() as copy, catch_warnings():
            simplefilter("ignore")  # nltk says that it has no translations
            nltk.data.path.append(copy)  # nltk reads from no other folder
            try:
                _copy(folder, Path(copy))
                with closing(_Reader(copy)) as reader:
                    self._read(reader)
            except (WordNetError, ValueError, LookupError, AssertionError, AttributeError, TypeError, OSError) as error:
                raise InputError(f"{folder} has no WordNet 3.x that can be read ({error}): install it again") from error
            finally:
                nltk.data.path.remove(copy)

    def _read(self, reader: WordNetCorpusReader) -> None:
        self.synsets: dict[str, Synset] = {}
        self.uses: dict[tuple[str, str], int] = {}
        self.licence, (self._keys, self.counts) = _licence(reader), _counts(reader)
        self.senses, self.qualities = (self._index(reader, part) for part in "na")

    def _index(self, reader: WordNetCorpusReader, part: str) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for name in sorted(reader.all_lemma_names(part)):
            # nltk also returns the meanings of base forms
            all_synsets = reader.synsets(name, part, check_exceptions=False)
            own = [synset for synset in all_synsets if name in map(str.lower, synset.lemma_names())]
            self.synsets |= {synset.name(): _plain(synset) for synset in own if synset.name() not in self.synsets}
            word = normalize(name.replace("_", " ").replace("-", " "))
            for synset in own:
                keys = (lemma.key().lower() for lemma in synset.lemmas() if lemma.name().lower() == name)
                self.uses[word, synset.name()] = sum(self._keys.get(key, 0) for key in keys)
            found[word] = list(dict.fromkeys((*found.get(word, ()), *(synset.name() for synset in own))))
        return found


def _plain(synset: Any) -> Synset:
    above, beneath, parts = (
        tuple(sorted(other.name() for other in others))  # nltk keeps them in sets
        for others in (synset.hypernyms(), synset.hyponyms(), synset.part_meronyms())
    )
    named = bool(synset.instance_hypernyms())
    return Synset(tuple(synset.lemma_names()), synset.lexname(), above, beneath, parts, named, synset.definition())


def _copy(folder: Path, copy: Path) -> None:
    """Copies the files of WordNet, and adds those that nltk's reader needs and the folder lacks."""
    for name in (*FILES, *(f"{part}.exc" for part in ("noun", "adj", "verb", "adv")), "cntlist.rev"):
        if (folder / name).is_file():
            copyfile(folder / name, copy / name)
        else:
            (copy / name).touch()
    names = [f"{part.rstrip('.')}.{kind}" for part, kinds in LEXNAMES.items() for kind in kinds.split()]
    (copy / "lexnames").write_text("".join(f"{i:02}\t{name}\t0\n" for i, name in enumerate(names)), "utf-8")


def _licence(reader: WordNetCorpusReader) -> str:
    with reader.open("data.noun") as file:
        lines = (line.split(maxsplit=1) for _, line in zip(range(40), file, strict=False) if line.startswith("  "))
        return " ".join(words[1].strip() for words in lines if len(words) > 1)


def _counts(reader: WordNetCorpusReader) -> tuple[dict[str, int], dict[str, tuple[int, int]]]:
    """Occurrences in WordNet's corpora: of each sense key, and of each word as a noun and as something else."""
    keys: dict[str, int] = {}
    counts: dict[str, tuple[int, int]] = {}
    with reader.open("cntlist.rev") as file:
        for line in file:
            key, _, count = line.split()
            word, _, rest = key.replace("_", " ").partition("%")
            nouns, others = counts.get(word, (0, 0))
            noun = int(count) * rest.startswith("1")
            keys[key], counts[word] = int(count), (nouns + noun, others + int(count) - noun)
    return keys, counts
