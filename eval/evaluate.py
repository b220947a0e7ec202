"""The step ``evaluate``: phrase localization on Flickr30k Entities, by the paper's protocol (Sec. 4.3), COCO or VOC.

    grounding step=evaluate data.root=flickr30k_entities data.split=val attention=c-mwp gamma=0.25
    grounding step=evaluate data.root=flickr30k_entities data.split=val predictions=FILE.jsonl
    grounding step=evaluate data.root=flickr30k_entities data.split=val 'step.gamma_candidates=[0.25,0.5,0.75]'
    grounding step=evaluate data.root=flickr30k_entities data.split=val step.protocol=iccv15 step.score_scale=unit
    grounding step=evaluate data=coco2017
    grounding step=evaluate data=voc2012

The ground truth of a phrase of Entities is the union of its boxes; a box is correct at IoU >= 0.5. Every phrase with a
box counts: a phrase without a known word, or without a prediction, is a miss. On COCO and VOC each category that a
photo shows is a phrase; see ``eval.categories`` and ``eval.category_metrics``.
"""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from eval.categories import CategoryPhotos, ObjectPhotos
from eval.category_evaluation import evaluate_categories
from eval.checks import check_counts
from eval.evaluation_table import evaluation_table
from eval.flickr30k import EntityImage, Flickr30kEntities
from eval.gamma_selection import GammaSelection, select_gammas
from eval.halves import HalfOf, part_record
from eval.photo_reading import UNUSABLE, faulty_names, photo_ledger, read_photos, require_files
from eval.phrase_metrics import SCORE_SCALES, check_scale, phrase_metrics
from eval.phrase_results import PhraseResult, answer_phrases
from eval.prediction_results import SKIPPED, compare_predictions, entities_judge
from eval.predictions import Prediction, write_predictions
from eval.protocol import OURS, Protocol, find_protocol
from eval.scenes import evaluates_here, scenes
from grounding import Grounder
from grounding.runtime.artefacts import write_json, write_json_lines
from grounding.runtime.ledger import Ledger
from grounding.shards.photo_parts import LEASE
from proposals.errors import InputError


def evaluate(
    grounder: Grounder,
    root: str,
    split: str,
    output: str,
    limit: int | None = None,
    predictions: str | None = None,
    cache: str | None = None,
    gamma_candidates: Sequence[float] | None = None,
    gamma_split: str | None = None,
    partial_predictions: bool = False,
    photos: ObjectPhotos | None = None,
    part: str = "all",
    protocol: str = "ours",
    score_scale: str = "raw",
    phrase_list: str | None = None,
    lease: float = LEASE,
) -> dict:
    """Evaluates every phrase of a split, writes ``metrics.json`` and ``phrases.jsonl``, and prints a table.

    Without ``predictions``, our own answers are evaluated and written to ``predictions.jsonl``.

    Args:
        grounder: answers the phrases, unless there are predictions.
        root: the folder of Flickr30k Entities.
        split: the name of the split, for example ``val``.
        output: the folder for the results.
        limit: use only the first ``limit`` photos; None for all.
        predictions: a file of predictions to evaluate (see ``eval.predictions``); None for our own answers.
        cache: the folder where maps and proposals are kept between runs; None to keep nothing.
        gamma_candidates: gammas to select from. Each photo is answered with the gamma that is best on other photos
            (see ``eval.gamma_selection``). The intervals do not include the uncertainty of the selection.
        gamma_split: the split to select gamma on; None to select it for each half of the photos on the other half.
        partial_predictions: whether the file of predictions may lack phrases, which are then misses.
        photos: a reader of COCO or VOC, whose categories are the phrases; None for Flickr30k Entities.
        part: which photos to use: all, even or odd (see ``eval.halves``); ``limit`` counts those.
        protocol: how boxes are judged: ours or iccv15 (see ``eval.protocol``).
        score_scale: the scale of the scores in average precision: raw or unit (see ``eval.phrase_metrics``).
        phrase_list: the ``phraseList.txt`` of the published evaluation program, for iccv15; None to approximate it.
        lease: seconds after which the photos of a process that has died are taken over.

    Returns:
        The metrics, recalls in percent, with 95 % intervals over photos. A photo that cannot be read is listed there,
        and its phrases are misses. Photos whose annotations cannot be used have no phrases; they are listed there, too.
        ``skipped.jsonl`` lists both. Several ranks share the photos to fill the cache; then the first one evaluates,
        and the others return an empty dictionary.

    Raises:
        InputError: the folder is not Flickr30k Entities, no photo can be used, a prediction is malformed or missing,
            there is no phrase, ``limit`` is below 1, ``part``, ``protocol`` or ``score_scale`` is unknown, gamma cannot
            be selected, or there are several ranks and no cache.
    """
    check_counts(limit=limit)
    if photos is not None:
        if gamma_candidates is not None or gamma_split is not None:
            raise InputError(
                "gamma is selected on Flickr30k Entities: set step.gamma_candidates=null and gamma_split=null"
            )
        if (protocol, score_scale, phrase_list) != (OURS.name, SCORE_SCALES[0], None):
            raise InputError("protocol, score_scale and phrase_list are of Flickr30k Entities: leave them as they are")
        own = CategoryPhotos(photos)
        return evaluate_categories(grounder, own, output, limit, predictions, cache, partial_predictions, part, lease)
    data = Flickr30kEntities(root, split)
    ledger = photo_ledger(data)
    images = read_photos(HalfOf(data, part), ledger, limit, files=False)
    if predictions is None:
        require_files(images, data.folder)
    left_out = faulty_names(ledger)
    others = _read_split(root, gamma_split, limit)
    judged_by = find_protocol(protocol, data, images + others, phrase_list)
    check_scale((), score_scale)
    if gamma_candidates is not None or gamma_split is not None:
        _check_selection(images, others, gamma_candidates, predictions, cache)
    if not evaluates_here(grounder, images + others, predictions, cache, lease):
        return {}
    metrics: dict = {
        "data": {"root": str(root), "split": split} | part_record(part),
        "images": len(images),
        "left_out": left_out,
        "protocol": judged_by.name,
        "score_scale": score_scale,
    }
    if predictions is None:
        selection = None
        if gamma_candidates is not None:
            twofold = not gamma_split
            selection = select_gammas(
                grounder, images if twofold else others, gamma_candidates, cache, twofold, judged_by
            )
        results, unread = _answer(grounder, images, cache, selection, ledger, judged_by)
        metrics |= grounder.used_settings() | {"skipped_images": unread}
        metrics |= {"proposals": type(grounder.proposer).__name__}
        metrics |= _selection_record(selection, gamma_split) if selection else {}
        write_predictions(Path(output, "predictions.jsonl"), (Prediction(r.place, r.boxes, r.scores) for r in results))
    else:
        judge = entities_judge(images, judged_by)
        found = compare_predictions(images, predictions, judge, partial_predictions, set(data.ids))
        results = found.phrases
        found.ledger.finish(output, SKIPPED)
        metrics |= {"predictions": str(predictions), "unknown_predictions": list(map(list, found.unknown))}
        metrics |= {"missing_predictions": len(found.missing)}
        ledger.kept = len(images)
    ledger.finish(output)
    results = [result for result in results if judged_by.counts(result.place)]
    metrics |= phrase_metrics(results, predictions is None, judged_by, score_scale)
    write_json_lines(Path(output, "phrases.jsonl"), (result.as_record() for result in results))
    write_json(Path(output, "metrics.json"), metrics)
    print(evaluation_table(metrics))
    return metrics


def _read_split(root: str, split: str | None, limit: int | None) -> list[EntityImage]:
    if split is None:
        return []
    data = Flickr30kEntities(root, split)
    return read_photos(data, photo_ledger(data), limit, files=False)


def _check_selection(
    images: Sequence[EntityImage],
    others: Sequence[EntityImage],
    candidates: Sequence[float] | None,
    predictions: str | None,
    cache: str | None,
) -> None:
    if candidates is None:
        raise InputError("gamma_split needs gammas to select from: set step.gamma_candidates=[0.25,0.5,0.75]")
    if predictions is not None or cache is None:
        raise InputError("gamma is selected for our own answers, with a cache: set cache=FOLDER and predictions=null")
    if both := {image.id for image in images} & {image.id for image in others}:
        raise InputError(f"photo {min(both)} is in both splits: use another gamma_split, or leave it out")


def _selection_record(selection: GammaSelection, split: str | None) -> dict:
    """The selected gammas for ``metrics.json``; "gamma" is None if the two halves have different ones."""
    one, other = selection.gammas
    return {"gamma": one if one == other else None, "chosen": asdict(selection) | {"on": split or "the other half"}}


def _answer(
    grounder: Grounder,
    images: Sequence[EntityImage],
    cache: str | None,
    selection: GammaSelection | None,
    ledger: Ledger,
    protocol: Protocol,
) -> tuple[list[PhraseResult], list[str]]:
    """The result of every phrase, and the photos that could not be read."""
    results: list[PhraseResult] = []
    unread: list[str] = []

    def skip(name: str, error: str) -> None:
        unread.append(name)
        ledger.skip(name, UNUSABLE, error)

    for image, scene in scenes(grounder, images, cache, skip):
        if scene:
            results += answer_phrases(scene, image, selection.gamma_for(image) if selection else None, protocol)
        else:
            results += [PhraseResult.unanswered(image, entity) for entity in image.entities]
    ledger.kept = len(images) - len(unread)
    return results, unread
