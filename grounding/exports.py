"""Answers as files that other programs read: JSON, JSON lines, CSV, COCO.

A phrase stands in each of them as it was asked, character by character; one that is not groundable stands there without
a box.
"""

import csv
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from grounding.answers import Answers, Grounding
from grounding.runtime.artefacts import atomic_path, write_json, write_json_lines
from grounding.runtime.version import VERSION
from proposals.errors import InputError

BOXES = 10  # of a phrase, in a record
COLUMNS = ("image", "phrase", "groundable", "rank", "x1", "y1", "x2", "y2", "score", "tags", "skipped")
Record = dict[str, Any]


def as_record(answer: Grounding, boxes: int = BOXES) -> Record:
    """An answer as plain values: its best boxes as half-open xyxy in pixels of the image."""
    return {
        "phrase": answer.phrase.text,
        "groundable": answer.groundable,
        "tags": list(answer.phrase.tags),
        "skipped": list(answer.phrase.skipped),
        "boxes": answer.boxes[:boxes].round(2).tolist(),
        "scores": answer.scores[:boxes].tolist(),
    }


def image_record(answers: Answers, boxes: int = BOXES) -> Record:
    """The answers about one image as plain values: its name, (height, width), and a record a phrase."""
    groundings = [as_record(answer, boxes) for answer in answers.groundings]
    return {"image": answers.image, "size": list(answers.size), "groundings": groundings}


def csv_rows(answers: Answers, boxes: int = BOXES) -> Iterator[tuple[object, ...]]:
    """The cells of ``COLUMNS``: a row a box, ranked from 1; one row without a box for a phrase not groundable.

    Tags and skipped words are JSON lists in their cells, for a tag may hold any sign that would part them.
    """
    for answer in answers.groundings:
        head = (answers.image, answer.phrase.text, str(answer.groundable).lower())
        tail = [json.dumps(words, ensure_ascii=False) for words in (answer.phrase.tags, answer.phrase.skipped)]
        if not answer.groundable:
            yield (*head, *[""] * 6, *tail)
        for rank, (box, score) in enumerate(zip(answer.boxes[:boxes], answer.scores[:boxes], strict=True), 1):
            yield (*head, rank, *box.round(2).tolist(), float(score), *tail)


def as_coco(answered: Iterable[Answers], boxes: int = 1) -> Record:
    """A data set in COCO's detection format, which pycocotools, FiftyOne and CVAT load.

    A category is a distinct phrase, an annotation one of its boxes on an image: xywh in pixels, its area, its score, no
    segmentation. The list of annotations is a list of results, too: ``COCO.loadRes`` takes it. What is not groundable
    has no annotation and is listed under "not_groundable", which the readers leave alone.

    Args:
        answered: of each image, under the name that its file has there; a phrase asked twice of one image counts once.
        boxes: of a phrase, at most: annotators correct one, judges rank many.
    """
    categories: dict[str, int] = {}
    images: list[Record] = []
    annotations: list[Record] = []
    nothing: list[Record] = []
    for number, answers in enumerate(answered, 1):
        height, width = answers.size
        images.append({"id": number, "file_name": answers.image, "width": int(width), "height": int(height)})
        for text, answer in {answer.phrase.text: answer for answer in answers.groundings}.items():
            place = {"image_id": number, "category_id": categories.setdefault(text, len(categories) + 1)}
            if not answer.groundable:
                nothing.append(place | {"phrase": text, "skipped": list(answer.phrase.skipped)})
            annotations += [place | annotation for annotation in _annotations(answer, boxes)]
    return {
        "info": {"description": "phrases and where they are, found by grounding", "version": VERSION},
        "licenses": [],
        "images": images,
        "categories": [{"id": i, "name": text, "supercategory": "phrase"} for text, i in categories.items()],
        "annotations": [{"id": i} | annotation for i, annotation in enumerate(annotations, 1)],
        "not_groundable": nothing,
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
        }


def write_records(path: str | Path, answered: Iterable[Answers], boxes: int = BOXES) -> None:
    """JSON: the record of the one image, or a list of such; all of them are held until the last is there.

    Raises:
        InputError: the file cannot be written.
    """
    records = [image_record(answers, boxes) for answers in answered]
    write_json(path, records[0] if len(records) == 1 else records)


def write_lines(path: str | Path, answered: Iterable[Answers], boxes: int = BOXES) -> None:
    """JSON lines: an image's record a line, as they come, so that memory does not grow with the images.

    Raises:
        InputError: the file cannot be written.
    """
    write_json_lines(path, (image_record(answers, boxes) for answers in answered))


def write_csv(path: str | Path, answered: Iterable[Answers], boxes: int = BOXES) -> None:
    """CSV (RFC 4180, UTF-8) of ``COLUMNS``, a row a box, as they come, so that memory does not grow with the images.

    Raises:
        InputError: the file cannot be written.
    """
    # the name of a file may hold bytes that are no text
    with (
        atomic_path(path) as aside,
        aside.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for answers in answered:
            writer.writerows(csv_rows(answers, boxes))


def write_coco(path: str | Path, answered: Iterable[Answers], boxes: int = 1) -> None:
    """COCO's JSON, see :func:`as_coco`; its annotations are held until the last image is there.

    Raises:
        InputError: the file cannot be written.
    """
    write_json(path, as_coco(answered, boxes))


class Format(NamedTuple):
    """How answers are written.

    Attributes:
        file: its name; write: what writes it; boxes: how many of a phrase it usually holds.
        relative: whether images are named from their folder, by which its readers find them.
    """

    file: str
    write: Callable[[str | Path, Iterable[Answers], int], None]
    boxes: int = BOXES
    relative: bool = False


FORMATS = {
    "json": Format("groundings.json", write_records),
    "jsonl": Format("groundings.jsonl", write_lines),
    "csv": Format("groundings.csv", write_csv),
    "coco": Format("coco.json", write_coco, 1, True),
}


def write_map(path: str | Path, answer: Grounding) -> None:
    """``.npy``: ``answer.heatmap``, (H, W) float64 at the image's own pixels, the map's mass kept; nothing is pickled.

    Args:
        answer: to a groundable phrase.

    Raises:
        InputError: the phrase is not groundable, or the file cannot be written.
    """
    if answer.heatmap is None:
        raise InputError(f"{answer.phrase.text!r} is not groundable: it has no map")
    with atomic_path(path) as aside, aside.open("wb") as file:
        np.save(file, answer.heatmap, allow_pickle=False)
