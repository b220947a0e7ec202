"""The step ``evaluate``: phrase localization on Flickr30k Entities, by the paper's protocol.

    grounding step=evaluate data.root=flickr30k_entities data.split=val attention=c-mwp gamma=0.25
    grounding step=evaluate data.root=flickr30k_entities data.split=val predictions=FILE.jsonl
    grounding step=evaluate data.root=flickr30k_entities data.split=val 'step.choose=[0.25,0.5,0.75]'

The ground truth of a phrase is the union of its boxes; a box is right at IoU >= 0.5; every phrase with a box counts,
and a phrase without a known word, or without a prediction, is a miss.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np
from tqdm import tqdm

from eval.attend import fill, scenes
from eval.choice import Choice, choose_gammas
from eval.counts import check_counts
from eval.figures import Figures
from eval.flickr30k import Entity, EntityImage, Flickr30kEntities
from eval.localization import DEPTHS, GAMMAS, MISS, SMALL, contains, first_correct, gamma_told, inclusive
from eval.predictions import Prediction, read_predictions, write_predictions
from grounding import Grounder
from grounding.runtime.artefacts import write_json, write_json_lines
from grounding.runtime.ranks import rank_of
from grounding.scene import GroundingScene
from proposals.errors import InputError

log = logging.getLogger(__name__)

TINY = 0.05  # of the image: later work leaves phrases below it out of pointing


@dataclass
class Judged:
    """What became of one phrase. Ranks count from 1; infinity is a miss.

    Attributes:
        place: image, sentence, phrase; text: as annotated; types: of the phrase.
        area: of its union box, a share of the image.
        rank: against the union box; any_rank: against any single box; whole_rank: of the whole image as the only box.
        scores: (K,) of the boxes that were judged, best first.
        centred: whether the image's centre lies in a box of the phrase.

    The rest is known of our own answers only:
        covered: some word has a tag; pointed: the map's maximum lies in a box of the phrase; reachable: some proposal
            is right; proposal_rank: in the proposals' own order;
        by_gamma, scores_by_gamma: ``rank`` and ``scores`` under other gammas;
        boxes: (K, 4) inclusive, what is written to predictions.jsonl.
    """

    place: tuple[str, int, int]
    text: str
    types: tuple[str, ...]
    area: float
    whole_rank: float
    centred: bool
    rank: float = MISS
    any_rank: float = MISS
    scores: np.ndarray = field(default_factory=lambda: np.zeros(0))
    covered: bool = False
    pointed: bool = False
    reachable: bool = False
    proposal_rank: float = MISS
    by_gamma: dict[float, float] = field(default_factory=lambda: dict.fromkeys(GAMMAS, MISS))
    scores_by_gamma: dict[float, np.ndarray] = field(default_factory=lambda: dict.fromkeys(GAMMAS, np.zeros(0)))
    boxes: np.ndarray = field(default_factory=lambda: np.zeros((0, 4)))


def evaluate(
    grounder: Grounder,
    root: str,
    split: str,
    output: str,
    limit: int | None = None,
    predictions: str | None = None,
    cache: str | None = None,
    choose: Sequence[float] | None = None,
    choose_on: str | None = None,
) -> dict:
    """Judges every phrase of a split, writes ``metrics.json`` (and ``predictions.jsonl``), and prints a table.

    Args:
        grounder: answers, unless there are predictions; root, split: of the data set; limit: the first so many photos.
        output: the folder that is written to; predictions: a file of them (see ``eval.predictions``), judged as it is.
        cache: a folder where maps and proposals are kept between runs; None keeps nothing.
        choose: gammas, of which each photo is answered with one that is best on other photos (see ``eval.choice``):
            those of the split ``choose_on``, or the other half of these. The intervals hold for the gammas chosen.

    Returns:
        The metrics, recalls in percent, with 95 % intervals over photos. A photo that cannot be read is named there and
        its phrases are misses. Of several ranks the first judges; the others help to fill the cache, where there are no
        predictions, and return nothing.

    Raises:
        InputError: the folder is no Flickr30k Entities, an annotation or a prediction is malformed, there is no phrase,
            the limit is below 1, gammas cannot be chosen so, or there are several ranks and no cache.
    """
    check_counts(limit=limit)
    images = list(islice(Flickr30kEntities(root, split), limit))
    about: dict = {"data": {"root": str(root), "split": split}, "images": len(images)}
    others = list(islice(Flickr30kEntities(root, choose_on), limit)) if choose_on else []
    if choose is not None or choose_on is not None:
        _check_choice(images, others, choose, predictions, cache)
    if not _judges(grounder, images + others, predictions, cache):
        return {}
    if predictions is None:
        choice = None
        if choose is not None:
            choice = choose_gammas(grounder, others if choose_on else images, choose, cache, twofold=not choose_on)
        judged, unread = _answers(grounder, images, cache, choice)
        about |= asdict(grounder.settings) | {"proposals": type(grounder.proposer).__name__, "skipped_images": unread}
        about |= _chosen(choice, choose_on) if choice else {}
        write_predictions(Path(output, "predictions.jsonl"), (Prediction(p.place, p.boxes, p.scores) for p in judged))
    else:
        judged, unknown = judge_file(images, predictions)
        about |= {"predictions": str(predictions), "unknown_predictions": unknown}
    metrics = about | measure(judged, own=predictions is None)
    write_json_lines(Path(output, "phrases.jsonl"), map(as_line, judged))
    write_json(Path(output, "metrics.json"), metrics)
    print(table(metrics))
    return metrics


def _check_choice(
    images: Sequence[EntityImage],
    others: Sequence[EntityImage],
    choose: Sequence[float] | None,
    predictions: str | None,
    cache: str | None,
) -> None:
    if choose is None:
        raise InputError("choose_on names where gammas are tried: say which, as step.choose=[0.25,0.5,0.75]")
    if predictions is not None or cache is None:
        raise InputError("gammas are chosen for our own answers, out of a cache: set cache=FOLDER, predictions=null")
    if both := {image.id for image in images} & {image.id for image in others}:
        raise InputError(f"photo {min(both)} is of both splits: choose on another, or leave out choose_on")


def _judges(grounder: Grounder, images: Sequence[EntityImage], predictions: str | None, cache: str | None) -> bool:
    """Whether this rank judges: the first does, once each has filled its share of the cache."""
    rank, world = rank_of()
    if world > 1 and predictions is None:
        if cache is None:
            raise InputError(f"{world} ranks share their work through a cache: set cache=FOLDER")
        fill(grounder, images, cache)
    return rank == 0


def _chosen(choice: Choice, choose_on: str | None) -> dict:
    """What ``metrics.json`` says of gammas that were chosen; "gamma" is None where the halves have different ones."""
    one, other = choice.gammas
    return {"gamma": one if one == other else None, "chosen": asdict(choice) | {"on": choose_on or "the other half"}}


def _answers(
    grounder: Grounder, images: Sequence[EntityImage], cache: str | None, choice: Choice | None
) -> tuple[list[Judged], list[str]]:
    """Every phrase judged, and the photos that could not be read."""
    judged: list[Judged] = []
    unread: list[str] = []
    for image, scene in scenes(grounder, images, cache, unread.append):
        gamma = choice.of(image) if choice else None
        judged += judge(scene, image, gamma) if scene else [unanswered(image, entity) for entity in image.entities]
    return judged, unread


def as_line(phrase: Judged) -> dict:
    """A line of ``phrases.jsonl``: what became of a phrase; a rank of None is a miss."""
    image, sentence, number = phrase.place
    line = {"image": image, "sentence": sentence, "phrase": number, "text": phrase.text, "types": list(phrase.types)}
    line |= {"area": phrase.area, "rank": None if phrase.rank == MISS else int(phrase.rank)}
    return line | {"covered": phrase.covered, "pointed": phrase.pointed, "reachable": phrase.reachable}


def judge(scene: GroundingScene, image: EntityImage, gamma: float | None = None) -> list[Judged]:
    """All phrases of one photo that was looked at; a gamma counts in place of the grounder's."""
    texts = [entity.text for entity in image.entities]
    proposals = inclusive(scene.proposals.boxes)
    judged = []
    for entity, answer in zip(image.entities, scene.ground(texts, gamma), strict=True):
        phrase = unanswered(image, entity)
        _compare(phrase, entity, inclusive(answer.boxes), answer.scores)
        phrase.covered, phrase.pointed = answer.groundable, contains(entity.boxes, answer.point)
        phrase.proposal_rank = first_correct(proposals, inclusive(entity.union[None]))
        phrase.reachable = phrase.proposal_rank < MISS
        judged.append(phrase)
    for gamma in GAMMAS:
        for phrase, entity, answer in zip(judged, image.entities, scene.ground(texts, gamma), strict=True):
            phrase.by_gamma[gamma] = first_correct(inclusive(answer.boxes), inclusive(entity.union[None]))
            phrase.scores_by_gamma[gamma] = answer.scores
    return judged


def judge_file(images: Sequence[EntityImage], path: str) -> tuple[list[Judged], list[list]]:
    """Every phrase judged by a file of predictions, and the predictions of phrases that the data set does not have.

    Raises:
        InputError: a line is malformed, or a phrase is predicted twice.
    """
    known = {(i.id, e.sentence, e.phrase): (unanswered(i, e), e) for i in images for e in i.entities}
    marked = {image.id: image.marked for image in images}
    unknown = []
    for prediction in tqdm(read_predictions(path), "predictions", unit="phrase", disable=None):
        if prediction.place in known:
            phrase, entity = known[prediction.place]
            _compare(phrase, entity, prediction.boxes, prediction.scores)
            phrase.boxes = np.zeros((0, 4))  # a million boxes need not be kept
        elif not _is_marked(prediction.place, marked):
            unknown.append(list(prediction.place))
    if unknown:
        log.warning("%d predictions of phrases that the split does not have, the first of %s", len(unknown), unknown[0])
    return [phrase for phrase, _ in known.values()], unknown


def _is_marked(place: tuple[str, int, int], marked: dict[str, tuple[int, ...]]) -> bool:
    image, sentence, phrase = place
    counts = marked.get(image, ())
    return sentence < len(counts) and phrase < counts[sentence]


def unanswered(image: EntityImage, entity: Entity) -> Judged:
    """A phrase before anything answers it."""
    height, width = image.size
    union = entity.union
    return Judged(
        place=(image.id, entity.sentence, entity.phrase),
        text=entity.text,
        types=entity.types,
        area=float((union[2] - union[0]) * (union[3] - union[1]) / (height * width)),
        whole_rank=first_correct(inclusive(np.array([[0, 0, width, height]])), inclusive(union[None])),
        centred=contains(entity.boxes, (width / 2, height / 2)),
    )


def _compare(phrase: Judged, entity: Entity, boxes: np.ndarray, scores: np.ndarray) -> None:
    """Judges inclusive boxes (K, 4), best first, as they are."""
    phrase.rank = first_correct(boxes, inclusive(entity.union[None]))
    phrase.any_rank = first_correct(boxes, inclusive(entity.boxes))
    phrase.boxes, phrase.scores = boxes, scores


def measure(judged: Sequence[Judged], own: bool = True) -> dict:
    """All figures of the protocol, in percent, out of what became of each phrase.

    Args:
        own: whether our own grounder answered, so that maps, proposals and words are known, too.

    Raises:
        InputError: there is no phrase.
    """
    if not judged:
        raise InputError("no phrase to judge: the split's sentences mark none with a box")
    figures = Figures([p.place[0] for p in judged])
    every, small = np.ones(len(judged), bool), np.array([p.area < SMALL for p in judged])
    types = {name: np.array([name in p.types for p in judged]) for name in sorted({t for p in judged for t in p.types})}
    ranks = np.array([p.rank for p in judged])
    _recall(figures, ("recall",), ranks, every)
    _recall(figures, ("recall_small",), ranks, small)
    for name, chosen in types.items():
        _recall(figures, ("recall_by_type", name), ranks, chosen)
    for depth in map(str, DEPTHS):
        figures.mean(("recall_type_mean", depth), [("recall_by_type", name, depth) for name in types])
    _recall(figures, ("recall_any_box",), np.array([p.any_rank for p in judged]), every)
    _recall(figures, ("baselines", "whole_image"), np.array([p.whole_rank for p in judged]), every)
    figures.share(("baselines", "centre_pointing"), np.array([p.centred for p in judged]), every)
    scores = [p.scores for p in judged]
    for suffix, subset in (("", every), ("_small", small)):
        _precision(figures, (), suffix, judged, (scores, ranks), subset, types)
    if own:
        _own(figures, judged, every, small, types)
    counts = {"phrases": len(judged), "phrases_small": int(small.sum())}
    counts["phrases_by_type"] = {name: int(chosen.sum()) for name, chosen in types.items()}
    return counts | figures.values | {"intervals": figures.intervals}


def _recall(figures: Figures, path: tuple[str, ...], ranks: np.ndarray, chosen: np.ndarray) -> None:
    """R@1, R@5 and R@10: the percentage of phrases whose first correct box has at most this rank."""
    for depth in DEPTHS:
        figures.share((*path, str(depth)), ranks <= depth, chosen)


def _precision(
    figures: Figures,
    path: tuple[str, ...],
    suffix: str,
    judged: Sequence[Judged],
    answers: tuple[Sequence[np.ndarray], np.ndarray],
    subset: np.ndarray,
    types: dict[str, np.ndarray],
) -> None:
    """AP of each type and of each phrase's text, in lower case, and their means: mAP (Group) and mAP (Phrase)."""
    groups = {name: np.flatnonzero(chosen & subset) for name, chosen in types.items()}
    figures.precision((*path, f"ap_by_type{suffix}"), (*path, f"ap_group{suffix}"), groups, *answers, spread=not path)
    texts: dict[str, list[int]] = {}
    for i in np.flatnonzero(subset).tolist():
        texts.setdefault(judged[i].text.lower(), []).append(i)
    phrases = {text: np.array(places) for text, places in texts.items()}
    figures.precision(None, (*path, f"ap_phrase{suffix}"), phrases, *answers, spread=not path)


def _own(
    figures: Figures, judged: Sequence[Judged], every: np.ndarray, small: np.ndarray, types: dict[str, np.ndarray]
) -> None:
    for gamma in GAMMAS:
        path = ("by_gamma", str(gamma))
        ranks = np.array([p.by_gamma[gamma] for p in judged])
        answers = [p.scores_by_gamma[gamma] for p in judged], ranks
        for suffix, subset in (("", every), ("_small", small)):
            _recall(figures, (*path, f"recall{suffix}"), ranks, subset)
            _precision(figures, path, suffix, judged, answers, subset, types)
    _recall(figures, ("baselines", "proposal_order"), np.array([p.proposal_rank for p in judged]), every)
    pointed = np.array([p.pointed for p in judged])
    figures.share(("pointing",), pointed, every)
    figures.share(("pointing_without_tiny",), pointed, np.array([p.area >= TINY for p in judged]))
    figures.share(("oracle_recall",), np.array([p.reachable for p in judged]), every)
    figures.share(("coverage",), np.array([p.covered for p in judged]), every)


def table(metrics: dict) -> str:
    """The metrics as lines of text, each figure with its 95 % interval."""
    intervals = metrics["intervals"]

    def row(name: str, *paths: Sequence[str]) -> str:
        return name.ljust(wide) + " / ".join(
            _cell(metrics, intervals, (*path, k)) for path in paths for k in map(str, DEPTHS)
        )

    own = "by_gamma" in metrics
    name = f"{metrics['method']}, gamma {gamma_told(metrics)}" if own else "predictions"
    wide = max(24, len(name) + 2)
    lines = [
        f"{metrics['images']} photos, {metrics['phrases']} phrases, {metrics['phrases_small']} of them small; percent "
        "(95 % interval over photos)",
        f"{'':{wide}}{'R@1':18} / {'R@5':18} / {'R@10':18} / {'small: R@1':18} / {'R@5':18} / R@10",
        row(name, ["recall"], ["recall_small"]),
        *(
            row(f"  gamma {gamma}", ["by_gamma", gamma, "recall"], ["by_gamma", gamma, "recall_small"])
            for gamma in metrics.get("by_gamma", {})
        ),
        row("any box", ["recall_any_box"]),
        *(row(baseline.replace("_", " "), ["baselines", baseline]) for baseline in _baselines(metrics)),
        *(row(f"{t} ({metrics['phrases_by_type'][t]})", ["recall_by_type", t]) for t in metrics["recall_by_type"]),
        row("mean over types", ["recall_type_mean"]),
        "",
        *_single_lines(metrics),
    ]
    if metrics.get("skipped_images"):
        lines.append(f"could not be read, counted as misses: {', '.join(metrics['skipped_images'])}")
    return "\n".join(lines)


def _baselines(metrics: dict) -> Iterator[str]:
    return (name for name, value in metrics["baselines"].items() if isinstance(value, dict))


def _single_lines(metrics: dict) -> Iterator[str]:
    names = {
        "ap_group": "mAP (Group)",
        "ap_group_small": "  small",
        "ap_phrase": "mAP (Phrase)",
        "ap_phrase_small": "  small",
        "pointing": "pointing",
        "pointing_without_tiny": "  of phrases over 5 %",
        "oracle_recall": "proposals' upper bound",
        "coverage": "phrases with a tag",
    }
    for key, name in names.items():
        if key in metrics:
            yield f"{name:24}{_cell(metrics, metrics['intervals'], (key,))}"
    yield f"{'image centre, pointing':24}{_cell(metrics, metrics['intervals'], ('baselines', 'centre_pointing'))}"
    for kind, value in metrics["ap_by_type"].items():
        if value is not None:
            yield f"{'AP ' + kind:24}{_cell(metrics, metrics['intervals'], ('ap_by_type', kind))}"


def _cell(values: dict, intervals: dict, path: Sequence[str]) -> str:
    for key in path:
        values, intervals = values[key], intervals[key]
    if values is None:
        return f"{'-':>5}{'':13}"
    return f"{values:5.1f} " + (f"({intervals[0]:.1f}-{intervals[1]:.1f})".ljust(12) if intervals else " " * 12)
