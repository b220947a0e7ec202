"""The step phrases: from files of captions to phrases.jsonl."""

import json
import logging
import re

import pytest

from grounding.steps.phrases import PhraseCounts, extract_phrases
from grounding.text.vocabulary import Vocabulary
from proposals.errors import InputError

VOCABULARY = Vocabulary(["dog", "man", "cup", "hot dog"])


def extract(source, tmp_path):
    output = tmp_path / "out" / "phrases.jsonl"
    counts = extract_phrases(source, output, VOCABULARY)
    return counts, [json.loads(line) for line in output.read_text("utf-8").splitlines()]


def brief(entries):
    return [(e["image"], e["sentence"], e["phrase"], e["text"]) for e in entries]


def test_a_text_file_has_the_captions_of_one_image(tmp_path, caplog):
    source = tmp_path / "photo.txt"
    source.write_text("\ufeffA man with a zorg.\r\n\nof the\nhis hot dogs", "utf-8")
    with caplog.at_level(logging.INFO):
        counts, entries = extract(source, tmp_path)
    assert brief(entries) == [("photo", 0, 0, "A man"), ("photo", 0, 1, "a zorg"), ("photo", 3, 0, "his hot dogs")]
    assert entries[1] == {
        **{"image": "photo", "sentence": 0, "phrase": 1, "text": "a zorg"},
        **{"tags": [], "skipped": ["zorg"], "read_as": ""},
    }
    assert counts == PhraseCounts(images=1, sentences=3, phrases=3, untagged=1, skipped=(("zorg", 1),))
    assert "3 phrases in 3 sentences of 1 images; 1 phrases without a tag; most frequent words" in caplog.text
    assert "without a tag: zorg (1)" in caplog.text


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
def test_flickr30k_entities(tmp_path, root):
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
        ("a.jsonl", b'{"image": "1", "caption": "a"}\n{"image": "1"', "a.jsonl:2: invalid JSON"),
        ("a.jsonl", b'{"image": "1"', "a.jsonl:1: invalid JSON"),
        ("a.jsonl", b'{"image": "1"}', "a.jsonl:1: expected {"),
        ("a.jsonl", b'{"image": 1, "caption": "a"}', "a.jsonl:1: expected {"),
        ("a.jsonl", b'{"image": "1", "captions": "a"}', "a.jsonl:1: expected {"),
        ("a.jsonl", b'{"image": "1", "captions": ["a"]}\n[]', "a.jsonl:2: expected {"),
        ("a.json", b'{"images": []\n,', "a.json:2: invalid JSON at column"),
        ("a.json", b'{"images": 3, "annotations": []}', "COCO captions need the lists"),
        ("a.json", b'{\n"annotations": []}', "COCO captions need the lists"),
        ("a.json", (COCO % '{"image_id": 2, "caption": "a"}').encode(), "annotation 0 needs"),
        ("a.json", (COCO % '{"image_id": 1, "caption": "a"}, 3').encode(), "annotation 1 needs"),
        ("a.json", (COCO % '{"image_id": 1, "caption": null}').encode(), "annotation 0: the file name and the caption"),
        ("a.json", b'{"a": ' + b"[" * 100_000, "invalid JSON"),
        (
            "a.json",
            b'[{"image": "1.jpg", "caption": "a dog"}]',
            "a.json is a JSON array, not captions: write JSON lines",
        ),
        ("a.txt", b'[\n"a dog"\n]', "a.txt is a JSON array, not captions"),
        ("a.csv", b"a dog\n", "a.csv is a table, not captions: write JSON lines"),
        ("a.parquet", b"PAR1\xff", "a.parquet is a table, not captions"),
        ("captions.txt", b"image,caption\n1.jpg,a dog\n", "captions.txt is a table, not captions"),
        ("results.txt", b"image_name; comment_number; comment\n", "results.txt is a table, not captions"),
        ("Flickr8k.token.txt", b"1.jpg#0\ta dog\n", "Flickr8k.token.txt is a table, not captions"),
    ],
)
def test_errors_have_the_file_and_the_line(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=re.escape(message) if "|" not in message else message) as caught:
        extract_phrases(tmp_path / name, tmp_path / "phrases.jsonl", VOCABULARY)
    assert "\n" not in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == [name]


def test_captions_that_look_like_a_table_or_a_list_are_captions(tmp_path):
    (tmp_path / "a.txt").write_text("[/EN#1/people Dogs] run\nPath, lined with trees\n", "utf-8")
    assert extract_phrases(tmp_path / "a.txt", tmp_path / "p.jsonl", VOCABULARY).sentences == 2
    (tmp_path / "a.txt").write_text("Path, lined with trees\n[two dogs]\n", "utf-8")
    assert extract_phrases(tmp_path / "a.txt", tmp_path / "p.jsonl", VOCABULARY).sentences == 2


def test_hidden_files_of_a_folder_are_left_out(tmp_path, caplog):
    (tmp_path / "1.txt").write_text("a dog", "utf-8")
    (tmp_path / "._1.txt").write_bytes(b"\0\5\x16\7\xff")
    counts, entries = extract(tmp_path, tmp_path)
    assert counts.images == 1 and brief(entries) == [("1", 0, 0, "a dog")]
    assert f"left out 1 hidden files of {tmp_path}: ._1.txt" in caplog.text


def test_a_failed_run_keeps_the_old_file(tmp_path):
    (tmp_path / "good.txt").write_text("a dog", "utf-8")
    (tmp_path / "bad.txt").write_text("[/EN#1/people a dog]\n]", "utf-8")
    output = tmp_path / "phrases.jsonl"
    extract_phrases(tmp_path / "good.txt", output, VOCABULARY)
    before = output.read_bytes()
    with pytest.raises(InputError):
        extract_phrases(tmp_path / "bad.txt", output, VOCABULARY)
    assert output.read_bytes() == before


def test_a_missing_source(tmp_path):
    with pytest.raises(InputError, match=r"gone\.txt cannot be read: No such file"):
        extract_phrases(tmp_path / "gone.txt", tmp_path / "phrases.jsonl", VOCABULARY)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"has no \.txt file: give a file of captions"):
        extract_phrases(tmp_path / "empty", tmp_path / "phrases.jsonl", VOCABULARY)
