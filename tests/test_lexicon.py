"""Words that are not tags: how each is read, the file beside a tagger, and the derivation from a small WordNet."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grounding.steps.lexicon import write_lexicon
from grounding.tagger.tagger import load_vocabulary
from grounding.text.lexicon import FORMAT, Lexicon, Meaning, digest, encode, lexicon_path, load_lexicon
from grounding.text.phrases import Phrase
from grounding.text.vocabulary import Vocabulary
from proposals.errors import InputError

TABLE = Path(__file__).with_name("readings.txt").read_text("utf-8").splitlines()
PAIRS = [line.split(" = ", 1) for line in TABLE if not line.startswith("#")]
TAGS = ("dog", "glass", "hotdog", "gray", "cat", "african elephant", "indian elephant", "red")
MEANINGS = {
    "elephant": Meaning(("indian elephant", "african elephant"), "narrower"),
    "grey": Meaning(("gray",), "spelling"),
    "hot dog": Meaning(("hotdog",), "spelling"),
    "wine glass": Meaning(("glass",), "broader"),
    "kitten": Meaning(("cat",), "broader"),
}


@pytest.fixture(scope="module")
def known() -> Vocabulary:
    return load_vocabulary()


def small() -> Vocabulary:
    return Vocabulary(TAGS, Lexicon(digest(TAGS), MEANINGS))


def read(phrase: Phrase) -> str:
    text = " ; ".join(", ".join(reading.tags) for reading in phrase.readings)
    return f"{text} ! {','.join(phrase.skipped)}" if phrase.skipped else text


@pytest.mark.parametrize(("text", "expected"), PAIRS)
def test_words_are_read_as_in_the_table(text, expected, known):
    assert read(Phrase.parse(text, known)).strip() == expected.strip()


def test_the_table_has_enough_words():
    assert len({text for text, _ in PAIRS}) >= 300


@pytest.mark.parametrize(
    ("text", "read_as"),
    [
        ("an elephant", "elephant -> indian elephant, african elephant"),
        ("a Hot-Dog", "Hot-Dog -> hotdog"),
        ("hotdogs", ""),
        ("grey kittens", "grey -> gray; kittens -> cat"),
        ("two wineglasses", "wineglasses -> glass"),
        ("red wine glasses", "wine glasses -> glass"),
        ("a dog", ""),
    ],
)
def test_the_answer_says_how_words_are_read(text, read_as):
    assert Phrase.parse(text, small()).read_as == read_as


@given(
    st.lists(st.sampled_from([*TAGS, *MEANINGS, "zorg", "of", "Elephants", "hot-dog", "!"]), min_size=1).map(" ".join)
)
def test_readings_are_distributions_over_tags(text):
    phrase = Phrase.parse(text, small())
    for reading in phrase.readings:
        assert sum(reading.weights) == pytest.approx(1) and len(reading.weights) == len(reading.tags) <= 8
        assert set(reading.tags) <= set(TAGS)
    assert phrase.tags == tuple(dict.fromkeys(tag for reading in phrase.readings for tag in reading.tags))
    assert phrase.tags or phrase.skipped


def test_without_a_lexicon_only_tags_are_known():
    phrase = Phrase.parse("a grey elephant and dogs", Vocabulary(TAGS))
    assert (phrase.tags, phrase.skipped, phrase.read_as) == (("dog",), ("grey", "elephant"), "")


def test_the_file_gives_the_lexicon_back(tmp_path):
    path = tmp_path / "tagger.lexicon.json"
    path.write_text(encode(small().lexicon, "notice"), "utf-8")
    assert load_lexicon(path).meanings == MEANINGS
    assert encode(load_lexicon(path), "notice") == path.read_text("utf-8")


def test_a_lexicon_of_other_tags_is_refused():
    with pytest.raises(InputError, match="made for other tags: make it again with 'grounding step=lexicon"):
        Vocabulary(("dog",), small().lexicon)
    with pytest.raises(InputError, match="reads words as 'zorg', which is not a tag"):
        Vocabulary(TAGS, Lexicon(digest(TAGS), {"cat-like": Meaning(("zorg",), "synonym")}))


GOOD = {"format": FORMAT, "vocabulary": digest(TAGS), "licence": ""}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\xff", "not UTF-8"),
        (b"{", "is not a lexicon"),
        (b"[" * 100_000, "is not a lexicon"),
        (b"[]", f"does not say format={FORMAT}"),
        (json.dumps(GOOD).encode(), "'entries'"),
        (json.dumps(GOOD | {"entries": [["synonym", [], ["x"]]]}).encode(), "entry 1 must be a kind of"),
        (json.dumps(GOOD | {"entries": [["magic", ["dog"], ["x"]]]}).encode(), "entry 1 must be a kind of"),
        (json.dumps(GOOD | {"entries": [["synonym", ["dog", 2], ["x"]]]}).encode(), "entry 1 must be a kind of"),
        (json.dumps(GOOD | {"entries": [["synonym", list("abcdefghi"), ["x"]]]}).encode(), "has 9 tags, more than 8"),
    ],
)
def test_a_file_that_is_no_lexicon_is_refused(data, message, tmp_path):
    (tmp_path / "x.json").write_bytes(data)
    with pytest.raises(InputError, match=message):
        load_lexicon(tmp_path / "x.json")


def test_a_file_that_is_too_large_or_missing_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("grounding.text.lexicon.MOST_BYTES", 1 << 20)
    (tmp_path / "x.json").write_bytes(b" " * (1 << 20 | 1))
    with pytest.raises(InputError, match="more than 1 MiB"):
        load_lexicon(tmp_path / "x.json")
    with pytest.raises(InputError, match="cannot be read"):
        load_lexicon(tmp_path / "y.json")


NOUNS = """\
  1 The licence of a small WordNet.
00000001 05 n 01 elephant 0 002 ~ 00000002 n 0000 ~ 00000003 n 0000 | large
00000002 05 n 02 African_elephant 0 Loxodonta 0 001 @ 00000001 n 0000 | an elephant
00000003 05 n 01 Indian_elephant 0 001 @ 00000001 n 0000 | an elephant
00000004 05 n 01 cat 0 001 ~ 00000005 n 0000 | feline
00000005 05 n 01 kitten 0 001 @ 00000004 n 0000 | young cat
00000006 09 n 01 idea 0 001 @ 00000004 n 0000 | not seen
"""


def wordnet(folder: Path) -> Path:
    words = {
        "elephant": 1,
        "african_elephant": 2,
        "loxodonta": 2,
        "indian_elephant": 3,
        "cat": 4,
        "kitten": 5,
        "idea": 6,
    }
    (folder / "data.noun").write_text(NOUNS)
    (folder / "index.noun").write_text("".join(f"{word} n 1 0 1 0 {n:08}\n" for word, n in words.items()))
    (folder / "data.adj").write_text("00000001 00 a 02 grey 0 gray 0 000 | colour\n")
    (folder / "index.adj").write_text("grey a 1 0 1 0 00000001\ngray a 1 0 1 0 00000001\n")
    return folder


def test_a_small_wordnet_gives_the_words_of_a_tagger(tmp_path):
    path = write_lexicon(Vocabulary(TAGS), tmp_path / "tagger.safetensors", wordnet(tmp_path))
    assert path == lexicon_path(tmp_path / "tagger.safetensors")
    meanings = load_lexicon(path).meanings
    assert meanings["elephant"] == Meaning(("african elephant", "indian elephant"), "narrower")
    assert meanings["grey"] == Meaning(("gray",), "spelling")
    assert meanings["kitten"].tags == ("cat",)
    assert meanings["loxodonta"] == Meaning(("african elephant",), "synonym")
    assert "idea" not in meanings
    assert "licence of a small WordNet" in path.read_text("utf-8")
    before = path.read_bytes()
    write_lexicon(Vocabulary(TAGS), tmp_path / "tagger.safetensors", tmp_path)
    assert path.read_bytes() == before


def test_a_folder_without_wordnet_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"has no WordNet .*apt-get install wordnet-base"):
        write_lexicon(Vocabulary(TAGS), tmp_path / "tagger.safetensors", tmp_path)


def test_a_malformed_wordnet_is_refused(tmp_path):
    (wordnet(tmp_path) / "data.noun").write_text("00000001 05 n zz elephant\n")
    with pytest.raises(InputError, match=r"data\.noun:1 is not a line of WordNet"):
        write_lexicon(Vocabulary(TAGS), tmp_path / "tagger.safetensors", tmp_path)
