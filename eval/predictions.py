"""The file format of predictions, of our own answers or of another system: one JSON object per line and phrase.

    {"image": "36979", "sentence": 0, "phrase": 1, "boxes": [[x1, y1, x2, y2], ...], "scores": [...]}

Boxes are inclusive xyxy in pixels from 0, best first. They are evaluated as they are, without NMS, clipping or sorting,
and may extend beyond the image. ``phrase`` is the index among all marked phrases of the caption, from 0, including
those without a box.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from eval.box_formats import LARGEST
from grounding.runtime.artefacts import write_json_lines
from grounding.text.lines import decode
from proposals.errors import InputError

Place = tuple[str, int, int]  # image, sentence, phrase

MAX_LINE = 1 << 24  # characters; 500 boxes take about 30,000


@dataclass(frozen=True, eq=False)
class Prediction:
    """The prediction for one phrase.

    Attributes:
        place: (image, sentence, phrase).
        boxes: ``(K, 4)`` float64, inclusive xyxy, best first, finite.
        scores: ``(K,)`` float64, finite.
    """

    place: Place
    boxes: np.ndarray
    scores: np.ndarray

    def as_record(self) -> dict:
        """The object of its line; boxes are rounded to a hundredth of a pixel."""
        image, sentence, phrase = self.place
        boxes, scores = self.boxes.round(2).tolist(), self.scores.tolist()
        return {"image": image, "sentence": sentence, "phrase": phrase, "boxes": boxes, "scores": scores}


def write_predictions(path: str | Path, predictions: Iterable[Prediction]) -> None:
    """Writes a file of predictions. The file appears only when it is complete.

    Args:
        path: the file.
        predictions: one for each phrase.
    """
    write_json_lines(path, (prediction.as_record() for prediction in predictions))


def read_predictions(path: str | Path) -> Iterator[Prediction]:
    """Reads a file of predictions, one line at a time.

    Args:
        path: the file.

    Yields:
        The prediction of each line.

    Raises:
        InputError: the file cannot be read, a line is malformed, or a phrase is predicted twice. The message has the
            number of the line.
    """
    seen: dict[Place, int] = {}
    try:
        with Path(path).open(encoding="utf-8-sig") as file:
            for number, line in enumerate(iter(lambda: file.readline(MAX_LINE), ""), 1):
                if not line.strip():
                    continue
                try:
                    prediction = _parse(line)
                except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
                    raise InputError(f"{path}:{number}: {_reason(error)}") from error
                first = seen.setdefault(prediction.place, number)
                if first != number:
                    raise InputError(f"{path}:{number}: {prediction.place} is already in line {first}: keep one")
                yield prediction
    except OSError as error:
        raise InputError(f"{path} cannot be read as lines of text ({error})") from error
    except UnicodeDecodeError:
        decode(Path(path).read_bytes(), path)  # its message names the encoding
        raise


def _parse(line: str) -> Prediction:
    if line.lstrip().startswith("["):
        raise ValueError("a JSON array: write one JSON object per line")
    record = json.loads(line)
    if not isinstance(record, dict):
        raise ValueError("a line must be a JSON object")  # noqa: TRY004, the caller handles ValueError
    image, sentence, phrase = record["image"], record["sentence"], record["phrase"]
    if not isinstance(image, str) or not all(type(n) is int and n >= 0 for n in (sentence, phrase)):
        raise ValueError("image must be a string, sentence and phrase must be whole numbers from 0")
    boxes, scores = (np.asarray(record[name]) for name in ("boxes", "scores"))
    if not boxes.size and not scores.size:
        return Prediction((image, sentence, phrase), np.zeros((0, 4)), np.zeros(0))
    if boxes.ndim != 2 or boxes.shape != (len(boxes), 4) or scores.shape != (len(boxes),):
        raise ValueError(
            f"boxes {boxes.shape} must be a list of N boxes of 4 numbers, scores {scores.shape} a list of N numbers"
        )
    if any(array.dtype.kind not in "iuf" or not np.isfinite(array).all() for array in (boxes, scores)):
        raise ValueError("boxes and scores must be finite numbers")
    if boxes.size and np.abs(boxes).max() > LARGEST:
        raise ValueError(f"boxes must be pixels, at most {LARGEST:.0e}")
    return Prediction((image, sentence, phrase), boxes.astype(float), scores.astype(float))


def _reason(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"{error} is missing: a line needs image, sentence, phrase, boxes and scores"
    return " ".join(str(error).split()) or type(error).__name__
