"""Answers in the formats of annotation tools, read by these programs where they are installed."""

import csv
import json
from html import escape
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from grounding.answers import Answers, Grounding
from grounding.exports import FORMATS
from grounding.formats.archives import label_stem
from grounding.runtime.cells import plain_cell, safe_cell
from grounding.steps.ground import ground
from grounding.text.phrases import Phrase
from proposals.errors import InputError

BEST, SECOND = [20.0, 10, 70, 50], [5.0, 5, 30, 40]
FOLDERS = ["labelme", "yolo"]
of_a_peer = pytest.mark.filterwarnings("default")  # another program's warnings are not ours
TEXT = st.text(st.characters(exclude_categories=[]), max_size=8)


def answer(text: str, present: bool | None = True) -> Grounding:
    presence = None if present is None else 0.8 if present else 0.01
    boxes, scores = np.array([BEST, SECOND]), np.array([0.5, 0.2])
    return Grounding(
        Phrase(text, (text,), ()), boxes, scores, np.ones((6, 10)), (60, 100), None, True, presence, present
    )


UNKNOWN = Grounding(Phrase("a zorgophone", (), ("zorgophone",)), np.zeros((0, 4)), np.zeros(0), None, (60, 100))
ANSWERED = [
    Answers("deep/one.jpg", (60, 100), [answer("a cat"), answer("a dog", False), UNKNOWN, answer("a cat", None)]),
    Answers("=two ☕.png", (60, 100), [answer('it\'s: a "cup" 🚀')]),
    Answers("three.jpg", (60, 100), [UNKNOWN]),
]
PHRASES = ["a cat", "a dog", "a zorgophone", 'it\'s: a "cup" 🚀']


def written(folder: Path, form: str, answered=ANSWERED) -> Path:
    FORMATS[form].write(folder / FORMATS[form].file, iter(answered), FORMATS[form].boxes)
    return folder / FORMATS[form].file


def unpacked(folder: Path, form: str, images: str = "") -> Path:
    """The archive unpacked, with the images in its folder ``images``."""
    with ZipFile(written(folder, form)) as archive:
        archive.extractall(folder)
    for answers in ANSWERED:
        path = folder / images / answers.image
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (100, 60)).save(path)
    return folder


def test_label_studio_has_boxes_in_percent(tmp_path):
    first, second, third = json.loads(written(tmp_path, "label-studio").read_bytes())
    assert (first["data"], second["data"]) == ({"image": "deep/one.jpg"}, {"image": "=two ☕.png"})
    (region,) = first["predictions"][0]["result"]
    assert region["value"].pop("rectanglelabels") == ["a cat"]
    assert region["value"] == pytest.approx({"x": 20, "y": 16.6667, "width": 50, "height": 66.6667, "rotation": 0})
    assert (region["original_width"], region["original_height"], region["score"]) == (100, 60, 0.5)
    assert third["predictions"][0]["result"] == []


@of_a_peer
def test_label_studio_accepts_the_predictions(tmp_path):
    label_interface = pytest.importorskip(
        "label_studio_sdk.label_interface", reason="label-studio-sdk is not installed"
    )
    labels = "".join(f'<Label value="{escape(text)}"/>' for text in PHRASES)
    # the configuration of docs/how-to/annotate.md
    page = Path(__file__).parents[1] / "docs" / "how-to" / "annotate.md"
    config = page.read_text("utf-8").partition("```xml\n")[2].partition("```")[0]
    config = config.replace('<Label value="a cat"/>', labels)
    assert labels in config
    interface = label_interface.LabelInterface(config.replace('    <Label value="a dog"/>\n', ""))
    for task in json.loads(written(tmp_path, "label-studio").read_bytes()):
        for prediction in task["predictions"]:
            assert interface.validate_prediction(prediction, return_errors=True) == []


def test_labelme_has_a_file_for_each_image(tmp_path):
    folder = unpacked(tmp_path, "labelme")
    record = json.loads((folder / "deep" / "one.json").read_bytes())
    assert (record["imagePath"], record["imageHeight"], record["imageWidth"]) == ("one.jpg", 60, 100)
    (shape,) = record["shapes"]
    assert (shape["label"], shape["points"], shape["shape_type"]) == ("a cat", [[20, 10], [70, 50]], "rectangle")
    assert json.loads((folder / "three.json").read_bytes())["shapes"] == []


@of_a_peer
def test_labelme_opens_the_files(tmp_path):
    labelme = pytest.importorskip("labelme._label_file", reason="labelme is not installed", exc_type=ImportError)
    folder = unpacked(tmp_path, "labelme")
    for answers in ANSWERED:
        file = labelme.LabelFile(folder / f"{label_stem(answers.image)}.json")
        assert file.image_path == Path(answers.image).name
        shown = [a.phrase.text for a in answers.groundings if a.groundable and not a.absent]
        assert [shape["label"] for shape in file.shapes] == list(dict.fromkeys(shown))
        assert all(shape["points"] == [BEST[:2], BEST[2:]] for shape in file.shapes)


def test_yolo_has_classes_and_relative_centres(tmp_path):
    folder = unpacked(tmp_path, "yolo", "images")
    data = yaml.safe_load((folder / "data.yaml").read_text("utf-8"))
    assert data == {"path": ".", "train": "images", "val": "images", "names": dict(enumerate(PHRASES))}
    assert (folder / "labels" / "deep" / "one.txt").read_text() == "0 0.450000 0.500000 0.500000 0.666667\n"
    assert (folder / "labels" / "=two ☕.txt").read_text().startswith("3 ")
    assert (folder / "labels" / "three.txt").read_text() == ""


@of_a_peer
def test_supervision_reads_yolo_and_coco(tmp_path):
    supervision = pytest.importorskip("supervision", reason="supervision is not installed")
    names = ["one.jpg", "two.jpg"]
    flat = [Answers(name, (60, 100), [answer("a cat"), answer("a dog")]) for name in names]
    with ZipFile(written(tmp_path, "yolo", flat)) as archive:
        archive.extractall(tmp_path)
    (tmp_path / "images").mkdir()
    for name in names:
        Image.new("RGB", (100, 60)).save(tmp_path / "images" / name)
    photos, read = str(tmp_path / "images"), supervision.DetectionDataset
    yolo = read.from_yolo(photos, str(tmp_path / "labels"), str(tmp_path / "data.yaml"))
    coco = read.from_coco(photos, str(written(tmp_path, "coco", flat)))
    for data_set in (yolo, coco):
        assert data_set.classes == ["a cat", "a dog"] and len(data_set) == 2
        for _, _, found in data_set:
            np.testing.assert_allclose(found.xyxy, [BEST] * 2, atol=0.01)
            assert found.class_id.tolist() == [0, 1]


@of_a_peer
@pytest.mark.parametrize("form", ["coco", "yolo"])
def test_datumaro_imports_the_formats(tmp_path, form):
    """CVAT imports with its own copy of Datumaro."""
    datumaro = pytest.importorskip("datumaro", reason="datumaro is not installed")
    if form == "yolo":
        unpacked(tmp_path, form, "images")
    else:
        for name in ("annotations", "images"):
            (tmp_path / name).mkdir()
        written(tmp_path, form).rename(tmp_path / "annotations" / "instances_default.json")
    items = {Path(item.id).name: item for item in datumaro.Dataset.import_from(str(tmp_path), form)}
    assert items.keys() == {"one", "=two ☕", "three"}
    assert [list(shape.get_bbox()) for shape in items["one"].annotations] == [[20, 10, 50, 40]]
    assert not items["three"].annotations


@of_a_peer
def test_fiftyone_imports_coco(tmp_path):
    coco = pytest.importorskip("fiftyone.utils.coco", reason="fiftyone is not installed", exc_type=ImportError)
    unpacked(tmp_path, "yolo", "images")
    importer = coco.COCODetectionDatasetImporter(
        data_path=str(tmp_path / "images"), labels_path=str(written(tmp_path, "coco"))
    )
    importer.setup()
    found = {Path(path).name: label.get("detections") for path, _, label in importer}
    (cat,) = found["one.jpg"].detections
    assert cat.label == "a cat" and cat.bounding_box == pytest.approx([0.2, 1 / 6, 0.5, 2 / 3])
    assert not found["three.jpg"]


@pytest.mark.parametrize("form", FOLDERS)
def test_no_name_leads_out_of_the_folder(tmp_path, form):
    names = [
        "../../out.jpg",
        "/tmp/absolute.jpg",
        "..",
        "deep/../../up.jpg",
        "..\\..\\back.jpg",
        "C:\\x\\disk.jpg",
        "\udc80.jpg",
    ]
    with ZipFile(written(tmp_path, form, [Answers(name, (60, 100), [answer("a cat")]) for name in names])) as archive:
        stems = {Path(name).stem for name in archive.namelist()}
        assert not any(".." in name or name.startswith("/") or "\\.." in name for name in archive.namelist())
    assert {"out", "absolute", "image", "up", "back", "disk", "\\udc80"} <= stems


@pytest.mark.parametrize("form", FOLDERS)
def test_photos_with_one_name_are_refused_before_any_is_answered(tmp_path, form):
    message = r"a\.jpg and a\.png would have the same file of labels: rename one of them, or choose format=coco"
    twice = [Answers(name, (60, 100), [answer("a cat")]) for name in ("a.jpg", "a.png")]
    with pytest.raises(InputError, match=message):
        written(tmp_path, form, twice)
    assert not list(tmp_path.iterdir())
    for name in ("a.jpg", "a.png"):
        (tmp_path / name).touch()
    with pytest.raises(InputError, match=message):
        ground(None, str(tmp_path), ["a cat"], str(tmp_path / "out"), form)


@pytest.mark.parametrize("form", [*FOLDERS, "label-studio", "coco", "csv"])
def test_the_same_answers_are_the_same_bytes(tmp_path, form):
    for name in "12":
        (tmp_path / name).mkdir()
    assert len({written(tmp_path / name, form).read_bytes() for name in "12"}) == 1


@pytest.mark.parametrize(
    "text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", " =1", "\ufeff=1", "＝1", "'=1", "\n"]
)
def test_spreadsheets_calculate_no_cell(tmp_path, text):
    path = written(tmp_path, "csv", [Answers(f"{text}.jpg", (60, 100), [answer(text)])])
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {(row["image"], row["phrase"]) for row in rows} == {(f"'{text}.jpg", f"'{text}")}
    assert float(rows[0]["x1"]) == 20


@given(TEXT)
def test_each_text_is_restored(text):
    assert plain_cell(safe_cell(text)) == text
    assert not safe_cell(text).strip().startswith(("=", "+", "-", "@"))


def test_ordinary_texts_and_numbers_stay():
    for value in ("a cat", "'til dawn", "a=b", "", -1.5, None, "don't"):
        assert safe_cell(value) == value


@of_a_peer
def test_supervision_gets_boxes_and_phrases():
    pytest.importorskip("supervision", reason="supervision is not installed")
    found = answer("a cat").to_supervision(class_id=3)
    np.testing.assert_array_equal(found.xyxy, answer("a cat").boxes)
    assert found.data["class_name"].tolist() == ["a cat"] * 2 and found.confidence.tolist() == [0.5, 0.2]
    assert found.class_id.tolist() == [3, 3]
    assert len(answer("a cat").to_supervision(boxes=1)) == 1
    assert len(UNKNOWN.to_supervision()) == 0


def test_without_supervision_the_package_is_named(monkeypatch):
    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr("grounding.answers.import_module", missing)
    with pytest.raises(InputError, match="to_supervision needs the package supervision: pip install supervision"):
        answer("a cat").to_supervision()
