"""Evaluates phrases on everyday photos: each category that a photo of COCO or VOC shows is a phrase."""

import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from eval.categories import CategoryImage, CategoryPhotos, CategoryPhrase
from eval.category_metrics import category_metrics
from eval.category_results import CategoryResult, answer_categories, presence_answers, unanswered
from eval.category_table import category_table
from eval.halves import HalfOf, part_record
from eval.photo_reading import UNUSABLE, faulty_names, photo_ledger, read_photos, require_files
from eval.phrase_truth import Place
from eval.prediction_results import KEPT, SKIPPED, Judge, compare_predictions
from eval.predictions import CATEGORIES, Prediction, write_predictions
from eval.presence_metrics import presence_metrics
from eval.scenes import evaluates_here, scenes
from grounding import Grounder
from grounding.runtime.artefacts import write_json, write_json_lines
from grounding.runtime.ledger import Ledger
from grounding.shards.photo_parts import LEASE
from proposals.errors import InputError

log = logging.getLogger(__name__)


def evaluate_categories(
    grounder: Grounder,
    data: CategoryPhotos,
    output: str,
    limit: int | None = None,
    predictions: str | None = None,
    cache: str | None = None,
    partial_predictions: bool = False,
    part: str = "all",
    lease: float = LEASE,
) -> dict:
    """Evaluates every category of every photo; see ``eval.evaluate.evaluate``, whose files this writes, too.

    Args:
        grounder: answers the phrases, unless there are predictions; its setting ``presence`` is the threshold.
        data: the photos and their phrases.
        output: the folder for the results.
        limit: use only the first ``limit`` photos; None for all.
        predictions: a file of predictions to evaluate (see ``eval.predictions``); None for our own answers.
        cache: the folder where maps and proposals are kept between runs; None to keep nothing.
        partial_predictions: whether the file of predictions may lack phrases, which are then misses, and presences,
            which are then 0.
        part: which photos to use: all, even or odd (see ``eval.halves``).
        lease: seconds after which the photos of a process that has died are taken over.

    Returns:
        The metrics; "presence" is None if no answer has a presence.

    Raises:
        InputError: no photo can be used, a prediction is malformed or missing, there is no phrase, or there are several
            ranks and no cache.
    """
    ledger = photo_ledger(data)
    images: list[CategoryImage] = read_photos(HalfOf(data, part), ledger, limit, files=False)
    if predictions is None:
        require_files(images, data.folder)
    if not evaluates_here(grounder, images, predictions, cache, lease):
        return {}
    names = data.names(images)
    metrics: dict = {
        "data": {"root": str(data.photos.root), "split": data.photos.split, "names": len(names)} | part_record(part)
    }
    metrics |= {"images": len(images), "left_out": faulty_names(ledger)}
    metrics |= {"pointed_by_boxes": sum(image.by_boxes for image in images)}
    if predictions is None:
        results, presence, unread = _answer(grounder, images, names, cache, ledger)
        metrics |= grounder.used_settings() | {"skipped_images": unread}
        metrics |= {"proposals": type(grounder.proposer).__name__}
        write_predictions(Path(output, "predictions.jsonl"), _lines(results, presence))
        points = True
    else:
        file = _CategoryFile(images, names, predictions, partial_predictions, set(data.ids))
        results, presence, points = file.results.phrases, file.presence, file.points
        file.results.ledger.finish(output, SKIPPED)
        metrics |= {"predictions": str(predictions), "unknown_predictions": list(map(list, file.results.unknown))}
        metrics |= {"missing_predictions": len(file.results.missing)}
        ledger.kept = len(images)
    ledger.finish(output)
    metrics |= category_metrics(results, own=predictions is None, points=points)
    pairs = presence_answers(images, names, presence)
    metrics |= {"presence_of_names": presence_metrics(pairs, grounder.settings.presence)}
    write_json_lines(Path(output, "phrases.jsonl"), (result.as_record() for result in results))
    write_json(Path(output, "metrics.json"), metrics)
    print(category_table(metrics))
    return metrics


def _answer(
    grounder: Grounder, images: Sequence[CategoryImage], names: Sequence[str], cache: str | None, ledger: Ledger
) -> tuple[list[CategoryResult], dict[Place, float], list[str]]:
    """The result of every phrase, the presence of every name (none without a model), and the photos without use."""
    results: list[CategoryResult] = []
    presence: dict[Place, float | None] = {(image.id, name): None for image in images for name in names}
    unread: list[str] = []

    def skip(name: str, error: str) -> None:
        unread.append(name)
        ledger.skip(name, UNUSABLE, error)

    for image, scene in scenes(grounder, images, cache, skip, without_phrase=True):
        if scene and scene.image.shape[:2] != image.size:
            sizes = [f"{width}x{height}" for height, width in (scene.image.shape[:2], image.size)]
            skip(image.id, f"{image.path} is {sizes[0]}, but its annotation says {sizes[1]}: use the original photo")
        elif scene:
            more, known = answer_categories(scene, image, names)
            results += more
            presence |= known
            continue
        results += unanswered(image)
    ledger.kept = len(images) - len(unread)
    if all(value is None for value in presence.values()):
        return results, {}, unread
    return results, {place: value or 0.0 for place, value in presence.items()}, unread


def _lines(results: Sequence[CategoryResult], presence: Mapping[Place, float]) -> Iterator[Prediction]:
    """Our answers in the format of predictions: the phrases, then the other names, if their presence is known."""
    for r in results:
        yield Prediction(r.place, r.boxes, r.scores, presence.get(r.place), r.point)
    phrases = {result.place for result in results}
    for place, value in presence.items():
        if place not in phrases:
            yield Prediction(place, np.zeros((0, 4)), np.zeros(0), value)


class _CategoryFile:
    """A file of predictions, compared with the ground truth: the results, the presences, and whether it has points."""

    def __init__(
        self,
        images: Sequence[CategoryImage],
        names: Sequence[str],
        path: str,
        partial: bool,
        others: Collection[str],
    ):
        self.presence: dict[Place, float] = {}
        self.points = False
        self._places = {(image.id, name): name in image.undecided for image in images for name in names}
        self._pixels = lru_cache(1)(CategoryImage.cues)  # the lines of a photo follow each other
        judge = Judge(CATEGORIES, self._unanswered, self._compare, self._other)
        self.results = compare_predictions(images, path, judge, partial, others)
        if self.presence:
            self._check_presence(path, partial)

    def _unanswered(self, image: CategoryImage, phrase: CategoryPhrase) -> CategoryResult:
        return CategoryResult.of(image, phrase, self._pixels(image)[phrase.text])

    def _compare(
        self, result: CategoryResult, image: CategoryImage, phrase: CategoryPhrase, prediction: Prediction
    ) -> None:
        result.compare(phrase, prediction.boxes, prediction.scores)
        result.point_at(phrase, self._pixels(image)[phrase.text], prediction.point)
        self.points |= prediction.point is not None
        self._add_presence(prediction)

    def _other(self, prediction: Prediction) -> str | None:
        """A name that is no phrase of the photo is asked for its presence only."""
        if prediction.place not in self._places:
            return None
        self._add_presence(prediction)
        return KEPT

    def _add_presence(self, prediction: Prediction) -> None:
        if prediction.presence is not None:
            self.presence[prediction.place] = prediction.presence

    def _check_presence(self, path: str, partial: bool) -> None:
        wanted = [place for place, undecided in self._places.items() if not undecided]
        missing = [place for place in wanted if place not in self.presence]
        if missing and not partial:
            raise InputError(
                f"{path} has no presence for {len(missing):,} of {len(wanted):,} pairs of photo and name, for example "
                f'{missing[0]}: add a line with "presence" for each name, also of those that the photo does not show, '
                "or set step.partial_predictions=true to count them as 0"
            )
        if missing:
            log.warning("%d of %d pairs of photo and name have no presence, and count as 0", len(missing), len(wanted))
