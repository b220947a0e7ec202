"""Writes answers to files that other programs read: JSON, JSON lines, CSV, COCO, NumPy, and ``grounding.formats``.

Every format contains the phrase as it was given; CSV has an apostrophe before those that a spreadsheet would
calculate. A phrase that is not groundable has no box. What is probably not in the photo (``present`` is False) has its
boxes in JSON and CSV only; COCO lists the phrase.
"""

import csv
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from grounding.answers import Answers, Grounding
from grounding.formats.archives import check_stems
from grounding.formats.label_studio import write_label_studio
from grounding.formats.labelme import write_labelme
from grounding.formats.yolo import write_yolo
from grounding.runtime.artefacts import atomic_path, write_json, write_json_lines
from grounding.runtime.cells import safe_cell
from grounding.runtime.version import VERSION
from proposals.errors import InputError

BOXES = 10  # of each phrase, by default
COLUMNS = (
    "image", "phrase", "groundable", "rank", "x1", "y1", "x2", "y2", "score", "tags", "skipped", "read_as", "presence",
    "present",
)  # fmt: skip
Record = dict[str, Any]


def as_record(answer: Grounding, boxes: int = BOXES) -> Record:
    """Converts an answer to values that ``json`` can encode.

    Args:
        answer: the answer.
        boxes: the largest number of boxes.

    Returns:
        The phrase, its tags and skipped words, how its words were read, its presence (None if unknown), the best boxes
        (xyxy, half-open, in pixels of the image) and their scores.
    """
    return {
        "phrase": answer.phrase.text,
        "groundable": answer.groundable,
        "tags": list(answer.phrase.tags),
        "skipped": list(answer.phrase.skipped),
        "read_as": answer.phrase.read_as,
        "presence": None if answer.presence is None else float(answer.presence),
        "present": None if answer.present is None else bool(answer.present),
        "boxes": answer.boxes[:boxes].round(2).tolist(),
        "scores": answer.scores[:boxes].tolist(),
    }


def image_record(answers: Answers, boxes: int = BOXES) -> Record:
    """Converts the answers about one image to values that ``json`` can encode.

    Args:
        answers: the answers about the image.
        boxes: the largest number of boxes of a phrase.

    Returns:
        The image's name, its size (height, width), and the record of each phrase (see :func:`as_record`).
    """
    groundings = [as_record(answer, boxes) for answer in answers.groundings]
    return {"image": answers.image, "size": list(answers.size), "groundings": groundings}


def csv_rows(answers: Answers, boxes: int = BOXES) -> Iterator[tuple[object, ...]]:
    """Converts the answers about one image to rows of CSV, with the columns ``COLUMNS``.

    Tags and skipped words are JSON lists, because a tag may contain any character that could separate them.
    Presence is empty if it is unknown.

    Args:
        answers: the answers about the image.
        boxes: the largest number of boxes of a phrase.

    Yields:
        One row for each box, with its rank from 1; one row without a box for a phrase that is not groundable.
    """
    for answer in answers.groundings:
        phrase, presence = answer.phrase, ("" if answer.presence is None else float(answer.presence))
        head = (answers.image, phrase.text, str(answer.groundable).lower())
        lists = [json.dumps(words, ensure_ascii=False) for words in (phrase.tags, phrase.skipped)]
        tail = (*lists, phrase.read_as, presence, "" if answer.present is None else str(bool(answer.present)).lower())
        if not answer.groundable:
            yield (*head, *[""] * 6, *tail)
        for rank, (box, score) in enumerate(zip(answer.boxes[:boxes], answer.scores[:boxes], strict=True), 1):
            yield (*head, rank, *box.round(2).tolist(), float(score), *tail)


def as_coco(batch: Iterable[Answers], boxes: int = 1) -> Record:
    """Converts answers to a data set in COCO's detection format, which pycocotools, FiftyOne and CVAT read.

    Each distinct phrase is a category. Each of its boxes on an image is an annotation with a box (xywh in pixels), an
    area and a score, without a segmentation, and the answer's presence if it is known. ``COCO.loadRes`` accepts the
    list of annotations as results, too. Phrases that are not groundable have no annotation; they are listed under
    "not_groundable", which readers ignore. Nor have phrases that the photo probably does not show, because a detector
    that is trained on such boxes learns wrong ones; they are listed under "probably_absent".

    Args:
        batch: the answers about each image. If a phrase occurs twice for one image, the last answer is used.
        boxes: the largest number of boxes of a phrase. Annotators correct one box, evaluations rank many.

    Returns:
        The data set.
    """
    categories: dict[str, int] = {}
    images: list[Record] = []
    annotations: list[Record] = []
    not_groundable: list[Record] = []
    probably_absent: list[Record] = []
    for number, answers in enumerate(batch, 1):
        height, width = answers.size
        images.append({"id": number, "file_name": answers.image, "width": int(width), "height": int(height)})
        for text, answer in {answer.phrase.text: answer for answer in answers.groundings}.items():
            place = {"image_id": number, "category_id": categories.setdefault(text, len(categories) + 1)}
            if not answer.groundable:
                not_groundable.append(place | {"phrase": text, "skipped": list(answer.phrase.skipped)})
            if answer.absent:
                probably_absent.append(place | {"phrase": text} | _presence(answer))
            else:
                annotations += [place | annotation for annotation in _annotations(answer, boxes)]
    return {
        "info": {"description": "phrases and where they are, found by grounding", "version": VERSION},
        "licenses": [],
        "images": images,
        "categories": [{"id": i, "name": text, "supercategory": "phrase"} for text, i in categories.items()],
        "annotations": [{"id": i} | annotation for i, annotation in enumerate(annotations, 1)],
        "not_groundable": not_groundable,
        "probably_absent": probably_absent,
    }


def _annotations(answer: Grounding, boxes: int) -> Iterator[Record]:
    for (x1, y1, x2, y2), score in zip(answer.boxes[:boxes].round(2).tolist(), answer.scores[:boxes], strict=True):
        width, height = round(x2 - x1, 2), round(y2 - y1, 2)
        yield {
            "bbox": [x1, y1, width, height],
            "area": round(width * height, 2),
            "iscrowd": 0,
            "segmentation": [],
            "score": float(score),
        } | _presence(answer)


def _presence(answer: Grounding) -> Record:
    return {} if answer.presence is None else {"presence": float(answer.presence)}


def write_records(path: str | Path, batch: Iterable[Answers], boxes: int = BOXES) -> None:
    """Writes JSON: the record of one image, or a list of records. All answers are kept in memory until the last.

    Args:
        path: the path of the file.
        batch: the answers about each image.
        boxes: the largest number of boxes of a phrase.

    Raises:
        InputError: the file cannot be written.
    """
    records = [image_record(answers, boxes) for answers in batch]
    write_json(path, records[0] if len(records) == 1 else records)


def write_lines(path: str | Path, batch: Iterable[Answers], boxes: int = BOXES) -> None:
    """Writes JSON lines, one line per image. Memory does not grow with the number of images.

    Args:
        path: the path of the file.
        batch: the answers about each image.
        boxes: the largest number of boxes of a phrase.

    Raises:
        InputError: the file cannot be written.
    """
    write_json_lines(path, (image_record(answers, boxes) for answers in batch))


def write_csv(path: str | Path, batch: Iterable[Answers], boxes: int = BOXES) -> None:
    """Writes CSV (RFC 4180, UTF-8), see :func:`csv_rows`. Memory does not grow with the number of images.

    No text is a formula for a spreadsheet, see :func:`grounding.runtime.cells.safe_cell`.

    Args:
        path: the path of the file.
        batch: the answers about each image.
        boxes: the largest number of boxes of a phrase.

    Raises:
        InputError: the file cannot be written.
    """
    # "backslashreplace": a file name may contain bytes that are not text
    with (
        atomic_path(path) as temporary,
        temporary.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for answers in batch:
            writer.writerows(map(safe_cell, row) for row in csv_rows(answers, boxes))


def write_coco(path: str | Path, batch: Iterable[Answers], boxes: int = 1) -> None:
    """Writes COCO's JSON, see :func:`as_coco`. All annotations are kept in memory until the last image.

    Args:
        path: the path of the file.
        batch: the answers about each image.
        boxes: the largest number of boxes of a phrase.

    Raises:
        InputError: the file cannot be written.
    """
    write_json(path, as_coco(batch, boxes))


class Format(NamedTuple):
    """A file format for answers.

    Attributes:
        file: the name of the file.
        write: writes the file.
        boxes: the default for the largest number of boxes of a phrase.
        relative: whether images are named relative to their folder, where readers of the format look for them.
        omits_absent: whether the boxes of what is probably not in the photo are left out.
        check: refuses names of images that the format cannot hold; None if it holds all.
    """

    file: str
    write: Callable[[str | Path, Iterable[Answers], int], None]
    boxes: int = BOXES
    relative: bool = False
    omits_absent: bool = False
    check: Callable[[Iterable[str]], None] | None = None


FORMATS = {
    "json": Format("groundings.json", write_records),
    "jsonl": Format("groundings.jsonl", write_lines),
    "csv": Format("groundings.csv", write_csv),
    "coco": Format("coco.json", write_coco, 1, relative=True, omits_absent=True),
    "label-studio": Format("label-studio.json", write_label_studio, 1, relative=True, omits_absent=True),
    "labelme": Format("labelme.zip", write_labelme, 1, relative=True, omits_absent=True, check=check_stems),
    "yolo": Format("yolo.zip", write_yolo, 1, relative=True, omits_absent=True, check=check_stems),
}


def write_map(path: str | Path, answer: Grounding) -> None:
    """Writes ``answer.heatmap`` as ``.npy``: ``(H, W)`` float64 at the resolution of the image, with the map's mass.

    Args:
        path: the path of the file.
        answer: the answer to a groundable phrase.

    Raises:
        InputError: the phrase is not groundable, or the file cannot be written.
    """
    if answer.heatmap is None:
        raise InputError(f"{answer.phrase.text!r} is not groundable: it has no map")
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.save(file, answer.heatmap, allow_pickle=False)
