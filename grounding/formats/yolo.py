"""Answers as the text files of YOLO."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import yaml

from grounding.answers import Answers
from grounding.formats.archives import label_archive
from grounding.formats.shown import shown_boxes

PHOTOS, LABELS = "images/", "labels/"  # YOLO's programs replace the one by the other in the path of an image


def write_yolo(path: str | Path, batch: Iterable[Answers], boxes: int = 1) -> None:
    """Writes a zip file with a text file of YOLO for each image, and ``data.yaml`` with the names of the classes.

    A class is a phrase. See :func:`grounding.formats.shown.shown_boxes` for the phrases that have no box. An image
    without a box has an empty file: it is an example of the background. Memory does not grow with the number of images.

    Args:
        path: the path of the zip file. It has ``labels/NAME.txt`` for the image ``NAME.jpg``, whose place is
            ``images/NAME.jpg``.
        batch: the answers about each image.
        boxes: the largest number of boxes of a phrase.

    Raises:
        InputError: the file cannot be written, or two images differ in their ending only.
    """
    classes: dict[str, int] = {}
    with label_archive(path) as archive:
        for answers in batch:
            for answer in answers.groundings:
                classes.setdefault(answer.phrase.text, len(classes))
            archive.write_for(answers.image, LABELS, ".txt", yolo_lines(answers, classes, boxes))
        names = {number: text for text, number in classes.items()}
        data = {"path": ".", "train": PHOTOS.rstrip("/"), "val": PHOTOS.rstrip("/"), "names": names}
        archive.write("data.yaml", yaml.safe_dump(data, allow_unicode=True, sort_keys=False, width=1 << 16))


def yolo_lines(answers: Answers, classes: Mapping[str, int], boxes: int = 1) -> str:
    """Converts the answers about one image to the lines of a YOLO file.

    Args:
        answers: the answers about the image.
        classes: the number of the class of each phrase, from 0.
        boxes: the largest number of boxes of a phrase.

    Returns:
        A line for each box: the class, then x and y of the centre, width and height, as shares of the image's width and
        height, 0 to 1.
    """
    height, width = answers.size
    lines = []
    for phrase, (x1, y1, x2, y2), _, _ in shown_boxes(answers, boxes):
        place = ((x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height)
        lines.append(" ".join([str(classes[phrase]), *(f"{value:.6f}" for value in place)]) + "\n")
    return "".join(lines)
