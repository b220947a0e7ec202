"""Compares a file of predictions with the ground truth, and refuses files that would be judged wrongly."""

import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
from tqdm import tqdm

from eval.box_formats import BoxFormat
from eval.flickr30k import Entity, EntityImage
from eval.phrase_results import PhraseResult
from eval.phrase_truth import PhrasePhoto, Place
from eval.predictions import ENTITIES, PlaceFormat, Prediction, read_predictions
from eval.protocol import OURS, Protocol
from grounding.runtime.ledger import Ledger
from proposals.errors import InputError

log = logging.getLogger(__name__)

SKIPPED = "skipped_predictions.jsonl"
UNKNOWN = "of phrases that the split does not have"
KEPT = "kept"

Result = TypeVar("Result", bound=PhraseResult)


@dataclass(frozen=True)
class Judge(Generic[Result]):
    """What depends on the data set when predictions are compared.

    Attributes:
        form: how the lines of the file name their phrases.
        unanswered: makes the result of a photo's phrase without an answer.
        compare: adds a prediction to the result of a photo's phrase.
        other: is called with a prediction of a phrase without a box: ``KEPT`` if it is used, the reason for leaving it
            out if the data set has this phrase, None if it is unknown.
    """

    form: PlaceFormat
    unanswered: Callable[[Any, Any], Result]
    compare: Callable[[Result, Any, Any, Prediction], object]
    other: Callable[[Prediction], str | None]


class PredictionResults(NamedTuple, Generic[Result]):
    """The result of every phrase, from a file of predictions.

    Attributes:
        phrases: the results.
        unknown: the places of predictions whose phrase is not in the split.
        missing: the places of phrases without a prediction. They are misses.
        ledger: counts the predictions.
    """

    phrases: list[Result]
    unknown: list[Place]
    missing: list[Place]
    ledger: Ledger


def entities_judge(images: Sequence[EntityImage], protocol: Protocol = OURS) -> Judge[PhraseResult]:
    """Compares predictions for Flickr30k Entities.

    Args:
        images: the photos and their phrases.
        protocol: which boxes are judged.
    """
    of_image = {image.id: image for image in images}

    def compare(result: PhraseResult, _: EntityImage, entity: Entity, prediction: Prediction) -> None:
        result.compare(entity, prediction.boxes, prediction.scores, protocol)

    def other(prediction: Prediction) -> str | None:
        return "of phrases without a box" if _is_marked(prediction.place, of_image) else None

    return Judge(ENTITIES, PhraseResult.unanswered, compare, other)


def compare_predictions(
    images: Sequence[PhrasePhoto],
    path: str,
    judge: Judge[Result],
    partial: bool = False,
    others: Collection[str] = (),
) -> PredictionResults[Result]:
    """Compares a file of predictions with the ground truth.

    Args:
        images: the photos and their phrases.
        path: the file, see ``eval.predictions``.
        judge: what depends on the data set, such as :func:`entities_judge`.
        partial: whether the file may lack phrases.
        others: names of all photos of the split; predictions of those that are not evaluated are left out.

    Raises:
        InputError: a line is malformed, a phrase is predicted twice or has no prediction, no prediction is of the
            split, or the boxes are not x1 y1 x2 y2 in pixels.
    """
    known = {e.place(i.id): (judge.unanswered(i, e), e) for i in images for e in i.entities}
    of_image = {image.id: image for image in images}
    missing, unknown = dict.fromkeys(known), []
    ledger, boxes = Ledger("predictions"), BoxFormat(path)
    for prediction in tqdm(read_predictions(path, judge.form), "predictions", unit="phrase", disable=None):
        place = prediction.place
        ledger.came_in(place)
        if place in known:
            result, entity = known[place]
            boxes.add(prediction.boxes, prediction.boxes, of_image[place[0]].size)
            judge.compare(result, of_image[place[0]], entity, prediction)
            result.boxes = np.zeros((0, 4))  # saves memory: a file may have a million boxes
            missing.pop(place)
            ledger.keep()
        elif (reason := judge.other(prediction)) is not None:
            ledger.keep() if reason == KEPT else ledger.skip(place, reason)
        elif place[0] in others and place[0] not in of_image:
            ledger.skip(place, "of other photos")
        else:
            _check_name(place[0], {*of_image, *others}, path)
            unknown.append(place)
            ledger.skip(place, UNKNOWN)
    _check_kept(ledger, path, list(known), judge.form)
    boxes.check_fractions("x1, y1, x2, y2")
    boxes.check_corners()
    boxes.warn_leaving()
    _check_missing(list(missing), len(known), path, partial)
    ledger.check()
    return PredictionResults([result for result, _ in known.values()], unknown, list(missing), ledger)


def _is_marked(place: Any, images: dict[str, EntityImage]) -> bool:
    image, sentence, phrase = place
    counts = images[image].marked if image in images else ()
    return sentence < len(counts) and phrase < counts[sentence]


def _check_name(image: str, names: Collection[str], path: str) -> None:
    """Refuses the name of a file, if its id is a photo of the split."""
    file = PurePosixPath(image.replace("\\", "/"))
    for name in (file.name, file.stem):
        if image not in names and name in names:
            raise InputError(
                f"{path}: the image {image!r} must be a photo id, without folder and suffix: write {name!r}"
            )


def _check_kept(ledger: Ledger, path: str, wanted: Sequence[Place], form: PlaceFormat) -> None:
    if not ledger.came:
        raise InputError(f"{path} has no predictions: write one JSON object per line and phrase")
    if not ledger.kept:
        wants = f", the split has {wanted[0]}" if wanted else ""
        raise InputError(
            f"{path}: none of its {ledger.came:,} predictions is of a phrase of this split; the file has "
            f"{ledger.expected[0]}{wants} ({', '.join(form.names)}): set data.split, or write these names"
        )


def _check_missing(missing: Sequence[Place], phrases: int, path: str, partial: bool) -> None:
    if missing and not partial:
        raise InputError(
            f"{path} has no prediction for {len(missing):,} of {phrases:,} phrases, for example {missing[0]}: add "
            "them, with boxes [] where nothing was found, or set step.partial_predictions=true to count them as misses"
        )
    if missing:
        log.warning("%d of %d phrases have no prediction, and are misses", len(missing), phrases)
