"""The metrics of phrase localization on Flickr30k Entities: recall@k, average precision, pointing, baselines."""

from collections.abc import Sequence

import numpy as np

from eval.gammas import GAMMAS
from eval.localization import DEPTHS, SMALL
from eval.metrics import Metrics
from eval.own_boxes import add_own_boxes, other_objects
from eval.phrase_results import PhraseResult
from proposals.errors import InputError

TINY = 0.05  # of the image's area: later papers leave smaller phrases out of the pointing accuracy


def phrase_metrics(results: Sequence[PhraseResult], own: bool = True) -> dict:
    """All metrics of the protocol.

    Args:
        results: the results of all phrases of the split.
        own: whether the results are of our own answers, so that maps, proposals and words are known, too.

    Returns:
        The metrics in percent, their 95 % intervals over photos under ``intervals``, and the numbers of phrases.

    Raises:
        InputError: there is no phrase.
    """
    if not results:
        raise InputError("no phrase to evaluate: the split's sentences mark no phrase with a box")
    metrics = Metrics([r.place[0] for r in results])
    every, small = np.ones(len(results), bool), np.array([r.area < SMALL for r in results])
    names = sorted({name for r in results for name in r.types})
    types = {name: np.array([name in r.types for r in results]) for name in names}
    ranks = np.array([r.rank for r in results])
    add_recall(metrics, ("recall",), ranks, every)
    add_recall(metrics, ("recall_small",), ranks, small)
    for name, subset in types.items():
        add_recall(metrics, ("recall_by_type", name), ranks, subset)
    for depth in map(str, DEPTHS):
        metrics.add_mean(("recall_type_mean", depth), [("recall_by_type", name, depth) for name in types])
    add_recall(metrics, ("recall_any_box",), np.array([r.any_rank for r in results]), every)
    add_recall(metrics, ("baselines", "whole_image"), np.array([r.whole_rank for r in results]), every)
    metrics.add_share(("baselines", "centre_pointing"), np.array([r.centred for r in results]), every)
    scores = [r.scores for r in results]
    for suffix, subset in (("", every), ("_small", small)):
        _add_precision(metrics, (), suffix, results, (scores, ranks), subset, types)
    if own:
        _add_own(metrics, results, every, small, types)
    counted = add_own_boxes(metrics, results, other_objects)
    counts: dict = {"phrases": len(results), "phrases_own_box": counted, "phrases_small": int(small.sum())}
    counts["phrases_by_type"] = {name: int(subset.sum()) for name, subset in types.items()}
    return counts | metrics.values | {"intervals": metrics.intervals}


def add_recall(metrics: Metrics, path: tuple[str, ...], ranks: np.ndarray, subset: np.ndarray) -> None:
    """Adds R@1, R@5 and R@10: the percentage of phrases whose first correct box has at most this rank.

    Args:
        metrics: receives the metrics.
        path: the keys of the metrics, without the rank.
        ranks: ``(N,)``, the rank of each phrase's first correct box.
        subset: ``(N,)`` bool, the phrases that count.
    """
    for depth in DEPTHS:
        metrics.add_share((*path, str(depth)), ranks <= depth, subset)


def _add_precision(
    metrics: Metrics,
    path: tuple[str, ...],
    suffix: str,
    results: Sequence[PhraseResult],
    answers: tuple[Sequence[np.ndarray], np.ndarray],
    subset: np.ndarray,
    types: dict[str, np.ndarray],
) -> None:
    """The AP of each type and of each text in lower case, and their means: mAP (Group) and mAP (Phrase)."""
    groups = {name: np.flatnonzero(chosen & subset) for name, chosen in types.items()}
    each, mean = (*path, f"ap_by_type{suffix}"), (*path, f"ap_group{suffix}")
    metrics.add_precision(each, mean, groups, *answers, with_intervals=not path)
    texts: dict[str, list[int]] = {}
    for i in np.flatnonzero(subset).tolist():
        texts.setdefault(results[i].text.lower(), []).append(i)
    phrases = {text: np.array(indices) for text, indices in texts.items()}
    metrics.add_precision(None, (*path, f"ap_phrase{suffix}"), phrases, *answers, with_intervals=not path)


def _add_own(
    metrics: Metrics,
    results: Sequence[PhraseResult],
    every: np.ndarray,
    small: np.ndarray,
    types: dict[str, np.ndarray],
) -> None:
    """The metrics that need maps, proposals and words."""
    for gamma in GAMMAS:
        path = ("by_gamma", str(gamma))
        ranks = np.array([r.rank_by_gamma[gamma] for r in results])
        answers = [r.scores_by_gamma[gamma] for r in results], ranks
        for suffix, subset in (("", every), ("_small", small)):
            add_recall(metrics, (*path, f"recall{suffix}"), ranks, subset)
            _add_precision(metrics, path, suffix, results, answers, subset, types)
    add_recall(metrics, ("baselines", "proposal_order"), np.array([r.proposal_rank for r in results]), every)
    pointed = np.array([r.pointed for r in results])
    metrics.add_share(("pointing",), pointed, every)
    metrics.add_share(("pointing_without_tiny",), pointed, np.array([r.area >= TINY for r in results]))
    metrics.add_share(("oracle_recall",), np.array([r.reachable for r in results]), every)
    metrics.add_share(("coverage",), np.array([r.covered for r in results]), every)
