"""Checks data sets with annotations for the step ``check``."""

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tqdm import tqdm

from eval.annotated_photos import AnnotatedPhotos, read_annotated
from eval.coco import CocoImage
from eval.flickr30k import Flickr30kEntities
from eval.photo_reading import UNUSABLE, photo_ledger, read_photos
from eval.prediction_results import compare_predictions, entities_judge
from eval.voc import VocImage
from grounding.runtime.ledger import Ledger
from grounding.steps.check import Survey
from proposals.errors import InputError

MOST_FREQUENT = 8  # classes or types that are named
OPENED = 50  # photos that are opened


@dataclass(frozen=True)
class ObjectsSurvey:
    """Photos with annotated objects.

    Attributes:
        photos: the data set.
        opened: number of photos that are opened, chosen at random with the same result each time.
    """

    photos: AnnotatedPhotos
    opened: int = OPENED

    def survey(self) -> Survey:
        """Reads all annotations, looks up all photos, and opens a few.

        Returns:
            What the data set holds; see :class:`grounding.steps.check.Checkable`.

        Raises:
            InputError: no photo can be used.
        """
        ledger = photo_ledger(self.photos)
        found = read_photos(self.photos, ledger)
        for _ in found:
            ledger.keep()
        names = Counter(name for photo in found for name in photo.classes)
        objects = sum(len(photo.objects) for photo in found)
        empty = sum(not photo.objects for photo in found)
        facts = {
            "photos": f"in {self.photos.folder}",
            "objects": f"{objects:,}, {objects / len(found):.1f} for each photo; {empty:,} photos have none",
            "classes": f"{len(names):,}, by photos: {_most(names)}",
        }
        return Survey(ledger, facts | _marks(found) | {"opened": _open(found, self.opened)})


@dataclass(frozen=True)
class EntitiesSurvey:
    """Flickr30k Entities, and perhaps a file of predictions for it.

    Attributes:
        root: the folder of the data set.
        split: the name of the split.
        predictions: the file, see ``eval.predictions``; None for none.
        opened: number of photos that are opened, chosen at random with the same result each time.
    """

    root: str
    split: str
    predictions: str | None = None
    opened: int = OPENED

    def survey(self) -> Survey:
        """Reads all annotations, captions and predictions, looks up all photos, and opens a few.

        Returns:
            What the data set holds; see :class:`grounding.steps.check.Checkable`.

        Raises:
            InputError: no photo can be used, or the predictions cannot be judged.
        """
        data = Flickr30kEntities(self.root, self.split)
        ledger = photo_ledger(data)
        found = read_photos(data, ledger)
        for _ in found:
            ledger.keep()
        phrases = [entity for image in found for entity in image.entities]
        captions, marked = sum(len(image.marked) for image in found), sum(sum(image.marked) for image in found)
        facts = {
            "photos": f"in {data.folder}",
            "captions": f"{captions:,}, {captions / len(found):.1f} for each photo",
            "phrases": f"{len(phrases):,} of {marked:,} marked phrases have a box",
            "types": _most(Counter(kind for entity in phrases for kind in entity.types)),
        }
        if self.predictions is not None:
            judge = entities_judge(found)
            results = compare_predictions(found, self.predictions, judge, partial=True, others=set(data.ids))
            facts["predictions"] = f"{results.ledger.line()}; {len(results.missing):,} phrases have none"
        return Survey(ledger, facts | {"opened": _open(found, self.opened)})


def _most(names: Counter[str]) -> str:
    return ", ".join(f"{name} ({count:,})" for name, count in names.most_common(MOST_FREQUENT))


def _marks(photos: Sequence[VocImage | CocoImage]) -> dict[str, str]:
    """How many objects have a mask, or are marked as difficult."""
    things: list[Any] = [thing for photo in photos for thing in photo.objects]
    if isinstance(photos[0], CocoImage):
        masks = sum(_has_mask(thing) for thing in things)
        return {"masks": f"{masks:,} of {len(things):,} objects have one; step=point needs them"}
    return {"difficult": f"{sum(thing.difficult for thing in things):,} objects are marked as difficult"}


def _has_mask(thing: Any) -> bool:
    try:
        thing.check_mask()
    except InputError:
        return False
    return True


def _open(photos: Sequence[Any], count: int) -> str:
    """Opens photos; says how many cannot be used."""
    ledger = Ledger("photos at random")
    chosen = random.Random(0).sample(photos, min(count, len(photos)))
    for photo in ledger.reading(tqdm(chosen, "checking", unit="photo", disable=None), lambda photo: photo.id):
        try:
            read_annotated(photo)
        except InputError as error:
            ledger.skip(photo.id, UNUSABLE, str(error))
        else:
            ledger.keep()
    ledger.check()
    first = next(ledger.skipped, None)
    return f"{ledger.line()}{'' if first is None else f'; the first: {first}'}"
