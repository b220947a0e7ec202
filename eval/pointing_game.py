"""The rules of the Pointing Game (Sec. 4.1, Table 1): cues, hits, and the accuracy over classes.

Each class that is present in a photo is a cue. The maximum of its map, upsampled bicubically to the photo's size, is a
hit if it lies less than 15 pixels from a pixel of the class, or with ``include_margin`` at most 15 pixels. Accuracy is
hits / (hits + misses) of a class, then the mean over classes. On VOC the pixels of a class are its boxes, including
objects marked as difficult; on COCO they are its masks, including crowds.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from eval.bootstrap import class_mean_interval
from eval.coco import CocoImage, CocoObject
from eval.voc import VocImage
from grounding.maps import resize
from proposals.errors import InputError

TOLERANCE = 15  # pixels; a distance of exactly 15 is a miss, as in TorchRay, unless the margin is included
SMALL = 0.25  # of the photo's area: a class of the difficult subset has less

Point = tuple[int, int]


@dataclass(frozen=True, eq=False)
class Cue:
    """A class that is present in a photo.

    Attributes:
        name: the class.
        mask: ``(H, W)`` bool, the pixels of its objects.
        difficult: whether its objects together cover less than a quarter of the photo and the photo shows another
            class, too.
    """

    name: str
    mask: np.ndarray
    difficult: bool


@dataclass(frozen=True)
class CueResult:
    """The result of one cue. The names of the fields are keys of ``points.jsonl``.

    Attributes:
        photo: the id of the photo.
        name: the class.
        difficult: whether the cue is in the difficult subset.
        centred: whether the photo's centre is a hit.
        known: whether the vocabulary has a tag for the class.
        point: (x, y), the pixel of the map's maximum; None without a map, and for a constant map (a miss).
        hit: whether ``point`` is a hit.
    """

    photo: str
    name: str
    difficult: bool
    centred: bool
    known: bool = False
    point: Point | None = None
    hit: bool = False

    @classmethod
    def of_record(cls, record: Mapping[str, Any]) -> "CueResult":
        """The result that a line of ``points.jsonl`` has.

        Args:
            record: the values of the line.
        """
        point = record["point"]
        return cls(**{**record, "point": None if point is None else (point[0], point[1])})

    @property
    def flat(self) -> bool:
        """Whether there is a map, but it is constant and has no maximum."""
        return self.known and self.point is None


@functools.singledispatch
def cues(photo: object) -> list[Cue]:
    """The classes that are present in a photo, in alphabetical order.

    Args:
        photo: a ``VocImage`` or a ``CocoImage``.

    Raises:
        TypeError: the photo is of another type.
    """
    raise TypeError(f"no cues for a {type(photo).__name__}: pass a VocImage or a CocoImage")


@cues.register
def _(photo: VocImage) -> list[Cue]:
    return box_cues(photo)


@cues.register
def _(photo: CocoImage) -> list[Cue]:
    masks: dict[str, list[np.ndarray]] = {name: [] for name in photo.classes}
    for thing in photo.objects:
        masks[thing.category].append(thing.mask())
    return _cues(masks)


def box_cues(photo: VocImage | CocoImage) -> list[Cue]:
    """The classes that are present in a photo, if the pixels of an object are its box.

    Args:
        photo: the photo and its objects.

    Returns:
        In alphabetical order.
    """
    objects = [(thing.category if isinstance(thing, CocoObject) else thing.name, thing.box) for thing in photo.objects]
    masks: dict[str, list[np.ndarray]] = {name: [] for name in sorted({name for name, _ in objects})}
    for name, box in objects:
        masks[name].append(_filled(box, photo.size))
    return [cue for cue in _cues(masks) if cue.name in photo.classes]


def _cues(masks: Mapping[str, list[np.ndarray]]) -> list[Cue]:
    return [Cue(name, np.any(m, axis=0), len(masks) > 1 and _share(m) < SMALL) for name, m in masks.items()]


def _share(masks: Sequence[np.ndarray]) -> float:
    """The share of the photo's pixels; a pixel of two objects counts twice ("the total area")."""
    return sum(int(mask.sum()) for mask in masks) / masks[0].size


def _filled(box: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The mask of a box that is rounded to whole pixels. A box of width 1 keeps at least one pixel."""
    x1, y1, x2, y2 = np.floor(box + 0.5).astype(int)
    mask = np.zeros(size, bool)
    mask[y1:y2, x1:x2] = True
    return mask


def maxima(maps: Tensor, size: tuple[int, int]) -> list[Point | None]:
    """The maximum of each map after bicubic upsampling.

    Args:
        maps: ``(W, h, w)``.
        size: (height, width) of the photo.

    Returns:
        For each map (x, y) in pixels; of equal maxima the first in row-major order; None for a constant map.
    """
    if not len(maps):
        return []
    flat = maps.flatten(1).amin(1) == maps.flatten(1).amax(1)
    large = resize(maps, size).flatten(1).numpy()
    places = [np.unravel_index(row.argmax(), size) for row in large]
    return [None if same else (int(x), int(y)) for (y, x), same in zip(places, flat.tolist(), strict=True)]


def is_hit(mask: np.ndarray, point: Point, include_margin: bool = False) -> bool:
    """Whether a point lies less than 15 pixels from a pixel of a mask.

    Args:
        mask: ``(H, W)`` bool.
        point: (x, y) in pixels.
        include_margin: whether a distance of exactly 15 pixels is a hit, as in the disc of the authors' program.
    """
    x, y = point
    reach = TOLERANCE + include_margin
    # crop to the pixels that are near enough along each axis
    left, top = max(x - reach + 1, 0), max(y - reach + 1, 0)
    rows, columns = np.nonzero(mask[top : y + reach, left : x + reach])
    # integers, so that at most 15^2 is less than 15^2 + 1
    return bool(((rows + top - y) ** 2 + (columns + left - x) ** 2 < TOLERANCE**2 + include_margin).any())


def pointing_metrics(results: Sequence[CueResult], resamples: int = 1000, seed: int = 0) -> dict:
    """The accuracies of the game, for all cues and for the difficult ones.

    Args:
        results: the results of all cues.
        resamples: number of bootstrap resamples of the photos.
        seed: the seed of the resamples.

    Returns:
        Percentages under "all" and "difficult". "method" is over the classes that have a known tag; "unknown_missed"
        counts the cues of the other classes as misses. "centre" and "centre_of_all" are the accuracies of the image
        centre on the same two sets of cues.

    Raises:
        InputError: there is no cue, or none whose class has a known tag.
    """
    if not any(cue.known for cue in results):
        raise InputError("no cue to evaluate: no photo shows a class that has a known tag; see data.classes")
    subsets = {"all": list(results), "difficult": [cue for cue in results if cue.difficult]}
    unknown = sorted({cue.name for cue in results if not cue.known})
    return {
        "flat_maps": sum(cue.flat for cue in results),
        "unknown_classes": {name: sum(cue.name == name for cue in results) for name in unknown},
        **{name: _accuracies(subset, resamples, seed) for name, subset in subsets.items()},
    }


def _accuracies(results: Sequence[CueResult], resamples: int, seed: int) -> dict:
    known = [cue for cue in results if cue.known]
    return {
        "method": accuracy(known, lambda cue: cue.hit, resamples, seed),
        "unknown_missed": accuracy(results, lambda cue: cue.hit, resamples, seed),
        "centre": accuracy(known, lambda cue: cue.centred, resamples, seed),
        "centre_of_all": accuracy(results, lambda cue: cue.centred, resamples, seed),
    }


def accuracy(
    results: Sequence[CueResult], is_right: Callable[[CueResult], bool], resamples: int, seed: int
) -> dict | None:
    """The accuracy over classes.

    Args:
        results: the results of the cues that count.
        is_right: whether a cue is a hit.
        resamples: number of bootstrap resamples of the photos.
        seed: the seed of the resamples.

    Returns:
        In percent: "mean" over classes, its 95 % "interval", "pooled" over all cues, and "by_class"; the number of
        "cues". None if there is no cue.
    """
    if not results:
        return None
    names, classes = np.unique([cue.name for cue in results], return_inverse=True)
    photos, rows = np.unique([cue.photo for cue in results], return_inverse=True)
    hits, counts = (np.zeros((len(photos), len(names))) for _ in range(2))
    np.add.at(hits, (rows, classes), [is_right(cue) for cue in results])
    np.add.at(counts, (rows, classes), 1)
    share = 100 * hits.sum(0) / counts.sum(0)
    by_class = zip(names.tolist(), share.tolist(), counts.sum(0).astype(int).tolist(), strict=True)
    return {
        "mean": float(share.mean()),
        "interval": class_mean_interval(hits, counts, resamples, seed),
        "pooled": float(100 * hits.sum() / counts.sum()),
        "cues": len(results),
        "by_class": {name: {"accuracy": own, "cues": count} for name, own, count in by_class},
    }
