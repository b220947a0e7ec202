"""Our proposals beside OpenCV's, on the same photos in the same run: seconds, recall, average best overlap (ABO).

    grounding step=benchmark benchmark=proposals

Each proposer gets the original photo; the seconds include resizing it.
"""

import logging
import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from statistics import median

import numpy as np
from matplotlib.figure import Figure
from tqdm import tqdm

from eval.benchmark_table import Row
from eval.checks import check_counts
from eval.coco import Coco, CocoImage
from eval.gammas import GAMMAS
from eval.proposal_recall import best_among, box_overlap, recall_metrics, region_overlap
from grounding.images import read_image
from grounding.rescoring import rescore
from grounding.runtime.artefacts import atomic_path
from grounding.runtime.timing import interleaved
from proposals import InputError, Proposals, Proposer, SegmentProposer, Segments

log = logging.getLogger(__name__)

# Arbelaez et al., CVPR 2014, and the MCG web page: COCO 2014 train, 450 proposals. These are not our photos.
PUBLISHED = [
    {"proposer": "MCG, published", "as": "boxes", "count": 450.0, "R@.5": 0.585, "R@.7": 0.379},
    {"proposer": "MCG, published", "as": "segments", "count": 450.0, "R@.5": 0.498, "R@.7": 0.272, "ABO": 0.482},
]
SEGMENTS, MAPS = 500, 30
LEVELS = np.linspace(0.5, 1, 51)

# (proposer, kind): for each photo its IoUs, (objects, proposals)
Overlaps = dict[tuple[str, str], list[np.ndarray]]


def measure(
    root: str,
    splits: Sequence[str],
    proposers: dict[str, Proposer],
    output: str,
    counts: Sequence[int] = (100, 500, 1000),
    limit: int | None = None,
) -> tuple[list[Row], dict]:
    """Measures proposers, and draws ``recall.png``.

    Args:
        root: the folder of COCO.
        splits: the names of the splits.
        proposers: the proposers by name; one whose package is not installed is left out with a warning.
        output: the folder for the picture.
        counts: numbers of proposals to measure recall at.
        limit: use only the first ``limit`` photos of each split; None for all.

    Returns:
        A row for each proposer, kind (boxes or segments) and count; and what the rows have in common.

    Raises:
        InputError: the folder is not COCO or has no object, or ``limit`` is below 1.
    """
    check_counts(limit=limit)
    images = [image for split in splits for image in islice(Coco(root, split), limit)]
    overlaps, seconds = _run(images, proposers)
    shares = np.array([thing.mask().mean() for image in images for thing in _objects(image)])
    if not len(shares):
        raise InputError(f"{root} has no object in {', '.join(splits)}: use photos with annotations")
    rows = [
        {"proposer": name, "as": kind, "count": float(count)}
        | recall_metrics(np.concatenate([best_among(o, [count])[:, 0] for o in found]), shares)
        | {"seconds": median(seconds[name])}
        for (name, kind), found in overlaps.items()
        for count in counts
    ]
    _plot(overlaps, max(counts), Path(output, "recall.png"))
    integration = median(_integration_seconds(image) for image in images[:10])
    print(f"{MAPS} maps over {SEGMENTS} segments, rescored under {len(GAMMAS)} gammas: {1000 * integration:.1f} ms")
    common = {
        "photos": len(images),
        "objects": len(shares),
        "integration seconds": integration,
        "mean seconds": {n: float(np.mean(s)) for n, s in seconds.items()},
    }
    return rows + PUBLISHED, common


def _integration_seconds(image: CocoImage) -> float:
    """The median time from maps on the grid to the scores under each gamma."""
    found = SegmentProposer(SEGMENTS)(read_image(image.path))
    maps = np.random.default_rng(0).random((MAPS, *found.shape))

    def score() -> None:
        masses = found.integrate(maps)
        for gamma in GAMMAS:
            rescore(masses, found.areas, gamma)

    return interleaved({"score": score}, 5)["score"]


def _objects(image: CocoImage) -> list:
    return [thing for thing in image.objects if not thing.crowd]


def _run(images: Sequence[CocoImage], proposers: dict[str, Proposer]) -> tuple[Overlaps, dict[str, list[float]]]:
    overlaps: Overlaps = {}
    seconds: dict[str, list[float]] = {}
    proposers = {name: proposer for name, proposer in proposers.items() if _works(name, proposer)}
    for image in tqdm(images, "photos", unit="photo", disable=None):
        photo, things = read_image(image.path), _objects(image)
        for name, proposer in proposers.items():
            start = time.perf_counter()
            found = proposer(photo, image.id)
            seconds.setdefault(name, []).append(time.perf_counter() - start)
            for kind, values in _compare(found, things).items():
                overlaps.setdefault((name, kind), []).append(values)
    return overlaps, seconds


def _works(name: str, proposer: Proposer) -> bool:
    """Whether a proposer's package is installed. It compiles numba's functions, too."""
    try:
        proposer(np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8), None)
    except InputError as error:
        log.warning("%s is left out: %s", name, error)
        return False
    return True


def _compare(found: Proposals, things: list) -> dict[str, np.ndarray]:
    boxes = np.array([thing.box for thing in things]).reshape(-1, 4)
    overlaps = {"boxes": box_overlap(found.boxes, boxes)}
    if isinstance(found, Segments):
        masks = np.array([thing.mask() for thing in things]).reshape(-1, *found.size)
        overlaps["segments"] = region_overlap(found, masks) if things else np.zeros((0, len(found)))
    return overlaps


def _plot(overlaps: Overlaps, max_count: int, path: Path) -> None:
    """Draws recall over the number of proposals (at IoU .5 and .7) and over IoU (at 500 proposals)."""
    figure = Figure((11, 4.5), layout="constrained")
    number, level = figure.subplots(1, 2)
    curve = np.unique(np.geomspace(1, max_count, 60).round().astype(int))
    drawn: set[bytes] = set()
    for (name, kind), found in overlaps.items():
        best = np.concatenate([best_among(o, curve) for o in found])
        if best.tobytes() in drawn:  # the same proposals, with another number of threads
            continue
        drawn.add(best.tobytes())
        label, style = f"{name}, {kind}", "-" if kind == "boxes" else "--"
        (line,) = number.semilogx(curve, (best >= 0.5).mean(0), style, label=label)
        number.semilogx(curve, (best >= 0.7).mean(0), style, color=line.get_color(), alpha=0.4)
        at_500 = np.concatenate([best_among(o, [500]) for o in found])
        level.plot(LEVELS, (at_500 >= LEVELS).mean(0), style, label=label)
    number.set(xlabel="proposals", ylabel="recall at IoU .5 (strong) and .7 (pale)", ylim=(0, 1))
    level.set(xlabel="IoU", ylabel="recall at 500 proposals", ylim=(0, 1))
    level.legend(fontsize="small")
    with atomic_path(path) as aside:
        figure.savefig(aside, dpi=120, format="png")
