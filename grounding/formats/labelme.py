"""Answers as files of LabelMe."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from grounding.answers import Answers
from grounding.formats.archives import label_archive
from grounding.formats.shown import shown_boxes

VERSION = "5.0.0"  # the version of LabelMe that wrote this layout first


def write_labelme(path: str | Path, batch: Iterable[Answers], boxes: int = 1) -> None:
    """Writes a zip file with a JSON file of LabelMe for each image, to be unpacked beside the images.

    A shape is a rectangle with the phrase as label, two corners in pixels, and score and presence as description.
    See :func:`grounding.formats.shown.shown_boxes` for the phrases that have none. Memory does not grow with the number
    of images.

    Args:
        path: the path of the zip file. It has ``NAME.json`` for the image ``NAME.jpg``.
        batch: the answers about each image.
        boxes: the largest number of boxes of a phrase.

    Raises:
        InputError: the file cannot be written, or two images differ in their ending only.
    """
    with label_archive(path) as archive:
        for answers in batch:
            text = json.dumps(labelme_record(answers, boxes), indent=1, ensure_ascii=False)
            archive.write_for(answers.image, "", ".json", text)


def labelme_record(answers: Answers, boxes: int = 1) -> dict[str, Any]:
    """Converts the answers about one image to the record of a LabelMe file.

    Args:
        answers: the answers about the image.
        boxes: the largest number of boxes of a phrase.

    Returns:
        Values that ``json`` can encode.
    """
    height, width = map(int, answers.size)
    shapes = []
    for phrase, (x1, y1, x2, y2), score, presence in shown_boxes(answers, boxes):
        known = "" if presence is None else f", presence {presence:.3f}"
        shape = {"label": phrase, "points": [[x1, y1], [x2, y2]], "group_id": None}
        shapes.append(shape | {"description": f"score {score:.3f}{known}", "shape_type": "rectangle", "flags": {}})
    # LabelMe looks for the image in the folder of the file
    place = {"imagePath": answers.image.rpartition("/")[2], "imageData": None}
    return {
        "version": VERSION,
        "flags": {},
        "shapes": shapes,
        **place,
        "imageHeight": height,
        "imageWidth": width,
    }
