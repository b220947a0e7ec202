"""Words that are not tags: how each is read, the file beside a tagger, and the derivation from a small WordNet."""

import json
import re
from pathlib import Path

import nltk
import pytest
from hypothesis import given
from hypothesis import strategies as st

from grounding.steps.lexicon import write_lexicon
from grounding.tagger.packaged import TAGGERS
from grounding.tagger.tagger import load_vocabulary
from grounding.text.lexicon import FORMAT, Lexicon, Meaning, digest, encode, lexicon_path, load_lexicon
from grounding.text.phrases import Phrase
from grounding.text.vocabulary import Vocabulary
from proposals.errors import InputError

TABLE = Path(__file__).with_name("readings.txt").read_text("utf-8").splitlines()
PAIRS = [line.split(" = ", 1) for line in TABLE if not line.startswith("#")]
TAGS = ("dog", "glass", "hotdog", "gray", "cat", "african elephant", "indian elephant", "red", "woman")
MEANINGS = {
    "elephant": Meaning(("indian elephant", "african elephant"), "narrower"),
    "grey": Meaning(("gray",), "spelling"),
    "hot dog": Meaning(("hotdog",), "spelling"),
    "wine glass": Meaning(("glass",), "broader"),
    "kitten": Meaning(("cat",), "broader"),
}


ALL_TAGS = {tag for name in TAGGERS for tag in load_vocabulary(name)}


@pytest.fixture(scope="module", params=TAGGERS)
def known(request) -> Vocabulary:
    return load_vocabulary(request.param)


def small() -> Vocabulary:
    return Vocabulary(TAGS, Lexicon(digest(TAGS), MEANINGS))


@pytest.mark.parametrize(("text", "expected"), PAIRS)
def test_words_are_read_as_people_mean_them(text, expected, known):
    phrase = Phrase.parse(text, known)
    must, _, may = expected.removeprefix("two:").partition("|")
    needed, others = ({tag.strip() for tag in tags.split(",")} - {""} for tags in (must, may))
    found = set(phrase.tags)
    assert found <= needed | others, phrase.read_as
    assert needed | others <= ALL_TAGS | {"-"}, "the table has a tag that does not exist"
    if expected.startswith("two:"):
        assert needed <= found and len(phrase.readings) == 2
    elif "-" not in needed:
        assert needed & found, phrase.read_as or phrase.skipped


def test_the_table_has_enough_words():
    assert len({text for text, _ in PAIRS}) >= 300


EVERYDAY = {  # phrase: the tags of each of its words
    "elephant": [{"elephant", "elephants", "african elephant", "indian elephant"}],
    "clock": [{"clock", "analog clock", "digital clock", "wall clock"}],
    "keyboard": [{"keyboard", "computer keyboard", "typewriter keyboard"}],
    "remote": [{"remote", "remote control"}],
    "handbag": [{"handbag", "purse", "purses"}],
    "TV": [{"tv", "television"}],
    "bear": [{"bear", "bears", "brown bear", "american black bear", "ice bear", "sloth bear"}],
    "rocket": [{"missile"}],
    "grey shirt": [{"grey", "gray"}, {"shirt", "shirts", "t-shirt", "tee shirt"}],
    "hot dog": [{"hotdog"}],
    "kitten": [{"kitten", "kitty", "cat"}],
    "wolf": [{"timber wolf", "white wolf", "red wolf", "coyote"}],
    "aeroplane": [{"airplane", "plane", "planes", "jet", "airliner"}],
    "tyre": [{"tire", "tires"}],
    "lorry": [
        {"truck", "trucks", "fire engine", "garbage truck", "pickup", "tow truck", "trailer truck", "moving van"},
    ],
    "policeman": [{"policeman", "officer"}],
    "firefighter": [{"person", "man", "woman"}],
    "smartphone": [{"cellphone", "cellular telephone"}],
    "eyeglasses": [{"glasses", "sunglasses", "goggles", "shades", "dark glasses"}],
    "mug": [{"mug", "coffee mug"}],
    "bottle": [
        {"bottle", "bottles", "beer bottle", "pill bottle", "pop bottle", "water bottle", "wine bottle", "water jug"}
    ],
}


@pytest.mark.parametrize(("text", "tags"), EVERYDAY.items())
def test_everyday_words_are_read_as_these_tags(text, tags, known):
    phrase = Phrase.parse(text, known)
    assert not phrase.skipped
    assert [set(reading.tags) for reading in phrase.readings] == tags


CATEGORIES = {  # separated by commas
    "COCO": """
        person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, fire hydrant, stop
        sign, parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, bear, zebra, giraffe, backpack,
        umbrella, handbag, tie, suitcase, frisbee, skis, snowboard, sports ball, kite, baseball bat, baseball
        glove, skateboard, surfboard, tennis racket, bottle, wine glass, cup, fork, knife, spoon, bowl, banana,
        apple, sandwich, orange, broccoli, carrot, hot dog, pizza, donut, cake, chair, couch, potted plant, bed,
        dining table, toilet, tv, laptop, mouse, remote, keyboard, cell phone, microwave, oven, toaster, sink,
        refrigerator, book, clock, vase, scissors, teddy bear, hair drier, toothbrush
    """,
    "VOC": """
        aeroplane, bicycle, bird, boat, bottle, bus, car, cat, chair, cow, diningtable, dog, horse, motorbike,
        person, pottedplant, sheep, sofa, train, tvmonitor
    """,
}


@pytest.mark.parametrize(("data_set", "count"), [("COCO", 80), ("VOC", 20)])
def test_the_category_names_of_data_sets_are_one_thing_each(data_set, count, known):
    phrases = [Phrase.parse(" ".join(name.split()), known) for name in CATEGORIES[data_set].split(",")]
    assert len(phrases) == count
    assert [p.text for p in phrases if p.skipped or len(p.readings) != 1] == []


def test_the_documentation_lists_how_the_default_tagger_reads_200_nouns():
    page, known = (Path(__file__).parents[1] / "docs/reference/readings.md").read_text("utf-8"), load_vocabulary()
    (alone,) = re.findall(r"read as one tag, .*?: (.*)\.\n", page)
    rows = [line.strip("| ").split(" | ") for line in page.splitlines() if line.startswith("| ")][1:]
    listed = dict.fromkeys(alone.split(", ")) | {word: (tags, how) for word, tags, how in rows}
    assert len(listed) == 200
    for word, reading in listed.items():
        (found,) = Phrase.parse(word, known).readings
        assert reading == (None if found.how == "tag" else (", ".join(found.tags), found.how)), word


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


NOUNS = {  # name: (number of its lexicographer file, words, hypernyms)
    "elephant": ("05", "elephant", ""),
    "african": ("05", "African_elephant Loxodonta", "elephant"),
    "indian": ("05", "Indian_elephant", "elephant"),
    "animal": ("05", "animal", ""),
    "cat": ("05", "cat", "animal"),
    "dog": ("05", "dog", "animal"),
    "ferret": ("05", "ferret", "animal"),
    "kitten": ("05", "kitten", "animal"),
    "idea": ("09", "idea", "animal"),
    "wife": ("18", "wife", ""),
}
GLOSSES = {"kitten": "young domestic cat", "wife": "a married woman"}
LICENCE = "  1 The licence of a small WordNet.  \n"


def tagger_file(folder):
    """A tagger's file, which is not read."""
    (folder / "tagger.safetensors").touch()
    return folder / "tagger.safetensors"


def wordnet(folder: Path) -> Path:
    offsets = {name: len(LICENCE) + 200 * number for number, name in enumerate(NOUNS)}
    lines = []
    for name, (file, words, above) in NOUNS.items():
        beneath = [below for below, row in NOUNS.items() if name in row[2].split()]
        links = [f"@ {offsets[up]:08} n 0000" for up in above.split()] + [f"~ {offsets[b]:08} n 0000" for b in beneath]
        spelled = " ".join(f"{word} 0" for word in words.split())
        head = f"{offsets[name]:08} {file} n {len(words.split()):02x} {spelled} {len(links):03} {' '.join(links)}"
        lines.append(f"{head.rstrip()} | {GLOSSES.get(name, 'something')}".ljust(199) + "\n")
    index = sorted((word.lower(), offsets[name]) for name, row in NOUNS.items() for word in row[1].split())
    (folder / "data.noun").write_text(LICENCE + "".join(lines))
    (folder / "index.noun").write_text("".join(f"{word} n 1 0 1 0 {offset:08}  \n" for word, offset in index))
    (folder / "data.adj").write_text(LICENCE + f"{len(LICENCE):08} 00 a 02 grey 0 gray 0 000 | colour  \n")
    index_of_adjectives = f"gray a 1 0 1 0 {len(LICENCE):08}  \ngrey a 1 0 1 0 {len(LICENCE):08}  \n"
    (folder / "index.adj").write_text(index_of_adjectives)
    return folder


def test_a_small_wordnet_gives_the_words_of_a_tagger(tmp_path):
    path = write_lexicon(Vocabulary(TAGS), tagger_file(tmp_path), wordnet(tmp_path))
    assert path == lexicon_path(tagger_file(tmp_path))
    meanings = load_lexicon(path).meanings
    assert meanings["elephant"] == Meaning(("african elephant", "indian elephant"), "narrower")
    assert meanings["grey"] == Meaning(("gray",), "spelling")
    assert meanings["kitten"] == Meaning(("cat",), "broader")
    assert meanings["loxodonta"] == Meaning(("african elephant",), "synonym")
    assert meanings["ferret"] == Meaning(("dog", "cat"), "related")
    assert meanings["wife"] == Meaning(("woman",), "broader")
    assert "idea" not in meanings
    assert "licence of a small WordNet" in path.read_text("utf-8")
    before = path.read_bytes()
    write_lexicon(Vocabulary(TAGS), tagger_file(tmp_path), tmp_path)
    assert path.read_bytes() == before


def test_a_tag_is_read_with_its_plural_its_other_names_and_its_kinds(tmp_path):
    elephants = ("elephants", "elephant", "african elephant", "indian elephant", "loxodonta")
    tags = (*elephants, "gray", "grey", "woman", "wife")
    path = write_lexicon(Vocabulary(tags), tagger_file(tmp_path), wordnet(tmp_path))
    meanings = load_lexicon(path).meanings
    kinds = ("indian elephant", "loxodonta", "african elephant")
    assert set(meanings["elephant"].tags) == {"elephant", "elephants", *kinds}
    assert meanings["elephant"].tags[0] == "elephant" and meanings["elephants"].tags[0] == "elephants"
    assert meanings["elephant"].how == meanings["elephants"].how == "narrower"
    assert meanings["african elephant"] == Meaning(("african elephant", "loxodonta"), "synonym")
    assert meanings["grey"] == Meaning(("grey", "gray"), "spelling")
    assert not {"woman", "wife", "indian elephant"} & meanings.keys()
    phrase = Phrase.parse("a grey elephant, wife", Vocabulary(tags, load_lexicon(path)))
    assert len(phrase.tags) == 8 and phrase.read_as == ""
    assert [reading.how for reading in phrase.readings] == ["spelling", "narrower", "tag"]


def test_nltk_may_not_read_other_folders_afterwards(tmp_path):
    before = list(nltk.data.path)
    write_lexicon(Vocabulary(TAGS), tagger_file(tmp_path), wordnet(tmp_path))
    assert nltk.data.path == before


def test_a_folder_without_wordnet_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"has no WordNet .*apt-get install wordnet-base"):
        write_lexicon(Vocabulary(TAGS), tagger_file(tmp_path), tmp_path)


@pytest.mark.parametrize("name", ["data.noun", "index.noun"])
def test_a_malformed_wordnet_is_refused(name, tmp_path):
    path = wordnet(tmp_path) / name
    path.write_text(path.read_text().replace("elephant", "elephant zz"))
    with pytest.raises(InputError, match=r"has no WordNet 3\.x that can be read .*: install it again"):
        write_lexicon(Vocabulary(TAGS), tagger_file(tmp_path), tmp_path)
