"""Answers as tasks of Label Studio, whose predictions annotators correct."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from grounding.answers import Answers
from grounding.formats.shown import shown_boxes
from grounding.runtime.artefacts import write_json
from grounding.runtime.version import VERSION

IMAGE, LABEL = "image", "label"  # the names of the image and the labels in the labelling configuration


def write_label_studio(path: str | Path, batch: Iterable[Answers], boxes: int = 1) -> None:
    """Writes the tasks of Label Studio, see :func:`as_label_studio`. They are kept in memory until the last image.

    Args:
        path: the path of the file.
        batch: the answers about each image.
        boxes: the largest number of boxes of a phrase.

    Raises:
        InputError: the file cannot be written.
    """
    write_json(path, as_label_studio(batch, boxes))


def as_label_studio(batch: Iterable[Answers], boxes: int = 1) -> list[dict[str, Any]]:
    """Converts answers to tasks with predictions, in the JSON that Label Studio imports.

    The labelling configuration needs an ``Image`` named "image" with the value "$image", and ``RectangleLabels`` named
    "label" with the phrases as labels. See :func:`grounding.formats.shown.shown_boxes` for the phrases without a box.

    Args:
        batch: the answers about each image.
        boxes: the largest number of boxes of a phrase.

    Returns:
        A task for each image. ``data.image`` is the image's name, which becomes the address at which Label Studio finds
        the image. The boxes of a prediction are in percent of the image; its score is the mean of theirs.
    """
    tasks = []
    for answers in batch:
        regions = list(_regions(answers, boxes))
        prediction: dict[str, Any] = {"model_version": f"grounding {VERSION}", "result": regions}
        if regions:
            prediction["score"] = sum(region["score"] for region in regions) / len(regions)
        tasks.append({"data": {IMAGE: answers.image}, "predictions": [prediction]})
    return tasks


def _regions(answers: Answers, boxes: int) -> Iterator[dict[str, Any]]:
    height, width = map(int, answers.size)
    for number, (phrase, (x1, y1, x2, y2), score, _) in enumerate(shown_boxes(answers, boxes), 1):
        place = {"x": x1 / width, "y": y1 / height, "width": (x2 - x1) / width, "height": (y2 - y1) / height}
        yield {
            "id": f"box{number}",
            "type": "rectanglelabels",
            "from_name": LABEL,
            "to_name": IMAGE,
            "original_width": width,
            "original_height": height,
            "image_rotation": 0,
            "score": score,
            "value": {name: round(100 * share, 4) for name, share in place.items()}
            | {"rotation": 0, "rectanglelabels": [phrase]},
        }
