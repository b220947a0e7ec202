"""The step ``point``: the Pointing Game (Sec. 4.1, Table 1).

    grounding step=point data=voc2012 attention=c-mwp

Each class present in a photo is a cue. The maximum of its map, upsampled bicubically to the photo's size, is a hit if a
pixel of the class lies less than 15 pixels from it. Accuracy is hits / (hits + misses) of a class, then the mean over
the classes. What a class's pixels are: on VOC its boxes, difficult ones too, on COCO its masks, crowds too.
"""

import functools
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from eval import bootstrap
from eval.coco import CocoImage
from eval.counts import check_counts
from eval.voc import VocImage
from grounding import Grounder
from grounding.attention.methods import METHODS
from grounding.images import read_image
from grounding.maps import blur
from grounding.runtime.artefacts import write_json, write_json_lines
from grounding.runtime.ranks import rank_of
from grounding.text.vocabulary import Vocabulary
from proposals.errors import InputError

log = logging.getLogger(__name__)

TOLERANCE = 15  # pixels; a distance of 15 is a miss
SMALL = 0.25
# GoogleNet's columns: VOC07 test all, difficult, COCO val all, difficult
TABLE_1 = {
    "image centre": (69.5, 42.6, 27.7, 19.4),
    "grad": (79.3, 61.4, 42.6, 36.3),
    "deconv": (74.3, 49.4, 35.7, 27.9),
    "lrp": (72.8, 50.2, 40.2, 32.7),
    "cam": (80.8, 61.9, 41.6, 35.0),
    "mwp": (79.3, 60.4, 43.6, 37.1),
    "c-mwp": (85.1, 72.3, 53.8, 48.3),
}
Point = tuple[int, int]
Photos = Iterable[VocImage | CocoImage]


@dataclass(frozen=True, eq=False)
class Cue:
    """A class that is present in a photo.

    Attributes:
        name: the class; mask: (H, W) bool, the pixels of its objects; difficult: whether all its objects together have
            less than a quarter of the photo, and another class is present.
    """

    name: str
    mask: np.ndarray
    difficult: bool


@dataclass(frozen=True)
class Judged:
    """What became of one cue.

    Attributes:
        photo: the id of its photo; name: the class; difficult: of the difficult subset.
        centred: whether the photo's centre is a hit; known: whether the dictionary has a tag for the class.
        point: (x, y), the pixel of the map's maximum; None of no map, and of one that is the same everywhere (a miss).
        hit: whether that is one.
    """

    photo: str
    name: str
    difficult: bool
    centred: bool
    known: bool = False
    point: Point | None = None
    hit: bool = False

    @property
    def flat(self) -> bool:
        """Whether there is a map, but it points nowhere."""
        return self.known and self.point is None


def point(
    grounder: Grounder,
    photos: Photos | None,
    classes: Mapping[str, Sequence[str]],
    output: str,
    resamples: int = 1000,
    seed: int = 0,
    limit: int | None = None,
) -> dict:
    """Plays the game on every photo, writes ``metrics.json`` and ``points.jsonl``, and prints a table.

    Args:
        photos: ``eval.voc.Voc`` or ``eval.coco.Coco``; None, of a data set without objects, is refused.
        classes: the tags that cue a class; one that is not listed is cued by its own name.
        output: the folder that is written to; resamples, seed: of the 95 % intervals; limit: the first so many photos.

    Returns:
        The metrics, accuracies in percent. A photo that cannot be read is left out and named there. Of several ranks
        the first plays alone; the others return nothing.

    Raises:
        InputError: an annotation is malformed, no photo has an object, or a count is below 1.
    """
    check_photos(photos)
    check_counts(resamples=resamples, limit=limit)
    if rank_of()[0] > 0:
        return {}
    images = list(islice(photos, limit))
    judged: list[Judged] = []
    unread: list[str] = []
    for image in tqdm(images, "photos", unit="photo", disable=None):
        try:
            judged += judge(grounder, image, classes)
        except InputError as error:
            log.warning("skipped %s: %s", image.id, error)
            unread.append(image.id)
    metrics = described(grounder, photos) | {"photos": len(images) - len(unread), "skipped_images": unread}
    metrics |= {"side": grounder.settings.side} | measure(judged, resamples, seed)
    write_json(Path(output, "metrics.json"), metrics)
    write_json_lines(Path(output, "points.jsonl"), map(asdict, judged))
    print(table(metrics))
    return metrics


def check_photos(photos: Photos | None) -> None:
    """Refuses None, which a data set without annotated objects has for its photos.

    Raises:
        InputError: it is None.
    """
    if photos is None:
        raise InputError("this data has no annotated objects: set data=voc2012, data=coco2017 or data=imagenet")


def described(grounder: Grounder, photos: Photos) -> dict:
    """What was measured: method, layer, data."""
    method = grounder.settings.method
    own = METHODS[method].target or grounder.topdown.network.default_target
    data = {"root": str(getattr(photos, "root", "")), "split": getattr(photos, "split", "")}
    return {"method": method, "target": grounder.settings.target or own, "data": data}


def judge(grounder: Grounder, image: VocImage | CocoImage, classes: Mapping[str, Sequence[str]]) -> list[Judged]:
    """All cues of one photo, whose maps come out of one pass.

    Raises:
        InputError: the photo cannot be read, or is not of the annotated size.
    """
    pixels = annotated_pixels(image)
    height, width = image.size
    asked = cues(image)
    known = known_tags(classes, [cue.name for cue in asked], grounder.tagger.vocabulary)
    maps = class_maps(grounder, pixels, list(known.values()), [grounder.settings.side])
    points = dict(zip(known, maxima(maps, image.size), strict=True))
    return [
        Judged(
            photo=image.id,
            name=cue.name,
            difficult=cue.difficult,
            centred=is_hit(cue.mask, (width // 2, height // 2)),
            known=cue.name in known,
            point=(found := points.get(cue.name)),
            hit=found is not None and is_hit(cue.mask, found),
        )
        for cue in asked
    ]


def annotated_pixels(image: VocImage | CocoImage) -> np.ndarray:
    """(H, W, 3) uint8 of a photo that is as its annotation says.

    Raises:
        InputError: it cannot be read, or has another size.
    """
    pixels = read_image(image.path, max_aspect=None)
    if pixels.shape[:2] != image.size:
        sizes = [f"{width}x{height}" for height, width in (pixels.shape[:2], image.size)]
        raise InputError(f"{image.path} is {sizes[0]}, its annotation says {sizes[1]}: take the original photo")
    return pixels


@functools.singledispatch
def cues(image: object) -> list[Cue]:
    """The classes present in a photo, in the order of the alphabet."""
    raise TypeError(f"no cues of a {type(image).__name__}")


@cues.register
def _(image: VocImage) -> list[Cue]:
    masks = {name: [] for name in sorted({thing.name for thing in image.objects})}
    for thing in image.objects:
        masks[thing.name].append(_filled(thing.box, image.size))
    return [cue for cue in _cues(masks) if cue.name in image.classes]


@cues.register
def _(image: CocoImage) -> list[Cue]:
    masks = {name: [] for name in image.classes}
    for thing in image.objects:
        masks[thing.category].append(thing.mask())
    return _cues(masks)


def _cues(masks: Mapping[str, list[np.ndarray]]) -> list[Cue]:
    return [Cue(name, np.any(m, axis=0), len(masks) > 1 and _share(m) < SMALL) for name, m in masks.items()]


def _share(masks: Sequence[np.ndarray]) -> float:
    """The objects' pixels over the photo's; what two objects share counts twice ("the total area")."""
    return sum(int(mask.sum()) for mask in masks) / masks[0].size


def _filled(box: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The pixels of a box, rounded to whole ones: at least one, as it is one wide."""
    x1, y1, x2, y2 = np.floor(box + 0.5).astype(int)
    mask = np.zeros(size, bool)
    mask[y1:y2, x1:x2] = True
    return mask


def known_tags(
    classes: Mapping[str, Sequence[str]], names: Iterable[str], vocabulary: Vocabulary
) -> dict[str, list[str]]:
    """Which tags cue each of these classes; classes without any known tag are left out.

    Raises:
        InputError: a class's tags are no list.
    """
    tags = {name: classes.get(name, [name]) for name in names}
    for name, listed in tags.items():
        if not isinstance(listed, list | tuple):
            raise InputError(f"the tags of class {name!r} must be a list, not {listed!r}: write {name}: [{listed}]")
    known = {name: [tag for tag in dict.fromkeys(listed) if tag in vocabulary] for name, listed in tags.items()}
    return {name: listed for name, listed in known.items() if listed}


def class_maps(grounder: Grounder, pixels: np.ndarray, tags: Sequence[Sequence[str]], size: list[int]) -> Tensor:
    """The maps of W classes, each the average of its tags' maps, out of one pass.

    Args:
        pixels: (H, W, 3) uint8; tags: of each class, at least one; size: what the network sees, as
            ``Grounder.prepared`` takes it.

    Returns:
        (W, h, w) float64 on the grid of the method's layer, blurred where the paper does; signed where the method is.
    """
    if not tags:
        return torch.zeros(0, 1, 1, dtype=torch.float64)
    method, vocabulary = grounder.settings.method, grounder.tagger.vocabulary
    every = sorted({tag for listed in tags for tag in listed})
    scene = grounder.topdown.look(grounder.tagger.prepare(pixels, size), method)
    maps = scene.attend([vocabulary.index(tag) for tag in every], method)
    maps = (blur(maps) if METHODS[method].blurred else maps)[0].double()
    rows = {tag: row for row, tag in enumerate(every)}
    return torch.stack([maps[[rows[tag] for tag in listed]].mean(0) for listed in tags])


def maxima(maps: Tensor, size: tuple[int, int]) -> list[Point | None]:
    """Where maps (W, h, w) have their maximum at a photo's own pixels: (x, y), of several the first, row by row.

    None of a map that is the same everywhere, for it points nowhere.
    """
    if not len(maps):
        return []
    flat = maps.flatten(1).amin(1) == maps.flatten(1).amax(1)
    large = F.interpolate(maps[None], size, mode="bicubic")[0].flatten(1).numpy()
    places = [np.unravel_index(row.argmax(), size) for row in large]
    return [None if same else (int(x), int(y)) for (y, x), same in zip(places, flat.tolist(), strict=True)]


def is_hit(mask: np.ndarray, point: Point) -> bool:
    """Whether a pixel of a mask (H, W) lies less than 15 pixels from the pixel (x, y)."""
    x, y = point
    # what is 15 or more away along one axis cannot count
    left, top = max(x - TOLERANCE + 1, 0), max(y - TOLERANCE + 1, 0)
    rows, columns = np.nonzero(mask[top : y + TOLERANCE, left : x + TOLERANCE])
    return bool(((rows + top - y) ** 2 + (columns + left - x) ** 2 < TOLERANCE**2).any())


def measure(judged: Sequence[Judged], resamples: int = 1000, seed: int = 0) -> dict:
    """All figures, in percent, for all cues and for the difficult ones.

    "method" is over the classes that the dictionary has, "unknown_missed" counts the others' cues as misses; both have
    the image centre's accuracy on the same cues beside them.

    Raises:
        InputError: there is no cue, or none with a tag.
    """
    if not any(cue.known for cue in judged):
        raise InputError("no cue to judge: no photo holds an object whose class has a tag; see data.classes")
    sets = {"all": list(judged), "difficult": [cue for cue in judged if cue.difficult]}
    unknown = sorted({cue.name for cue in judged if not cue.known})
    return {
        "flat_maps": sum(cue.flat for cue in judged),
        "unknown_classes": {name: sum(cue.name == name for cue in judged) for name in unknown},
        **{name: _accuracies(chosen, resamples, seed) for name, chosen in sets.items()},
    }


def _accuracies(judged: Sequence[Judged], resamples: int, seed: int) -> dict:
    known = [cue for cue in judged if cue.known]
    return {
        "method": accuracy(known, lambda cue: cue.hit, resamples, seed),
        "unknown_missed": accuracy(judged, lambda cue: cue.hit, resamples, seed),
        "centre": accuracy(known, lambda cue: cue.centred, resamples, seed),
        "centre_of_all": accuracy(judged, lambda cue: cue.centred, resamples, seed),
    }


def accuracy(judged: Sequence[Judged], of: Callable[[Judged], bool], resamples: int, seed: int) -> dict | None:
    """The mean over classes with its 95 % interval, the share of all cues, and each class's own; None of no cue."""
    if not judged:
        return None
    names, classes = np.unique([cue.name for cue in judged], return_inverse=True)
    photos, rows = np.unique([cue.photo for cue in judged], return_inverse=True)
    hits, counts = (np.zeros((len(photos), len(names))) for _ in range(2))
    np.add.at(hits, (rows, classes), [of(cue) for cue in judged])
    np.add.at(counts, (rows, classes), 1)
    share = 100 * hits.sum(0) / counts.sum(0)
    rows = zip(names.tolist(), share.tolist(), counts.sum(0).astype(int).tolist(), strict=True)
    return {
        "mean": float(share.mean()),
        "interval": interval(hits, counts, resamples, seed),
        "pooled": float(100 * hits.sum() / counts.sum()),
        "cues": len(judged),
        "by_class": {name: {"accuracy": own, "cues": count} for name, own, count in rows},
    }


def interval(hits: np.ndarray, counts: np.ndarray, resamples: int = 1000, seed: int = 0) -> tuple[float, float]:
    """The 95 % percentile interval of the mean over classes, in percent, photos being drawn with replacement.

    Args:
        hits, counts: (photos, classes), of each class in each photo. A class that a draw does not hold does not count.
    """
    times = bootstrap.resamples(len(counts), resamples, seed)
    drawn_hits, drawn = times @ hits, times @ counts
    present = drawn > 0
    means = np.divide(drawn_hits, drawn, out=np.zeros_like(drawn), where=present).sum(1) / present.sum(1)
    return bootstrap.interval(100 * means)


def table(metrics: dict) -> str:
    """The metrics as lines of text, the paper's Table 1 below them."""
    sets = [metrics["all"], metrics["difficult"]]
    sizes = [s["unknown_missed"]["cues"] if s["unknown_missed"] else 0 for s in sets]
    lines = [
        f"{metrics['method']} at {metrics['target']}, {metrics['side']} px: {metrics['photos']} photos of "
        f"{metrics['data']['root']}, {metrics['data']['split']}; {sizes[0]} cues, {sizes[1]} of them difficult",
        f"{'mean over classes, 95 % interval':34}{'all':22}{'difficult':22}all cues alike",
        *(_row(title, [s[key] for s in sets]) for title, key in ROWS.items()),
        *_remarks(metrics),
        "",
        "Table 1 of the paper, GoogleNet; other data, and networks that were trained on these classes:",
        f"{'':34}VOC07 test: all / difficult    COCO val: all / difficult",
        *(f"{name:34}{a:10.1f} / {b:.1f}{c:25.1f} / {d:.1f}" for name, (a, b, c, d) in TABLE_1.items()),
    ]
    return "\n".join(lines)


ROWS = {
    "method": "method",
    "  classes without a tag missed": "unknown_missed",
    "image centre": "centre",
    "  classes without a tag too": "centre_of_all",
}


def _row(title: str, cells: Sequence[dict | None]) -> str:
    means = (f"{c['mean']:.1f} [{c['interval'][0]:.1f}, {c['interval'][1]:.1f}]" if c else "-" for c in cells)
    pooled = " / ".join(f"{c['pooled']:.1f}" if c else "-" for c in cells)
    return f"{title:34}" + "".join(f"{mean:22}" for mean in means) + pooled


def _remarks(metrics: dict) -> list[str]:
    unknown = ", ".join(f"{name} ({cues})" for name, cues in metrics["unknown_classes"].items())
    said = {
        f"classes without a tag (cues): {unknown}": unknown,
        f"maps that point nowhere, missed: {metrics['flat_maps']}": metrics["flat_maps"],
        f"could not be read, left out: {', '.join(metrics['skipped_images'])}": metrics["skipped_images"],
    }
    return [line for line, holds in said.items() if holds]
