"""The step ``localize``: the box of a photo's dominant object, given its label (Sec. 4.2, Table 3).

    grounding step=localize data=imagenet data.root=ILSVRC attention=mwp

The network sees the photo at 224 x 224 pixels. Its map is upsampled bicubically to that size, clipped at 0, and
thresholded at alpha times its own mean. The prediction is the tightest box around all pixels above the threshold; it is
an error if its IoU with every box of the class is below 0.5. alpha is selected on every k-th photo, and the other
photos give the result.
"""

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from eval.annotated_photos import AnnotatedPhoto, AnnotatedPhotos, check_annotated, read_annotated
from eval.bootstrap import class_mean_interval
from eval.checks import check_counts
from eval.class_maps import class_maps, describe_maps, known_tags
from eval.dominant_objects import CHOICES, DominantObject
from eval.photo_reading import UNUSABLE, faulty_names, name_some, photo_ledger, read_photos
from eval.proposal_recall import box_overlap
from eval.shared_photos import PhotoAnswer, answer_together
from grounding import Grounder
from grounding.maps import resize
from grounding.runtime.artefacts import write_json
from grounding.runtime.ledger import Ledger
from grounding.shards.photo_parts import LEASE
from proposals.errors import InputError

SIDE = 224
ALPHAS = tuple(step / 2 for step in range(21))
THRESHOLD = 0.5  # IoU of a correct box
# method: (the best alpha, error in percent); GoogLeNet, ImageNet val
TABLE_3 = {
    "grad": (5.0, 41.6),
    "deconv": (4.5, 41.6),
    "lrp": (1.0, 57.8),
    "cam": (1.0, 48.1),
    "feedback": (None, 38.8),
    "c-mwp": (0.0, 57.0),
    "mwp": (1.5, 38.7),
}


def localize(
    grounder: Grounder,
    photos: AnnotatedPhotos | None,
    classes: Mapping[str, Sequence[str]] | None,
    output: str,
    dominant: str = "labelled",
    hold_out_every: int = 5,
    resamples: int = 1000,
    seed: int = 0,
    limit: int | None = None,
    lease: float = LEASE,
) -> dict:
    """Localizes the dominant object of every photo that has one, writes ``metrics.json``, and prints a table.

    Args:
        grounder: computes the maps.
        photos: a reader, ``eval.voc.Ilsvrc``, ``eval.voc.Voc`` or ``eval.coco.Coco``; None is an error.
        classes: the tags of each class; a class that is not listed has its own name as its only tag. None: none.
        output: the folder for the results.
        dominant: which object is the dominant one, a name in ``eval.dominant_objects.CHOICES``.
        hold_out_every: hold out every k-th photo, to select alpha on.
        resamples: number of bootstrap resamples, for the 95 % interval.
        seed: the seed of the resamples.
        limit: use only the first ``limit`` photos; None for all.
        lease: seconds after which the photos of a process that has died are taken over.

    Returns:
        The metrics, errors in percent. Photos that cannot be used and labels without a tag are left out and listed
        there and in ``skipped.jsonl``. Several ranks share the photos; the first one returns the metrics, the others
        return an empty dictionary.

    Raises:
        InputError: no photo can be used, a setting is out of range, or there are too few photos.
    """
    photos, classes = check_annotated(photos), classes or {}
    check_counts(resamples=resamples, limit=limit)
    if dominant not in CHOICES:
        raise InputError(f"dominant={dominant} is unknown: choose one of {', '.join(CHOICES)}")
    check_counts(2, hold_out_every=hold_out_every)
    known_tags(classes, classes, grounder.tagger.vocabulary)  # checks the setting
    ledger = photo_ledger(photos, "use more photos, or step.dominant=largest, which allows several objects")
    tasks = {photo.id: (photo, CHOICES[dominant](photo)) for photo in read_photos(photos, ledger, limit)}
    tags = known_tags(classes, {thing.name for _, thing in tasks.values() if thing}, grounder.tagger.vocabulary)
    chosen = [photo for photo, thing in tasks.values() if thing and thing.name in tags]

    def answer(photo: AnnotatedPhoto) -> list[float]:
        thing = tasks[photo.id][1]
        assert thing is not None  # only such photos are chosen
        return alpha_overlaps(grounder, photo, thing, tags[thing.name]).tolist()

    settings = {"step": "localize", "classes": classes, "dominant": dominant}
    answers = answer_together(grounder, chosen, answer, output, settings, lease)
    if answers is None:
        return {}
    overlaps, whole, unknown = _collect(tasks.values(), tags, answers, ledger)
    ledger.finish(output)
    metrics = describe_maps(grounder, photos) | {"choose": dominant, "skipped_images": faulty_names(ledger)}
    metrics |= {"unknown_classes": {name: unknown.count(name) for name in sorted(set(unknown))}}
    metrics |= localization_error(overlaps, whole, hold_out_every, resamples, seed)
    write_json(Path(output, "metrics.json"), metrics)
    print(table(metrics))
    return metrics


def _collect(
    tasks: Iterable[tuple[AnnotatedPhoto, DominantObject | None]],
    known: Container[str],
    answers: Iterator[PhotoAnswer],
    ledger: Ledger,
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """The overlaps of the alphas and of the whole photo, of the photos that count; the classes of the unknown ones."""
    overlaps: list[np.ndarray] = []
    whole: list[float] = []
    unknown: list[str] = []
    for photo, thing in tasks:
        if not thing:
            ledger.skip(photo.id, "without a dominant object")
        elif thing.name not in known:
            unknown.append(thing.name)
            ledger.skip(photo.id, "of a class without a tag", thing.name)
        elif (found := next(answers)).error:
            ledger.skip(photo.id, UNUSABLE, found.error)
        else:
            overlaps.append(np.array(found.value))
            whole.append(_best_overlap(_whole_photo(photo.size), thing)[0])
            ledger.keep()
    return np.array(overlaps).reshape(-1, len(ALPHAS)), np.array(whole), unknown


def alpha_overlaps(grounder: Grounder, photo: AnnotatedPhoto, thing: DominantObject, tags: Sequence[str]) -> np.ndarray:
    """The IoU of each alpha's box with the nearest box of the object.

    Args:
        grounder: computes the map.
        photo: the photo and its annotation.
        thing: the ground truth.
        tags: the tags of the object's class, at least one.

    Returns:
        ``(len(ALPHAS),)`` in [0, 1].

    Raises:
        InputError: the photo cannot be read, or its size differs from the annotation's.
    """
    pixels = read_annotated(photo)
    maps = class_maps(grounder, pixels, [tags], [SIDE, SIDE])
    large = resize(maps, (SIDE, SIDE))[0].clamp(min=0).numpy()
    height, width = photo.size
    return _best_overlap(boxes_above(large) * np.array([width, height, width, height]) / SIDE, thing)


def boxes_above(values: np.ndarray, alphas: Sequence[float] = ALPHAS) -> np.ndarray:
    """The tightest box around all pixels of a map that are above alpha times its mean.

    Args:
        values: ``(H, W)`` map.
        alphas: A thresholds.

    Returns:
        ``(A, 4)`` half-open xyxy in pixels of the map; (0, 0, 0, 0) where no pixel is above the threshold.
    """
    # a row has a pixel above the threshold if its maximum is above it
    rows, columns = values.max(1), values.max(0)
    boxes = np.zeros((len(alphas), 4))
    for box, threshold in zip(boxes, np.multiply(alphas, values.mean()), strict=True):
        (y,), (x,) = (np.nonzero(largest > threshold) for largest in (rows, columns))
        if len(y):
            box[:] = x[0], y[0], x[-1] + 1, y[-1] + 1
    return boxes


def _best_overlap(boxes: np.ndarray, thing: DominantObject) -> np.ndarray:
    return box_overlap(boxes, thing.boxes).max(0)


def _whole_photo(size: tuple[int, int]) -> np.ndarray:
    return np.array([[0.0, 0.0, size[1], size[0]]])


def localization_error(
    overlaps: np.ndarray, whole: np.ndarray, hold_out_every: int, resamples: int = 1000, seed: int = 0
) -> dict:
    """Selects alpha on the held-out photos and measures its error on the others.

    Args:
        overlaps: ``(P, len(ALPHAS))`` IoU in each photo.
        whole: ``(P,)`` IoU of the whole photo as a box.
        hold_out_every: k; photos 0, k, 2k, ... are held out.
        resamples: number of bootstrap resamples, for the 95 % interval.
        seed: the seed of the resamples.

    Returns:
        The best alpha (of equal ones the smallest), and errors in percent.

    Raises:
        InputError: there are fewer than two photos.
    """
    if len(overlaps) < 2:
        raise InputError(f"only {len(overlaps)} photos have a dominant object whose class has a tag, at least 2 are "
                         "needed: use more photos, or step.dominant=largest, which allows several objects")  # fmt: skip
    held = np.arange(len(overlaps)) % hold_out_every == 0
    wrong = overlaps < THRESHOLD
    errors = {name: 100 * wrong[chosen].mean(0) for name, chosen in (("held_out", held), ("others", ~held))}
    best = int(errors["held_out"].argmin())
    hits, counts = wrong[~held, best : best + 1].astype(float), np.ones(((~held).sum(), 1))
    return {
        "photos": int((~held).sum()),
        "photos_held_out": int(held.sum()),
        "alpha": ALPHAS[best],
        "error": float(errors["others"][best]),
        "interval": class_mean_interval(hits, counts, resamples, seed),
        "error_by_alpha": {name: dict(zip(map(str, ALPHAS), e.tolist(), strict=True)) for name, e in errors.items()},
        "error_whole_photo": float(100 * (whole[~held] < THRESHOLD).mean()),
    }


def table(metrics: dict) -> str:
    """Formats the metrics, with the paper's Table 3 below them.

    Args:
        metrics: what :func:`localize` returns.

    Returns:
        Lines of text.
    """
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
        "Table 3 of the paper, ImageNet val, GoogLeNet trained on its 1,000 classes; Feedback (Cao et al. 2015) is not "
        "implemented here:",
        *(f"{name:16}{'-' if alpha is None else alpha:>5}    {error:.1f}" for name, (alpha, error) in TABLE_3.items()),
    ]
    return "\n".join(lines)


def _remarks(metrics: dict) -> list[str]:
    unknown = ", ".join(f"{name} ({count})" for name, count in metrics["unknown_classes"].items())
    lines = [f"labels without a tag, left out: {unknown}"] if unknown else []
    if metrics["skipped_images"]:
        lines.append(f"could not be used, left out: {name_some(metrics['skipped_images'])}")
    if metrics["choose"] != "labelled":
        lines.append("not the paper's protocol: it uses data=imagenet, with one class labelled in every photo")
    return lines
