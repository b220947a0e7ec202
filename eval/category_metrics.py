"""The metrics of phrase localization on everyday photos: recall@k, pointing, own boxes, baselines."""

from collections.abc import Callable, Sequence

import numpy as np

from eval.category_results import CategoryResult
from eval.localization import DEPTHS, SMALL
from eval.metrics import Metrics
from eval.own_boxes import add_own_boxes, all_others
from eval.phrase_metrics import TINY, add_recall
from proposals.errors import InputError

AREAS = {f"below_{TINY}": (0, TINY), f"{TINY}_to_{SMALL}": (TINY, SMALL), f"from_{SMALL}": (SMALL, np.inf)}
POINTS: dict[str, Callable[[CategoryResult], bool]] = {
    "pointing": lambda r: r.hit,  # the Pointing Game's rule
    "pointing_on_pixel": lambda r: r.on_pixel,
    "pointing_in_box": lambda r: r.pointed,  # the rule on Flickr30k Entities
}


def category_metrics(results: Sequence[CategoryResult], own: bool = True, points: bool = True) -> dict:
    """All metrics but presence.

    Args:
        results: the results of all phrases.
        own: whether the results are of our own answers, so that proposals and words are known, too.
        points: whether the answers have points.

    Returns:
        The metrics in percent, their 95 % intervals over photos under ``intervals``, and the numbers of phrases. The
        subsets are "difficult" (see ``eval.pointing_game``) and, by the union box's share of the photo, "by_area".

    Raises:
        InputError: there is no phrase.
    """
    if not results:
        raise InputError("no phrase to evaluate: no photo shows a category that is more than a crowd")
    metrics = Metrics([r.place[0] for r in results])
    areas = np.array([r.area for r in results])
    subsets: dict[tuple[str, ...], np.ndarray] = {
        (): np.ones(len(results), bool),
        ("difficult",): np.array([r.difficult for r in results]),
        **{("by_area", name): (low <= areas) & (areas < high) for name, (low, high) in AREAS.items()},
    }
    names = sorted({r.text for r in results})
    classes = {("by_class", name): np.array([r.text == name for r in results]) for name in names}
    for path, subset in (subsets | classes).items():
        _add_answers(metrics, path, results, subset, points)
    for key in POINTS if points else ():
        metrics.add_mean((f"{key}_class_mean",), [(*path, key) for path in classes])
    counted = add_own_boxes(metrics, results, all_others)
    if own:
        metrics.add_share(("oracle_recall",), np.array([r.reachable for r in results]), subsets[()])
        metrics.add_share(("coverage",), np.array([r.covered for r in results]), subsets[()])
    counts: dict = {"phrases": len(results), "phrases_own_box": counted}
    counts["phrases_difficult"] = int(subsets["difficult",].sum())
    counts |= {"phrases_by_area": {path[-1]: int(s.sum()) for path, s in subsets.items() if path[:1] == ("by_area",)}}
    counts["phrases_by_class"] = {path[-1]: int(subset.sum()) for path, subset in classes.items()}
    return counts | metrics.values | {"intervals": metrics.intervals}


def _add_answers(
    metrics: Metrics, path: tuple[str, ...], results: Sequence[CategoryResult], subset: np.ndarray, points: bool
) -> None:
    """Recall, pointing and the baselines of a subset of the phrases."""
    add_recall(metrics, (*path, "recall"), np.array([r.any_rank for r in results]), subset)
    add_recall(metrics, (*path, "recall_union"), np.array([r.rank for r in results]), subset)
    for key, is_right in POINTS.items() if points else ():
        metrics.add_share((*path, key), np.array([is_right(r) for r in results]), subset)
    baselines = (*path, "baselines")
    whole, union = (np.array([getattr(r, key) for r in results]) for key in ("whole_any_rank", "whole_rank"))
    metrics.add_share((*baselines, "whole_image"), whole <= DEPTHS[0], subset)
    metrics.add_share((*baselines, "whole_image_union"), union <= DEPTHS[0], subset)
    metrics.add_share((*baselines, "centre_pointing"), np.array([r.centre_hit for r in results]), subset)
