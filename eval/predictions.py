"""The file format of predictions, of our own answers or of another system: one JSON object per line and phrase.

    {"image": "36979", "sentence": 0, "phrase": 1, "boxes": [[x1, y1, x2, y2], ...], "scores": [...]}
    {"image": "000000000139", "phrase": "tv", "boxes": [...], "scores": [...], "presence": 0.9, "point": [x, y]}

The first line is of Flickr30k Entities, where ``phrase`` is the index among all marked phrases of the caption, from 0,
including those without a box. The second one is of COCO or VOC, where ``phrase`` is the name of a category.

Boxes are inclusive xyxy in pixels from 0, best first. They are evaluated as they are, without NMS, clipping or sorting,
and may extend beyond the image. ``presence`` is the probability that the photo shows the category, ``point`` the pixel
that the system points at. Both may be left out, or null.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from eval.box_formats import LARGEST
from eval.phrase_truth import Place
from grounding.runtime.artefacts import write_json_lines
from grounding.text.lines import decode
from proposals.errors import InputError

MAX_LINE = 1 << 24  # characters; 500 boxes take about 30,000


@dataclass(frozen=True)
class PlaceFormat:
    """How the lines of a file name their phrases.

    Attributes:
        names: the keys of a line that name the phrase, "image" first.
        parse: makes a place of their values. Raises a ValueError if they are malformed.
        answers: whether a line may have a presence and a point.
    """

    names: tuple[str, ...]
    parse: Callable[..., Place]
    answers: bool = False

    def record(self, place: Place) -> dict:
        """The keys of a phrase's line that name the phrase.

        Args:
            place: the phrase.
        """
        return dict(zip(self.names, place, strict=True))


def _entity_place(image: object, sentence: object, phrase: object) -> Place:
    if isinstance(image, str) and type(sentence) is int and type(phrase) is int and min(sentence, phrase) >= 0:
        return image, sentence, phrase
    raise ValueError("image must be a string, sentence and phrase must be whole numbers from 0")


def _category_place(image: object, phrase: object) -> Place:
    if isinstance(image, str) and isinstance(phrase, str):
        return image, phrase
    raise ValueError("image must be a string, phrase must be the name of a category")


ENTITIES = PlaceFormat(("image", "sentence", "phrase"), _entity_place)
CATEGORIES = PlaceFormat(("image", "phrase"), _category_place, answers=True)


@dataclass(frozen=True, eq=False)
class Prediction:
    """The prediction for one phrase.

    Attributes:
        place: (image, sentence, phrase), or (image, category).
        boxes: ``(K, 4)`` float64, inclusive xyxy, best first, finite.
        scores: ``(K,)`` float64, finite.
        presence: probability that the photo shows the category; None if it is unknown.
        point: (x, y) in pixels from 0; None for none.
    """

    place: Place
    boxes: np.ndarray
    scores: np.ndarray
    presence: float | None = None
    point: tuple[float, float] | None = None

    def as_record(self) -> dict:
        """The object of its line; boxes are rounded to a hundredth of a pixel."""
        form = ENTITIES if len(self.place) == len(ENTITIES.names) else CATEGORIES
        record = form.record(self.place) | {"boxes": self.boxes.round(2).tolist(), "scores": self.scores.tolist()}
        if not form.answers:
            return record
        return record | {"presence": self.presence, "point": None if self.point is None else list(self.point)}


def write_predictions(path: str | Path, predictions: Iterable[Prediction]) -> None:
    """Writes a file of predictions. The file appears only when it is complete.

    Args:
        path: the file.
        predictions: one for each phrase.
    """
    write_json_lines(path, (prediction.as_record() for prediction in predictions))


def read_predictions(path: str | Path, form: PlaceFormat = ENTITIES) -> Iterator[Prediction]:
    """Reads a file of predictions, one line at a time.

    Args:
        path: the file.
        form: how the lines name their phrases.

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
                    prediction = _parse(line, form)
                except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
                    raise InputError(f"{path}:{number}: {_reason(error, form)}") from error
                first = seen.setdefault(prediction.place, number)
                if first != number:
                    raise InputError(f"{path}:{number}: {prediction.place} is already in line {first}: keep one")
                yield prediction
    except OSError as error:
        raise InputError(f"{path} cannot be read as lines of text ({error})") from error
    except UnicodeDecodeError:
        decode(Path(path).read_bytes(), path)  # its message names the encoding
        raise


def _parse(line: str, form: PlaceFormat) -> Prediction:
    if line.lstrip().startswith("["):
        raise ValueError("a JSON array: write one JSON object per line")
    record = json.loads(line)
    if not isinstance(record, dict):
        raise ValueError("a line must be a JSON object")  # noqa: TRY004, the caller handles ValueError
    place = form.parse(*(record[name] for name in form.names))
    answers = (_presence(record.get("presence")), _point(record.get("point"))) if form.answers else ()
    boxes, scores = (np.asarray(record[name]) for name in ("boxes", "scores"))
    if not boxes.size and not scores.size:
        return Prediction(place, np.zeros((0, 4)), np.zeros(0), *answers)
    if boxes.ndim != 2 or boxes.shape != (len(boxes), 4) or scores.shape != (len(boxes),):
        raise ValueError(
            f"boxes {boxes.shape} must be a list of N boxes of 4 numbers, scores {scores.shape} a list of N numbers"
        )
    if any(array.dtype.kind not in "iuf" or not np.isfinite(array).all() for array in (boxes, scores)):
        raise ValueError("boxes and scores must be finite numbers")
    if boxes.size and np.abs(boxes).max() > LARGEST:
        raise ValueError(f"boxes must be pixels, at most {LARGEST:.0e}")
    return Prediction(place, boxes.astype(float), scores.astype(float), *answers)


def _presence(value: object) -> float | None:
    if value is None or (type(value) in (int, float) and 0 <= value <= 1):  # not for NaN
        return None if value is None else float(value)
    raise ValueError(f"presence must be a probability from 0 to 1, or null, but is {value!r}")


def _point(value: object) -> tuple[float, float] | None:
    if value is None:
        return None
    if not isinstance(value, list) or len(value) != 2 or not all(type(n) in (int, float) for n in value):
        raise ValueError(f"point must be two numbers [x, y] in pixels, or null, but is {str(value)[:60]}")
    if not all(abs(n) <= LARGEST for n in value):  # not for NaN
        raise ValueError(f"point must be finite pixels, but is {value}")
    return float(value[0]), float(value[1])


def _reason(error: Exception, form: PlaceFormat) -> str:
    if isinstance(error, KeyError):
        return f"{error} is missing: a line needs {', '.join(form.names)}, boxes and scores"
    return " ".join(str(error).split()) or type(error).__name__
