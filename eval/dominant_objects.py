"""Which object of a photo is its dominant one (Sec. 4.2)."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from eval.annotated_photos import AnnotatedPhoto
from eval.coco import CocoImage


@dataclass(frozen=True, eq=False)
class DominantObject:
    """The object that a photo shows above all.

    Attributes:
        name: its class.
        boxes: ``(K, 4)`` half-open xyxy in pixels; a prediction has to match any one of them.
    """

    name: str
    boxes: np.ndarray


def labelled(photo: AnnotatedPhoto) -> DominantObject | None:
    """All objects, if they are of one class, as in ILSVRC."""
    objects = _objects(photo)
    one_class = len({name for name, _ in objects}) == 1
    return DominantObject(objects[0][0], np.array([box for _, box in objects])) if one_class else None


def alone(photo: AnnotatedPhoto) -> DominantObject | None:
    """The only object of a photo."""
    return labelled(photo) if len(_objects(photo)) == 1 else None


def largest(photo: AnnotatedPhoto) -> DominantObject | None:
    """The object with the largest box, if it is the only one of its class. Other classes may be present."""
    objects = _objects(photo)
    if not objects:
        return None
    name, box = max(objects, key=lambda thing: (thing[1][2:] - thing[1][:2]).prod())
    return DominantObject(name, box[None]) if [other for other, _ in objects].count(name) == 1 else None


CHOICES: dict[str, Callable[[AnnotatedPhoto], DominantObject | None]] = {
    "labelled": labelled,
    "alone": alone,
    "largest": largest,
}


def _objects(photo: AnnotatedPhoto) -> list[tuple[str, np.ndarray]]:
    if isinstance(photo, CocoImage):
        return [(thing.category, thing.box) for thing in photo.objects]
    return [(thing.name, thing.box) for thing in photo.objects]
