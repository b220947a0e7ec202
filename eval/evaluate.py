"""The step ``evaluate``: phrase localization on Flickr30k Entities, by the paper's protocol.

    grounding step=evaluate data.root=flickr30k_entities data.split=val attention=c-mwp gamma=0.25

The ground truth of a phrase is the union of its boxes; a box is right at IoU >= 0.5; every phrase with a box counts,
and a phrase without a known word is a miss. AP and the other tables are not measured here yet.
"""

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np
from tqdm import tqdm

from eval.flickr30k import Entity, EntityImage, Flickr30kEntities
from eval.localization import MISS, contains, first_correct, inclusive, mean_recall, percent, recall
from grounding import Grounder, Grounding
from grounding.artefacts import written_aside
from proposals.errors import InputError

log = logging.getLogger(__name__)

# the range of Sec. 4.3
GAMMAS = (0.0, 0.25, 0.5, 0.75, 1.0)
SMALL = 0.25


@dataclass
class Judged:
    """What became of one phrase. Ranks count from 1; infinity is a miss.

    Attributes:
        place: image, sentence, phrase; types: of the phrase; small: its union box is under a quarter of the image.
        covered: some word has a tag; pointed: the map's maximum lies in a box of the phrase; centred: the image's
            centre does; reachable: some proposal is right.
        rank: against the union box; any_rank: against any single box; by_gamma: ``rank`` under other gammas.
        whole_rank: of the whole image as the only box; proposal_rank: in the proposals' own order.
        boxes, scores: what is written to predictions.jsonl.
    """

    place: tuple[str, int, int]
    types: tuple[str, ...]
    small: bool
    whole_rank: float
    centred: bool
    covered: bool = False
    pointed: bool = False
    reachable: bool = False
    rank: float = MISS
    any_rank: float = MISS
    proposal_rank: float = MISS
    by_gamma: dict[float, float] = field(default_factory=lambda: dict.fromkeys(GAMMAS, MISS))
    boxes: np.ndarray = field(default_factory=lambda: np.zeros((0, 4)))
    scores: np.ndarray = field(default_factory=lambda: np.zeros(0))


def evaluate(grounder: Grounder, root: str, split: str, output: str, limit: int | None = None) -> dict:
    """Grounds every phrase of a split, writes ``metrics.json`` and ``predictions.jsonl``, and prints a table.

    Args:
        root, split: of the data set; limit: the first so many photos; output: the folder that is written to.

    Returns:
        The metrics, recalls in percent. A photo that cannot be read is named there and its phrases are misses.

    Raises:
        InputError: the folder is no Flickr30k Entities, or an annotation is malformed.
    """
    images = list(islice(Flickr30kEntities(root, split), limit))
    judged: list[Judged] = []
    unread: list[str] = []
    for image in tqdm(images, "photos", unit="photo", disable=None):
        try:
            judged += judge(grounder, image)
        except InputError as error:
            log.warning("skipped %s: %s", image.id, error)
            unread.append(image.id)
            judged += [_unanswered(image, entity) for entity in image.entities]
    metrics = {"images": len(images), "phrases": len(judged), "skipped_images": unread}
    metrics |= asdict(grounder.settings) | {"data": {"root": str(root), "split": split}} | measure(judged)
    with written_aside(Path(output, "metrics.json")) as aside:
        aside.write_text(json.dumps(metrics, indent=1), "utf-8")
    with written_aside(Path(output, "predictions.jsonl")) as aside, aside.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(as_prediction(phrase)) + "\n" for phrase in judged)
    print(table(metrics))
    return metrics


def judge(grounder: Grounder, image: EntityImage) -> list[Judged]:
    """All phrases of one photo.

    Raises:
        InputError: the photo cannot be read.
    """
    if not image.entities:
        return []
    scene = grounder.look(image.path)
    texts = [entity.text for entity in image.entities]
    proposals = inclusive(scene.proposals.boxes)
    judged = []
    for entity, answer in zip(image.entities, scene.ground(texts), strict=True):
        phrase = _unanswered(image, entity)
        _compare(phrase, entity, answer)
        phrase.proposal_rank = first_correct(proposals, inclusive(entity.union[None]))
        phrase.reachable = phrase.proposal_rank < MISS
        judged.append(phrase)
    for gamma in GAMMAS:
        for phrase, entity, answer in zip(judged, image.entities, scene.ground(texts, gamma), strict=True):
            phrase.by_gamma[gamma] = first_correct(inclusive(answer.boxes), inclusive(entity.union[None]))
    return judged


def _unanswered(image: EntityImage, entity: Entity) -> Judged:
    height, width = image.size
    union = entity.union
    area = (union[2] - union[0]) * (union[3] - union[1])
    return Judged(
        place=(image.id, entity.sentence, entity.phrase),
        types=entity.types,
        small=bool(area < SMALL * height * width),
        whole_rank=first_correct(inclusive(np.array([[0, 0, width, height]])), inclusive(union[None])),
        centred=contains(entity.boxes, (width / 2, height / 2)),
    )


def _compare(phrase: Judged, entity: Entity, answer: Grounding) -> None:
    boxes = inclusive(answer.boxes)
    phrase.covered = answer.groundable
    phrase.pointed = contains(entity.boxes, answer.point)
    phrase.rank = first_correct(boxes, inclusive(entity.union[None]))
    phrase.any_rank = first_correct(boxes, inclusive(entity.boxes))
    phrase.boxes, phrase.scores = boxes, answer.scores


def measure(judged: Sequence[Judged]) -> dict:
    """All figures of the protocol, in percent, out of what became of each phrase.

    Raises:
        InputError: there is no phrase.
    """
    small = [phrase for phrase in judged if phrase.small]
    types = {name: [p for p in judged if name in p.types] for name in sorted({t for p in judged for t in p.types})}
    by_type = {name: recall([p.rank for p in phrases]) for name, phrases in types.items()}
    return {
        "recall": recall([p.rank for p in judged]),
        "recall_small": recall([p.rank for p in small]),
        "recall_by_type": by_type,
        "recall_type_mean": mean_recall(list(by_type.values())),
        "recall_any_box": recall([p.any_rank for p in judged]),
        "recall_by_gamma": {str(gamma): _under(judged, small, gamma) for gamma in GAMMAS},
        "pointing": percent([p.pointed for p in judged]),
        "oracle_recall": percent([p.reachable for p in judged]),
        "coverage": percent([p.covered for p in judged]),
        "phrases_small": len(small),
        "phrases_by_type": {name: len(phrases) for name, phrases in types.items()},
        "baselines": {
            "whole_image": recall([p.whole_rank for p in judged]),
            "proposal_order": recall([p.proposal_rank for p in judged]),
            "centre_pointing": percent([p.centred for p in judged]),
        },
    }


def _under(judged: Sequence[Judged], small: Sequence[Judged], gamma: float) -> dict:
    ranks, small_ranks = ([p.by_gamma[gamma] for p in phrases] for phrases in (judged, small))
    return {"recall": recall(ranks), "recall_small": recall(small_ranks)}


def as_prediction(phrase: Judged) -> dict:
    """A line of predictions.jsonl: inclusive xyxy in pixels from 0, best first."""
    image, sentence, number = phrase.place
    boxes, scores = phrase.boxes.round(2).tolist(), phrase.scores.tolist()
    return {"image": image, "sentence": sentence, "phrase": number, "boxes": boxes, "scores": scores}


def table(metrics: dict) -> str:
    """The metrics as lines of text."""

    def row(name: str, *recalls: dict[str, float | None]) -> str:
        cells = " / ".join(f"{r[k]:5.1f}" if r[k] is not None else "    -" for r in recalls for k in r)
        return f"{name:24}{cells}"

    own = f"{metrics['method']}, gamma {metrics['gamma']:g}"
    lines = [
        f"{metrics['images']} photos, {metrics['phrases']} phrases, {metrics['phrases_small']} of them small",
        f"{'':24}  R@1 /   R@5 /  R@10 / small: R@1 / R@5 / R@10",
        row(own, metrics["recall"], metrics["recall_small"]),
        *(
            row(f"  gamma {gamma}", both["recall"], both["recall_small"])
            for gamma, both in metrics["recall_by_gamma"].items()
        ),
        row("any box", metrics["recall_any_box"]),
        row("whole image", metrics["baselines"]["whole_image"]),
        row("proposals' own order", metrics["baselines"]["proposal_order"]),
        *(
            row(f"{name} ({metrics['phrases_by_type'][name]})", recalls)
            for name, recalls in metrics["recall_by_type"].items()
        ),
        row("mean over types", metrics["recall_type_mean"]),
        f"pointing {metrics['pointing']:.1f} (image centre {metrics['baselines']['centre_pointing']:.1f}), "
        f"upper bound of the proposals {metrics['oracle_recall']:.1f}, phrases with a tag {metrics['coverage']:.1f}",
    ]
    if metrics["skipped_images"]:
        lines.append(f"could not be read, counted as misses: {', '.join(metrics['skipped_images'])}")
    return "\n".join(lines)
