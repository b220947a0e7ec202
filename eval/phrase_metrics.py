"""The metrics of phrase localization on Flickr30k Entities: recall@k, average precision, pointing, baselines.

mAP (Group) ranks the boxes of different phrases together, so it depends on the scale of their scores, and the scale of
S_R / A_R^gamma differs from photo to photo. ``SCORE_SCALES`` offers the scores as they are, and each phrase's scores
divided by its best one. Recall does not depend on the scale.
"""

from collections.abc import Sequence

import numpy as np

from eval.gammas import GAMMAS
from eval.localization import DEPTHS, MISS, SMALL
from eval.metrics import Metrics
from eval.own_boxes import add_own_boxes, other_objects
from eval.phrase_results import PhraseResult
from eval.protocol import OURS, Protocol
from proposals.errors import InputError

SCORE_SCALES = ("raw", "unit")
TINY = 0.05  # of the image's area: later papers leave smaller phrases out of the pointing accuracy


def scaled(scores: np.ndarray, scale: str) -> np.ndarray:
    """The scores of a phrase at a scale.

    Args:
        scores: ``(K,)``, >= 0 if the scale is "unit".
        scale: "raw" leaves them as they are; "unit" divides them by the largest, unless it is 0.

    Returns:
        ``(K,)``.
    """
    best = scores.max(initial=0)
    return scores / best if scale == "unit" and best > 0 else scores


def check_scale(results: Sequence[PhraseResult], scale: str) -> None:
    """Checks that the scores of all phrases have a scale.

    Args:
        results: the results of all phrases.
        scale: one of ``SCORE_SCALES``.

    Raises:
        InputError: the scale is unknown, or it is "unit" and a phrase has a score below 0.
    """
    if scale not in SCORE_SCALES:
        raise InputError(f"score_scale={scale} must be one of {', '.join(SCORE_SCALES)}")
    below = [r.place for r in results if scale == "unit" and r.scores.min(initial=0) < 0]
    if below:
        raise InputError(
            f"score_scale=unit divides by each phrase's best score, but {below[0]} has scores below 0: use "
            "step.score_scale=raw, or write scores >= 0"
        )


def phrase_metrics(
    results: Sequence[PhraseResult], own: bool = True, protocol: Protocol = OURS, score_scale: str = "raw"
) -> dict:
    """All metrics of the protocol.

    Args:
        results: the results of all phrases of the split, judged by the protocol.
        own: whether the results are of our own answers, so that maps, proposals and words are known, too.
        protocol: the protocol.
        score_scale: the scale of the scores that average precision pools: one of ``SCORE_SCALES``.

    Returns:
        The metrics in percent, their 95 % intervals over photos under ``intervals``, and the numbers of phrases.

    Raises:
        InputError: there is no phrase, or see :func:`check_scale`.
    """
    if not results:
        raise InputError("no phrase to evaluate: the split's sentences mark no phrase with a box")
    check_scale(results, score_scale)
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
    if protocol.by_category:
        _add_recall_by_category(metrics, ranks, small, types)
        metrics.add_share(("parsed",), np.array([protocol.parsed(r.place) for r in results]), every)
    add_recall(metrics, ("recall_any_box",), np.array([r.any_rank for r in results]), every)
    whole = np.array([r.whole_rank if protocol.parsed(r.place) else MISS for r in results])
    add_recall(metrics, ("baselines", "whole_image"), whole, every)
    metrics.add_share(("baselines", "centre_pointing"), np.array([r.centred for r in results]), every)
    labels = [protocol.label(r.place, r.text) for r in results]
    scores = [scaled(r.scores, score_scale) for r in results]
    for suffix, subset in (("", every), ("_small", small)):
        _add_precision(metrics, (), suffix, labels, (scores, ranks), subset, types)
    if own:
        _add_gammas(metrics, results, labels, score_scale, types)
        _add_own(metrics, results, every)
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
        subset: see :meth:`Metrics.add_share`.
    """
    for depth in DEPTHS:
        metrics.add_share((*path, str(depth)), ranks <= depth, subset)


def _add_precision(
    metrics: Metrics,
    path: tuple[str, ...],
    suffix: str,
    labels: Sequence[str],
    answers: tuple[Sequence[np.ndarray], np.ndarray],
    subset: np.ndarray,
    types: dict[str, np.ndarray],
) -> None:
    """The AP of each type and of each label, and their means: mAP (Group) and mAP (Phrase)."""
    groups = {name: np.flatnonzero(chosen & subset) for name, chosen in types.items()}
    each, mean = (*path, f"ap_by_type{suffix}"), (*path, f"ap_group{suffix}")
    metrics.add_precision(each, mean, groups, *answers, with_intervals=not path)
    found: dict[str, list[int]] = {}
    for i in np.flatnonzero(subset).tolist():
        found.setdefault(labels[i], []).append(i)
    phrases = {label: np.array(indices) for label, indices in found.items()}
    metrics.add_precision(None, (*path, f"ap_phrase{suffix}"), phrases, *answers, with_intervals=not path)


def _add_recall_by_category(
    metrics: Metrics, ranks: np.ndarray, small: np.ndarray, types: dict[str, np.ndarray]
) -> None:
    """The overall recall in which a phrase counts once for each of its types."""
    for suffix, chosen in (("", np.ones(len(ranks), bool)), ("_small", small)):
        indices = np.concatenate([np.flatnonzero(chosen & of_type) for of_type in types.values()])
        add_recall(metrics, (f"recall_by_category{suffix}",), ranks, indices)


def _add_gammas(
    metrics: Metrics,
    results: Sequence[PhraseResult],
    labels: Sequence[str],
    score_scale: str,
    types: dict[str, np.ndarray],
) -> None:
    """Recall and average precision under each gamma."""
    small = np.array([r.area < SMALL for r in results])
    for gamma in GAMMAS:
        path = ("by_gamma", str(gamma))
        ranks = np.array([r.rank_by_gamma[gamma] for r in results])
        answers = [scaled(r.scores_by_gamma[gamma], score_scale) for r in results], ranks
        for suffix, subset in (("", np.ones(len(results), bool)), ("_small", small)):
            add_recall(metrics, (*path, f"recall{suffix}"), ranks, subset)
            _add_precision(metrics, path, suffix, labels, answers, subset, types)


def _add_own(metrics: Metrics, results: Sequence[PhraseResult], every: np.ndarray) -> None:
    """The other metrics that need maps, proposals and words."""
    add_recall(metrics, ("baselines", "proposal_order"), np.array([r.proposal_rank for r in results]), every)
    pointed = np.array([r.pointed for r in results])
    metrics.add_share(("pointing",), pointed, every)
    metrics.add_share(("pointing_without_tiny",), pointed, np.array([r.area >= TINY for r in results]))
    metrics.add_share(("oracle_recall",), np.array([r.reachable for r in results]), every)
    metrics.add_share(("coverage",), np.array([r.covered for r in results]), every)
