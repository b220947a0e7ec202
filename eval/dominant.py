"""The step ``localize``: the box of a photo's dominant object, its label given (Sec. 4.2, Table 3).

    grounding step=localize data=imagenet data.root=ILSVRC attention=mwp

The network sees the photo at 224 x 224 pixels. Its map, clipped at 0 and upsampled bicubically to that size, is
thresholded at alpha times its own mean; the tightest box around all pixels above is the answer, and an error where it
overlaps no box of the class by an IoU of 0.5. alpha is chosen on every k-th photo, the others are the result.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch.nn.functional as F
from tqdm import tqdm

from eval.coco import CocoImage
from eval.counts import check_counts
from eval.pointing import Photos, annotated_pixels, check_photos, class_maps, described, interval, known_tags
from eval.proposal_recall import box_overlap
from eval.voc import VocImage
from grounding import Grounder
from grounding.runtime.artefacts import write_json
from grounding.runtime.ranks import rank_of
from proposals.errors import InputError

log = logging.getLogger(__name__)

SIDE = 224
ALPHAS = tuple(step / 2 for step in range(21))
ENOUGH = 0.5
# method: (the best alpha, error in percent); GoogleNet, ImageNet val
TABLE_3 = {
    "grad": (5.0, 41.6),
    "deconv": (4.5, 41.6),
    "lrp": (1.0, 57.8),
    "cam": (1.0, 48.1),
    "feedback": (None, 38.8),
    "c-mwp": (0.0, 57.0),
    "mwp": (1.5, 38.7),
}


@dataclass(frozen=True, eq=False)
class Dominant:
    """The object that a photo is about: its class, and the boxes (K, 4), half-open xyxy, of which any will do."""

    name: str
    boxes: np.ndarray


def localize(
    grounder: Grounder,
    photos: Photos | None,
    classes: Mapping[str, Sequence[str]],
    output: str,
    choose: str = "labelled",
    every: int = 5,
    resamples: int = 1000,
    seed: int = 0,
    limit: int | None = None,
) -> dict:
    """Localizes the dominant object of every photo that has one, writes ``metrics.json``, and prints a table.

    Args:
        photos: ``eval.voc.Ilsvrc``, ``eval.voc.Voc`` or ``eval.coco.Coco``; None is refused.
        classes: the tags that cue a class; one that is not listed is cued by its own name.
        output: the folder that is written to; choose: which object it is, a name of ``CHOICES``.
        every: every k-th photo is held out to choose alpha on; resamples, seed: of the 95 % interval; limit: the first
            so many photos.

    Returns:
        The metrics, errors in percent. Photos that cannot be read, and labels without a tag, are left out and named. Of
        several ranks the first localizes alone; the others return nothing.

    Raises:
        InputError: an annotation is malformed, ``choose``, ``every`` or a count is out of range, or too few photos can
            be used.
    """
    check_photos(photos)
    check_counts(resamples=resamples, limit=limit)
    if choose not in CHOICES or every < 2:
        raise InputError(f"choose={choose}, every={every}: choose one of {', '.join(CHOICES)}, and every from 2 on")
    if rank_of()[0] > 0:
        return {}
    tasks = list(_tasks(islice(photos, limit), CHOICES[choose]))
    overlaps: list[np.ndarray] = []
    whole: list[float] = []
    unread: list[str] = []
    unknown: list[str] = []
    for image, wanted in tqdm(tasks, "photos", unit="photo", disable=None):
        tags = known_tags(classes, [wanted.name], grounder.tagger.vocabulary)
        try:
            if tags:
                overlaps.append(judge(grounder, image, wanted, tags[wanted.name]))
                whole.append(_best(_everything(image.size), wanted)[0])
            else:
                unknown.append(wanted.name)
        except InputError as error:
            log.warning("skipped %s: %s", image.id, error)
            unread.append(image.id)
    metrics = described(grounder, photos) | {"choose": choose, "skipped_images": unread}
    metrics |= {"unknown_classes": {name: unknown.count(name) for name in sorted(set(unknown))}}
    metrics |= measure(np.array(overlaps).reshape(-1, len(ALPHAS)), np.array(whole), every, resamples, seed)
    write_json(Path(output, "metrics.json"), metrics)
    print(table(metrics))
    return metrics


def labelled(image: VocImage | CocoImage) -> Dominant | None:
    """The objects of a photo whose objects are all of one class, as ILSVRC's are."""
    objects = _objects(image)
    one = len({name for name, _ in objects}) == 1
    return Dominant(objects[0][0], np.array([box for _, box in objects])) if one else None


def alone(image: VocImage | CocoImage) -> Dominant | None:
    """A photo's only object."""
    return labelled(image) if len(_objects(image)) == 1 else None


def largest(image: VocImage | CocoImage) -> Dominant | None:
    """The object with the largest box, if it is the only one of its class; others may stand beside it."""
    objects = _objects(image)
    if not objects:
        return None
    name, box = max(objects, key=lambda thing: (thing[1][2:] - thing[1][:2]).prod())
    return Dominant(name, box[None]) if [other for other, _ in objects].count(name) == 1 else None


CHOICES: dict[str, Callable[[VocImage | CocoImage], Dominant | None]] = {
    "labelled": labelled,
    "alone": alone,
    "largest": largest,
}


def _objects(image: VocImage | CocoImage) -> list[tuple[str, np.ndarray]]:
    if isinstance(image, CocoImage):
        return [(thing.category, thing.box) for thing in image.objects]
    return [(thing.name, thing.box) for thing in image.objects]


def _tasks(
    images: Iterator[VocImage | CocoImage], choose: Callable[[VocImage | CocoImage], Dominant | None]
) -> Iterator[tuple[VocImage | CocoImage, Dominant]]:
    for image in images:
        if wanted := choose(image):
            yield image, wanted


def judge(grounder: Grounder, image: VocImage | CocoImage, wanted: Dominant, tags: Sequence[str]) -> np.ndarray:
    """(len(ALPHAS),) the IoU of each alpha's box with the nearest of the wanted ones, in 0..1.

    Raises:
        InputError: the photo cannot be read, or is not of the annotated size.
    """
    pixels = annotated_pixels(image)
    small = class_maps(grounder, pixels, [tags], [SIDE, SIDE]).clamp(min=0)
    large = F.interpolate(small[None], (SIDE, SIDE), mode="bicubic")[0, 0].numpy()
    height, width = image.size
    return _best(boxes_above(large) * np.array([width, height, width, height]) / SIDE, wanted)


def boxes_above(values: np.ndarray, alphas: Sequence[float] = ALPHAS) -> np.ndarray:
    """The tightest box around all pixels of a map (H, W) above alpha times its mean: (alphas, 4), half-open xyxy.

    A box around nothing is (0, 0, 0, 0).
    """
    # a row holds a pixel above where its largest one is
    rows, columns = values.max(1), values.max(0)
    boxes = np.zeros((len(alphas), 4))
    for box, threshold in zip(boxes, np.multiply(alphas, values.mean()), strict=True):
        (y,), (x,) = (np.nonzero(largest > threshold) for largest in (rows, columns))
        if len(y):
            box[:] = x[0], y[0], x[-1] + 1, y[-1] + 1
    return boxes


def _best(boxes: np.ndarray, wanted: Dominant) -> np.ndarray:
    return box_overlap(boxes, wanted.boxes).max(0)


def _everything(size: tuple[int, int]) -> np.ndarray:
    return np.array([[0.0, 0.0, size[1], size[0]]])


def measure(overlaps: np.ndarray, whole: np.ndarray, every: int, resamples: int = 1000, seed: int = 0) -> dict:
    """The best alpha of the held-out photos (the smallest of equal ones), and its error on the others, in percent.

    Args:
        overlaps: (photos, len(ALPHAS)) IoU; whole: (photos,) IoU of the whole photo; every: photos 0, k, 2k, ... are
            held out.

    Raises:
        InputError: fewer than two photos.
    """
    if len(overlaps) < 2:
        raise InputError(f"{len(overlaps)} photos with such an object and a tag for it: at least 2 are needed; "
                         "step.choose=largest takes photos of several objects")  # fmt: skip
    held = np.arange(len(overlaps)) % every == 0
    wrong = overlaps < ENOUGH
    errors = {name: 100 * wrong[chosen].mean(0) for name, chosen in (("held_out", held), ("others", ~held))}
    best = int(errors["held_out"].argmin())
    return {
        "photos": int((~held).sum()),
        "photos_held_out": int(held.sum()),
        "alpha": ALPHAS[best],
        "error": float(errors["others"][best]),
        "interval": interval(wrong[~held, best : best + 1].astype(float), np.ones(((~held).sum(), 1)), resamples, seed),
        "error_by_alpha": {name: dict(zip(map(str, ALPHAS), e.tolist(), strict=True)) for name, e in errors.items()},
        "error_whole_photo": float(100 * (whole[~held] < ENOUGH).mean()),
    }


def table(metrics: dict) -> str:
    """The metrics as lines of text, the paper's Table 3 below them."""
    (low, high), curve = metrics["interval"], metrics["error_by_alpha"]["others"]
    lines = [
        f"{metrics['method']} at {metrics['target']}, {SIDE} x {SIDE}: {metrics['photos']} photos of "
        f"{metrics['data']['root']}, {metrics['data']['split']} ({metrics['choose']}), "
        f"{metrics['photos_held_out']} others held out",
        f"{'':16}alpha    error, 95 % interval",
        f"{metrics['method']:16}{metrics['alpha']:5.1f}    {metrics['error']:.1f} [{low:.1f}, {high:.1f}]",
        f"{'whole photo':16}{'-':>5}    {metrics['error_whole_photo']:.1f}",
        "error by alpha: " + ", ".join(f"{alpha}: {error:.1f}" for alpha, error in curve.items()),
        *_remarks(metrics),
        "",
        "Table 3 of the paper, ImageNet val, GoogleNet trained on its 1,000 classes; Feedback (Cao et al. 2015) is not "
        "here:",
        *(f"{name:16}{'-' if alpha is None else alpha:>5}    {error:.1f}" for name, (alpha, error) in TABLE_3.items()),
    ]
    return "\n".join(lines)


def _remarks(metrics: dict) -> list[str]:
    unknown = ", ".join(f"{name} ({count})" for name, count in metrics["unknown_classes"].items())
    lines = [f"labels without a tag, left out: {unknown}"] if unknown else []
    if metrics["skipped_images"]:
        lines.append(f"could not be read, left out: {', '.join(metrics['skipped_images'])}")
    if metrics["choose"] != "labelled":
        lines.append("not measured: the protocol's own data (data=imagenet, every photo labelled with one class)")
    return lines
