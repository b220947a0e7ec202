"""The step ``ground`` with a file, a folder, a pattern and the standard input: its files and error messages."""

import csv
import io
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from grounding import Grounder
from grounding.exports import FORMATS
from grounding.photos import find_photos
from grounding.steps.ground import ground
from grounding.text.phrases import read_phrases
from proposals import SegmentProposer
from proposals.errors import InputError, SkippedError

PHRASES = ["a cup of coffee", "a zorgophone"]


@pytest.fixture(scope="module")
def grounder() -> Grounder:
    return Grounder.load(proposer=SegmentProposer(count=20), side=224)


@pytest.fixture
def album(coffee, tmp_path) -> Path:
    """A folder with two photos, a text file, and a subfolder with one photo."""
    folder = tmp_path / "album"
    (folder / "deep").mkdir(parents=True)
    picture = Image.open(coffee).convert("RGB").resize((96, 64))
    for name in ("cup.png", "[1].jpg", "deep/Kaffee ☕.png"):
        picture.save(folder / name)
    (folder / "notes.txt").write_text("no photo")
    return folder


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_a_folder_of_photos(grounder, album, tmp_path, capsys):
    ground(grounder, str(album), PHRASES, str(tmp_path / "out"), "jsonl")
    lines = (tmp_path / "out" / "groundings.jsonl").read_text().splitlines()
    records = list(map(json.loads, lines))
    assert [record["image"] for record in records] == [
        str(album / n) for n in ("[1].jpg", "cup.png", "deep/Kaffee ☕.png")
    ]
    assert [[g["groundable"] for g in record["groundings"]] for record in records] == [[True, False]] * 3
    overlays = [f"{name}/01-a-cup-of-coffee.png" for name in ("[1].jpg", "cup.png", "deep/Kaffee ☕.png")]
    assert files(tmp_path / "out") == [*overlays, "groundings.jsonl", "skipped.jsonl"]
    (left_out,) = map(json.loads, (tmp_path / "out" / "skipped.jsonl").read_text().splitlines())
    assert (left_out["name"], left_out["reason"]) == (str(album / "notes.txt"), "not a photo")
    assert f"4 files: 3 kept, 1 not a photo; see {tmp_path}/out/skipped.jsonl; boxes" in capsys.readouterr().out


def test_broken_photos_among_many_are_skipped_and_listed(grounder, album, tmp_path):
    (album / "bad.jpg").write_text("no photo")
    with pytest.raises(SkippedError) as raised:
        ground(grounder, str(album / "*.*"), ["a cup"], str(tmp_path / "out"), "csv", pictures=None)
    skipped = tmp_path / "out" / "skipped.jsonl"
    assert str(raised.value) == f"4 files: 2 kept, 2 unusable; see {skipped}"
    lines = list(map(json.loads, skipped.read_text().splitlines()))
    assert [line["name"] for line in lines] == [str(album / "bad.jpg"), str(album / "notes.txt")]
    assert all("cannot be read as an image" in line["detail"] for line in lines)
    with (tmp_path / "out" / "groundings.csv").open(newline="", encoding="utf-8") as file:
        assert {row["image"] for row in csv.DictReader(file)} == {str(album / "cup.png"), str(album / "[1].jpg")}
    assert files(tmp_path / "out") == ["groundings.csv", "skipped.jsonl"]


def test_photos_in_a_format_that_is_not_read_are_skipped(grounder, album, tmp_path):
    (album / "IMG_1.HEIC").touch()
    with pytest.raises(SkippedError, match="5 files: 3 kept, 1 in a format that is not read, 1 not a photo; see"):
        ground(grounder, str(album), ["a cup"], str(tmp_path / "out"), pictures=None)


def test_without_a_usable_photo_only_the_list_is_written(grounder, album, tmp_path):
    with pytest.raises(
        InputError,
        match=r"none of 1 files can be used \(1 unusable\): looked in .*; the first: .*notes.txt cannot be read as",
    ) as raised:
        ground(grounder, str(album / "*.txt"), ["a cup"], str(tmp_path / "out"))
    assert not isinstance(raised.value, SkippedError)
    assert files(tmp_path / "out") == ["skipped.jsonl"]


def test_coco_names_images_relative_to_their_folder(grounder, album, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(grounder, "settings", replace(grounder.settings, presence=0))  # COCO leaves out absent ones
    ground(grounder, str(album), PHRASES, str(tmp_path / "out"), "coco", pictures=None)
    loaded = COCO(str(tmp_path / "out" / "coco.json"))
    assert [image["file_name"] for image in loaded.dataset["images"]] == ["[1].jpg", "cup.png", "deep/Kaffee ☕.png"]
    assert len(loaded.getAnnIds()) == 3
    ground(grounder, str(album / "cup.png"), ["a cup"], str(tmp_path / "one"), "coco", boxes=4, pictures=None)
    loaded = COCO(str(tmp_path / "one" / "coco.json"))
    assert [image["file_name"] for image in loaded.dataset["images"]] == ["cup.png"]
    assert len(loaded.getAnnIds()) == 4


def test_a_photo_from_the_standard_input(grounder, album, tmp_path, monkeypatch):
    data = (album / "cup.png").read_bytes()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    ground(grounder, "-", ["a cup"], str(tmp_path / "piped"))
    ground(grounder, str(album / "cup.png"), ["a cup"], str(tmp_path / "named"))
    piped, named = (json.loads((tmp_path / name / "groundings.json").read_text()) for name in ("piped", "named"))
    assert piped.pop("image") == "-"
    assert named.pop("image") == str(album / "cup.png")
    assert piped == named


def test_an_endless_standard_input_is_refused(grounder, tmp_path, monkeypatch):
    monkeypatch.setattr("grounding.steps.ground.MAX_BYTES", 100)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(bytes(200))))
    with pytest.raises(InputError, match="the standard input has more than 100 bytes; make the image smaller"):
        ground(grounder, "-", ["a cup"], str(tmp_path))


def test_pictures_and_maps(grounder, album, tmp_path):
    ground(
        grounder,
        str(album / "cup.png"),
        ["A cup!", "чашка", "☕ coffee"],
        str(tmp_path / "out"),
        "json",
        1,
        "svg",
        True,
    )
    assert files(tmp_path / "out") == [
        "01-a-cup.npy", "01-a-cup.svg", "03-coffee.npy", "03-coffee.svg", "groundings.json"
    ]  # fmt: skip
    assert np.load(tmp_path / "out" / "01-a-cup.npy").shape == (64, 96)
    assert "☕ coffee" in (tmp_path / "out" / "03-coffee.svg").read_text("utf-8")


def test_phrases_from_a_file_are_unchanged(tmp_path):
    (tmp_path / "phrases.txt").write_bytes("\ufeffa cup\r\n\n  a \u2028 line \n\u202eامرأة\n🚀".encode())
    assert read_phrases(str(tmp_path / "phrases.txt")) == ["a cup", "  a \u2028 line ", "\u202eامرأة", "🚀"]
    assert read_phrases(["a cup", " "]) == ["a cup", " "]


def test_an_existing_file_is_not_a_pattern(album):
    found = find_photos(str(album / "[1].jpg"))
    assert (found.paths, found.many, found.name(found.paths[0])) == ([str(album / "[1].jpg")], False, "[1].jpg")
    deep = find_photos(str(album / "**" / "*.png"))
    assert [deep.name(path) for path in deep.paths] == ["cup.png", "deep/Kaffee ☕.png"]


REFUSALS = {
    "format": ({"form": "xml"}, "there is no format 'xml'; choose one of json, jsonl, csv, coco, label-studio, "
               "labelme, yolo"),
    "pictures": ({"pictures": "gif"}, "pictures='gif' is not a picture format; choose one of png, svg, one, or null"),
    "boxes": ({"boxes": 0}, "boxes=0 must be a whole number, 1 or more"),
    "half a box": ({"boxes": 1.5}, "boxes=1.5 must be a whole number, 1 or more"),
    "no image": ({"image": None}, "no image: set image=PHOTO, image=FOLDER, or image=- for the standard input"),
    "no photos": ({"image": "EMPTY"}, "there are no files: looked in .*EMPTY; found there: nothing; give a folder "),
    "no match": ({"image": "EMPTY/*.jpg"}, "no file matches this pattern"),
    "no file": ({"phrases": "a cat"}, "the file phrases=a cat cannot be read .No such file or directory.: write a "
                "list as 'phrases=[a cat, the red mug]'"),
    "folder": ({"phrases": "EMPTY"}, "cannot be read .Is a directory.: write a list"),
    "bytes": ({"phrases": "BYTES"}, "is not UTF-8 text: save the file as UTF-8"),
    "blank": ({"phrases": "BLANK"}, "has no phrases: write one phrase on each line"),
    "no list": ({"phrases": None}, "phrases=None must be a list"),
    "none of many": ({"image": "ALBUM", "phrases": []}, "no phrase to ground"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSALS)
def test_invalid_input_is_refused(grounder, album, tmp_path, name):
    wrong, message = REFUSALS[name]
    (tmp_path / "EMPTY").mkdir()
    (tmp_path / "BYTES").write_bytes(b"a \xff cat")
    (tmp_path / "BLANK").write_text(" \n\n")
    places = {name: str(tmp_path / name) for name in ("EMPTY", "EMPTY/*.jpg", "BYTES", "BLANK")} | {"ALBUM": str(album)}
    given = {"image": str(album / "cup.png"), "phrases": ["a cup"]} | wrong
    given = {key: places.get(value, value) if isinstance(value, str) else value for key, value in given.items()}
    with pytest.raises(InputError, match=message.translate({ord("["): r"\[", ord("]"): r"\]"})):
        ground(grounder, output=str(tmp_path / "out"), **given)
    assert not (tmp_path / "out").exists()


def test_conf_lists_every_format():
    config = (Path(__file__).parents[1] / "conf" / "config.yaml").read_text()
    (line,) = (line for line in config.splitlines() if line.startswith("format: "))
    assert all(name in line for name in FORMATS)
