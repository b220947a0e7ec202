import doctest
import json
import logging
import os
import re
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grounding.text import chunks, phrases
from grounding.text import words as words_module
from grounding.text.chunks import noun_phrases
from grounding.text.phrases import Markup, Phrase, PhraseCounts, extract_phrases, parse_sentence
from grounding.text.vocabulary import Vocabulary
from grounding.text.words import FUNCTION_WORDS, normalize, word_parts, words
from proposals.errors import InputError

TAGS = "dog,man,woman,child,leaf,short,shorts,hot,blue,shirt,t-shirt,backpack,skateboard,striped,stripe,cup,run,sun"
VOCABULARY = Vocabulary([*TAGS.split(","), "fire hydrant", "cup of tea", "hot dog", "ice cream", "sunglasses"])


@pytest.mark.parametrize(
    ("text", "tags", "skipped"),
    [
        ("a man's hot dog", "man|hot dog", ""),
        ("HOT-DOGS and a hotdog", "hot dog", ""),
        ("fire  hydrants", "fire hydrant", ""),
        ("a hot blue dog", "hot|blue|dog", ""),
        ("cups of tea", "cup", "tea"),
        ("a cup of tea", "cup of tea", ""),
        ("T-shirts", "t-shirt", ""),
        ("t shirt", "t-shirt", ""),
        ("tshirt", "t-shirt", ""),
        ("ICECREAM cone", "ice cream", "cone"),
        ("the blue-striped backpack", "blue|striped|backpack", ""),
        ("a back-pack", "backpack", ""),
        ("sun-glasses", "sunglasses", ""),
        ("two skate boards", "skateboard", "two"),
        ("leaves, children and shorts", "leaf|child|shorts", ""),
        ("the dog's dog", "dog", ""),
        ("men 's shirt", "man|shirt", ""),
        ("a running dog", "run|dog", ""),
        ("Zorg, zorg and Zorg", "", "Zorg|zorg"),
        ("blue-Zorg", "blue", "Zorg"),
        ("Zorg-blarg", "", "Zorg-blarg"),
        ("of the", "", "of|the"),
        ("!!!", "", "!!!"),
        ("🐕 dog 👩\u200d👧", "dog", "🐕|👩\u200d👧"),
        ("כלב אדום", "", "כלב|אדום"),
        ("2 dogs", "dog", "2"),
        ("Ｄｏｇ", "dog", ""),
        ("\ud800 dog", "dog", "\ud800"),
    ],
)
def test_the_dictionary_decides(text, tags, skipped):
    phrase = Phrase.parse(text, VOCABULARY)
    assert phrase == Phrase(text, tuple(filter(None, tags.split("|"))), tuple(filter(None, skipped.split("|"))))


def test_longer_tags_come_first():
    vocabulary = Vocabulary(("hot", "dog", "hot dog", "hot dog stand"))
    assert Phrase.parse("hot dog stands", vocabulary).tags == ("hot dog stand",)
    assert Phrase.parse("hot dog hot", vocabulary).tags == ("hot dog", "hot")


def test_a_function_word_counts_where_it_is_a_tag():
    assert Phrase.parse("the one behind", Vocabulary(("behind",))) == Phrase("the one behind", ("behind",), ("one",))


def test_function_words_are_never_joined_or_led_back():
    vocabulary = Vocabulary(("across", "inside", "be", "do"))
    assert Phrase.parse("a cross was in side", vocabulary).tags == ()


@pytest.mark.parametrize("text", ["", "  ", "\n\t"])
def test_a_blank_phrase_is_refused(text):
    with pytest.raises(InputError, match="phrase is empty: say what to find"):
        Phrase.parse(text, VOCABULARY)


def test_a_phrase_that_is_no_text_is_refused():
    with pytest.raises(InputError, match="must be text, not 2: put it in quotes"):
        Phrase.parse(2, VOCABULARY)


OTHERS = ("Dogs", "people", "zorg", "Blarg", "hot-dog", "tea-cup", "man's", ",", *sorted(FUNCTION_WORDS)[::9])
SAID = st.lists(st.sampled_from([*VOCABULARY, *OTHERS])).map(" ".join)


@given((st.text(max_size=60) | SAID).filter(str.strip))
def test_every_word_is_covered_or_skipped_or_a_function_word(text):
    phrase = Phrase.parse(text, VOCABULARY)
    assert phrase.text == text
    assert set(phrase.tags) <= set(VOCABULARY)
    assert len(set(phrase.tags)) == len(phrase.tags)
    assert phrase.tags or phrase.skipped
    assert all(word in text for word in phrase.skipped)
    for word in words(text):
        inside = any(normalize(word) in tag.split() for tag in phrase.tags)
        function = all(part.spelled in FUNCTION_WORDS for part in word_parts(word))
        assert word in phrase.skipped or inside or function or Phrase.parse(word, VOCABULARY).tags


@given(st.lists(st.sampled_from(["zorg", "Blarg", "of", "the", "dog", "blue", "leaves"]), min_size=1))
def test_single_words_are_sorted_into_tags_and_skipped_words(written):
    phrase = Phrase.parse(" ".join(written), VOCABULARY)
    spelled = {"dog": "dog", "blue": "blue", "leaves": "leaf"}
    assert phrase.tags == tuple(dict.fromkeys(spelled[word] for word in written if word in spelled))
    unknown = tuple(dict.fromkeys(word for word in written if word in ("zorg", "Blarg")))
    assert phrase.skipped == (unknown if phrase.tags or unknown else tuple(dict.fromkeys(written)))


def test_a_sentence_gives_its_marked_phrases():
    assert parse_sentence("[/EN#7/people/other A man] in [/EN#0/notvisual front] of it .") == [
        Markup("7", ("people", "other"), "A man"),
        Markup("0", ("notvisual",), "front"),
    ]
    assert parse_sentence("nothing is marked") == []


@pytest.mark.parametrize(
    "line",
    [
        *["[/EN#7/people A man", "A man]", "[/EN#7/people A [/EN#8/other hat]]", "[/EN#7/people ]", "[/EN#7 A man]"],
        *["[/EN#x/people A man]", "[/EN#7//people A man]", "[EN#7/people A man]", "[]"],
    ],
)
def test_broken_markup_is_refused(line):
    with pytest.raises(InputError, match="broken markup"):
        parse_sentence(line)


TEXTS = st.text("ab cd'-", min_size=1).filter(str.strip)


@given(st.lists(st.tuples(st.integers(0, 10**6), st.lists(st.sampled_from(["people", "other"]), min_size=1), TEXTS)))
def test_marked_sentences_are_read_as_they_were_written(phrases):
    line = " , ".join(f"[/EN#{chain}/{'/'.join(types)} {text}]" for chain, types, text in phrases)
    assert parse_sentence(line) == [(str(chain), tuple(types), text.strip()) for chain, types, text in phrases]


@pytest.mark.parametrize(
    ("caption", "phrases"),
    [
        ("A man in a blue shirt is walking a dog.", "A man|a blue shirt|a dog"),
        ("Two dogs run across the field of grass .", "Two dogs|the field of grass"),
        ("A black and white dog jumps in front of her house", "A black and white dog|her house"),
        ("The man 's red hat", "The man 's red hat"),
        ("the man's red hat isn't small", "the man's red hat"),
        ("People race on a dirt bike track", "People|a dirt bike track"),
        ("she watches them", "she|them"),
        ("walking slowly", ""),
        ("", ""),
        ("<NP> {brackets} [of doors", "NP|brackets|doors"),
    ],
)
def test_noun_phrases(caption, phrases):
    assert noun_phrases(caption) == [phrase for phrase in phrases.split("|") if phrase]


@given(st.text(max_size=80))
def test_noun_phrases_stand_in_the_caption_in_order(caption):
    at = 0
    for phrase in noun_phrases(caption):
        at = caption.index(phrase, at) + len(phrase)


def test_a_long_run_of_adjectives_does_not_stall_the_grammar():
    assert noun_phrases("red " * 3000 + "dog")[-1].endswith("dog")


@pytest.mark.parametrize("module", [words_module, chunks, phrases])
def test_the_examples_of_the_docstrings(module):
    found = doctest.testmod(module)
    assert found.attempted > 0 == found.failed


def test_noun_phrases_are_those_that_people_marked():
    data = os.environ.get("GROUNDING_DATA")
    if not data:
        pytest.skip("set GROUNDING_DATA to a folder with flickr30k_entities/Sentences to measure the chunker")
    right = found = marked = 0
    for path in sorted(Path(data, "flickr30k_entities", "Sentences").glob("*.txt")):
        for line in filter(str.strip, path.read_text("utf-8").splitlines()):
            gold = Counter(markup.text.lower() for markup in parse_sentence(line))
            ours = Counter(map(str.lower, noun_phrases(re.sub(r"\[/EN#\S+ |\]", "", line))))
            right, found, marked = right + (gold & ours).total(), found + ours.total(), marked + gold.total()
    assert 2 * right / (found + marked) > 0.94


def extract(source, tmp_path):
    output = tmp_path / "out" / "phrases.jsonl"
    counts = extract_phrases(source, output, VOCABULARY)
    return counts, [json.loads(line) for line in output.read_text("utf-8").splitlines()]


def brief(entries):
    return [(e["image"], e["sentence"], e["phrase"], e["text"]) for e in entries]


def test_a_text_file_holds_the_captions_of_one_image(tmp_path, caplog):
    source = tmp_path / "photo.txt"
    source.write_text("\ufeffA man with a zorg.\r\n\nof the\nhis hot dogs", "utf-8")
    with caplog.at_level(logging.INFO):
        counts, entries = extract(source, tmp_path)
    assert brief(entries) == [("photo", 0, 0, "A man"), ("photo", 0, 1, "a zorg"), ("photo", 3, 0, "his hot dogs")]
    assert entries[1] == {
        **{"image": "photo", "sentence": 0, "phrase": 1, "text": "a zorg"},
        **{"tags": [], "skipped": ["zorg"]},
    }
    assert counts == PhraseCounts(images=1, sentences=3, phrases=3, untagged=1, skipped=(("zorg", 1),))
    assert (
        "3 phrases in 3 sentences of 1 images; 1 phrases without any tag; most often skipped: zorg (1)" in caplog.text
    )


def test_json_lines(tmp_path):
    source = tmp_path / "captions.jsonl"
    lines = [{"image": "b.jpg", "caption": "a dog"}, {"image": "a.jpg", "captions": ["a man", " ", "a cup"]}]
    lines.append({"image": "b.jpg", "caption": "the dog"})
    source.write_text("\n".join(map(json.dumps, lines)) + "\n\n", "utf-8")
    counts, entries = extract(source, tmp_path)
    assert brief(entries) == [
        *[("b.jpg", 0, 0, "a dog"), ("a.jpg", 0, 0, "a man"), ("a.jpg", 2, 0, "a cup"), ("b.jpg", 1, 0, "the dog")]
    ]
    assert (counts.images, counts.sentences) == (2, 4)


@pytest.mark.parametrize("indent", [None, 2])
def test_coco_captions(tmp_path, indent):
    images = [{"id": 7, "file_name": "7.jpg"}, {"id": 9, "file_name": "9.jpg"}]
    texts = [(9, "a dog"), (7, "a man"), (9, "the dog ")]
    annotations = [{"image_id": image, "caption": text, "id": 1} for image, text in texts]
    source = tmp_path / "captions.json"
    source.write_text(json.dumps({"images": images, "annotations": annotations}, indent=indent), "utf-8")
    _, entries = extract(source, tmp_path)
    assert brief(entries) == [("9.jpg", 0, 0, "a dog"), ("7.jpg", 0, 0, "a man"), ("9.jpg", 1, 0, "the dog")]


@pytest.mark.parametrize("root", [".", "Sentences"])
def test_flickr30k_entities_gives_all_marked_phrases(tmp_path, root):
    folder = tmp_path / "Sentences"
    folder.mkdir()
    (folder / "12.txt").write_text("[/EN#1/people A man] and [/EN#0/notvisual it] .\nno phrase here\n", "utf-8")
    (folder / "11.txt").write_text("a dog\n[/EN#5/other Dogs]", "utf-8")
    counts, entries = extract(tmp_path / root, tmp_path)
    assert brief(entries) == [("11", 1, 0, "Dogs"), ("12", 0, 0, "A man"), ("12", 0, 1, "it")]
    assert entries[2]["skipped"] == ["it"]
    assert (counts.sentences, counts.phrases, counts.untagged) == (4, 3, 1)


COCO = '{"images": [{"id": 1, "file_name": "1.jpg"}], "annotations": [%s]}'


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"a dog\n\xff\xfe", "a.txt:2: not UTF-8"),
        ("a.txt", b"a\n[/EN#1/people A man", "a.txt:2: broken markup at '"),
        ("a.jsonl", b'{"image": "1", "caption": "a"}\n{"image": "1"', "a.jsonl:2: broken JSON"),
        ("a.jsonl", b'{"image": "1"', "a.jsonl:1: broken JSON"),
        ("a.jsonl", b'{"image": "1"}', "a.jsonl:1: not of the form"),
        ("a.jsonl", b'{"image": 1, "caption": "a"}', "a.jsonl:1: not of the form"),
        ("a.jsonl", b'{"image": "1", "captions": "a"}', "a.jsonl:1: not of the form"),
        ("a.jsonl", b'{"image": "1", "captions": ["a"]}\n[]', "a.jsonl:2: not of the form"),
        ("a.json", b'{"images": []\n,', "a.json:2: broken JSON at column"),
        ("a.json", b'{"images": 3, "annotations": []}', "COCO captions need"),
        ("a.json", b'{\n"annotations": []}', "COCO captions need"),
        ("a.json", (COCO % '{"image_id": 2, "caption": "a"}').encode(), "annotation 0 needs"),
        ("a.json", (COCO % '{"image_id": 1, "caption": "a"}, 3').encode(), "annotation 1 needs"),
        ("a.json", (COCO % '{"image_id": 1, "caption": null}').encode(), "annotation 0: the file name and the caption"),
        ("a.json", b'{"a": ' + b"[" * 100_000, "JSON that cannot be read|broken JSON"),
    ],
)
def test_malformed_captions_are_named_by_file_and_line(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=re.escape(message) if "|" not in message else message) as caught:
        extract_phrases(tmp_path / name, tmp_path / "phrases.jsonl", VOCABULARY)
    assert "\n" not in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == [name]


def test_a_failed_run_leaves_the_old_phrases(tmp_path):
    (tmp_path / "good.txt").write_text("a dog", "utf-8")
    (tmp_path / "bad.txt").write_text("[/EN#1/people a dog]\n]", "utf-8")
    output = tmp_path / "phrases.jsonl"
    extract_phrases(tmp_path / "good.txt", output, VOCABULARY)
    before = output.read_bytes()
    with pytest.raises(InputError):
        extract_phrases(tmp_path / "bad.txt", output, VOCABULARY)
    assert output.read_bytes() == before


def test_a_source_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match=r"gone\.txt cannot be read: No such file"):
        extract_phrases(tmp_path / "gone.txt", tmp_path / "phrases.jsonl", VOCABULARY)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"holds no \.txt file: give captions"):
        extract_phrases(tmp_path / "empty", tmp_path / "phrases.jsonl", VOCABULARY)
