"""The step ``compare``: the difference of two evaluations of the same phrases.

    grounding step=compare run=runs/best step.against=runs/paper

Both runs answer the same phrases of the same photos, and each bootstrap resample draws the same photos for both. This
paired interval of the difference is much narrower than the interval of either run.

Runs of the Pointing Game are compared class by class.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from eval.bootstrap import interval, resampled_share, resamples
from eval.failures import REASONS, reason_of
from eval.localization import DEPTHS, SMALL
from eval.point_comparison import compare_points, is_points, point_table
from eval.protocol import OURS
from eval.runs import read_run
from grounding.runtime.artefacts import write_json
from proposals.errors import InputError


def compare(run: str, against: str | Sequence[str], output: str) -> dict:
    """Compares two evaluations on Flickr30k Entities, COCO or VOC, prints a table, and writes ``compare.json``.

    If ``run`` is a Pointing Game, all runs are, and they are compared by ``eval.point_comparison.compare_points``.

    Args:
        run: the folder of an evaluation of our own answers.
        against: the folder of the other one; of Pointing Games also a list of folders.
        output: the folder for the result.

    Returns:
        "figures": for each metric its percentage in both runs, and their difference with a paired 95 % interval over
        photos. "reasons": the reasons of the phrases' results (see ``eval.failures``), in percent, in both runs.

    Raises:
        InputError: a folder has no such evaluation, the two evaluations are of different phrases or protocols, or there
            is more than one other evaluation.
    """
    if is_points(run):
        record = compare_points(run, [against] if isinstance(against, str) else list(against))
        write_json(Path(output, "compare.json"), record)
        print(point_table(record))
        return record
    if not isinstance(against, str):
        raise InputError("step.against is a list: only runs of step=point can be compared with several others")
    (one, ours), (other, theirs) = _phrases(run), _phrases(against)
    if one != other:
        raise InputError(f"{run} has protocol {one}, {against} has {other}: evaluate both with the same step.protocol")
    if ours.keys() != theirs.keys():
        odd = min(map(str, ours.keys() ^ theirs.keys()))
        raise InputError(f"{run} and {against} have different phrases (for example {odd}): evaluate the same photos")
    pairs = [(ours[place], theirs[place]) for place in ours]
    record = {"run": str(run), "against": str(against), "figures": _differences(pairs), "reasons": _reasons(pairs)}
    write_json(Path(output, "compare.json"), record)
    print(table(record))
    return record


def _phrases(run: str) -> tuple[str, dict[tuple, dict]]:
    """The protocol of a run, and its phrases by their places. Runs of earlier versions and of COCO name no protocol."""
    metrics, phrases = read_run(run)
    places = {(p["image"], p.get("sentence"), p["phrase"]): p for p in phrases}
    return metrics.get("protocol", OURS.name), places


def _measures(phrase: dict) -> Mapping[str, Callable[[dict], bool]]:
    """For each metric of a phrase's data set, by its name, whether a phrase is a hit."""
    recalls = {f"R@{k}": lambda p, k=k: p["rank"] is not None and p["rank"] <= k for k in DEPTHS}
    if "union_rank" not in phrase:
        return recalls | {"pointing": lambda p: p["pointed"]}
    unions = {f"union R@{k}": lambda p, k=k: (p["union_rank"] or np.inf) <= k for k in DEPTHS}
    return recalls | unions | {"pointing": lambda p: p["hit"]}


def _differences(pairs: Sequence[tuple[dict, dict]]) -> dict[str, dict]:
    subsets = {"": pairs, "small ": [pair for pair in pairs if pair[0]["area"] < SMALL]}
    subsets["difficult "] = [pair for pair in pairs if pair[0].get("difficult")]
    differences: dict[str, dict] = {}
    for prefix, subset in subsets.items():
        differences |= _differences_of(subset, _measures(pairs[0][0]), prefix)
    own = [pair for pair in pairs if pair[0].get("own") is not None]
    return differences | _differences_of(own, {"own box": lambda p: p["own"]}, "")


def _differences_of(
    pairs: Sequence[tuple[dict, dict]], measures: Mapping[str, Callable[[dict], bool]], prefix: str
) -> dict[str, dict]:
    """The differences of a subset of the phrases; none of an empty one."""
    names = {name: i for i, name in enumerate(dict.fromkeys(one["image"] for one, _ in pairs))}
    photo = np.array([names[one["image"]] for one, _ in pairs], np.int64)
    weights = resamples(len(names)) if pairs else np.zeros((0, 0))
    return {prefix + name: _difference(pairs, hit, photo, weights) for name, hit in measures.items() if pairs}


def _difference(
    pairs: Sequence[tuple[dict, dict]], is_hit: Callable[[dict], bool], photo: np.ndarray, weights: np.ndarray
) -> dict:
    hits = [np.array([is_hit(pair[side]) for pair in pairs], bool) for side in (0, 1)]
    one, other = (100 * float(h.mean()) for h in hits)
    drawn = [resampled_share(h, photo, weights) for h in hits]
    return {"run": one, "against": other, "difference": one - other, "interval": interval(drawn[0] - drawn[1])}


def _reasons(pairs: Sequence[tuple[dict, dict]]) -> dict[str, list[float]]:
    reasons = [[reason_of(phrase) for phrase in pair] for pair in pairs]
    return {r: [100 * sum(pair[side] == r for pair in reasons) / len(reasons) for side in (0, 1)] for r in REASONS}


def table(record: dict) -> str:
    """Formats a comparison.

    Args:
        record: what :func:`compare` returns.

    Returns:
        Lines of text.
    """
    lines = [f"{record['run']} against {record['against']}; percent, difference with its paired 95 % interval"]
    for name, figure in record["figures"].items():
        low, high = figure["interval"]
        cells = (f"{figure['run']:5.1f}", f"{figure['against']:5.1f}", f"{figure['difference']:+5.1f}")
        lines.append(f"{name:20}{' '.join(cells)} ({low:+.1f} to {high:+.1f})")
    lines += [f"{reason:20}{one:5.1f} {other:5.1f}" for reason, (one, other) in record["reasons"].items()]
    return "\n".join(lines)
