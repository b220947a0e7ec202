"""The step ``compare``: one evaluation against another one of the same phrases, photo by photo.

    grounding step=compare run=runs/best step.against=runs/paper

Two runs answer the same phrases on the same photos, so their difference is far surer than the interval of either: each
resample of the photos is one of both.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from eval.bootstrap import interval, resampled_share, resamples
from eval.localization import DEPTHS, SMALL
from eval.report import REASONS, read_run, reason_of
from grounding.runtime.artefacts import write_json
from proposals.errors import InputError


def compare(run: str, against: str, output: str) -> dict:
    """Prints a table, and writes it as ``compare.json``.

    Args:
        run, against: folders of step=evaluate of our own answers; output: the folder that is written to.

    Returns:
        ``figures``: of each its percentage in both runs, and the difference with its paired 95 % interval over photos;
        ``reasons``: what became of the phrases, in percent, in both runs.

    Raises:
        InputError: a folder holds no such evaluation, or the two are not of the same phrases.
    """
    ours, theirs = _phrases(run), _phrases(against)
    if ours.keys() != theirs.keys():
        odd = min(map(str, ours.keys() ^ theirs.keys()))
        raise InputError(f"{run} and {against} are not of the same phrases ({odd}): evaluate both on the same photos")
    pairs = [(ours[place], theirs[place]) for place in ours]
    record = {"run": str(run), "against": str(against), "figures": _figures(pairs), "reasons": _reasons(pairs)}
    write_json(Path(output, "compare.json"), record)
    print(table(record))
    return record


def _phrases(run: str) -> dict[tuple, dict]:
    return {(p["image"], p["sentence"], p["phrase"]): p for p in read_run(run)[1]}


def _measures() -> Mapping[str, Callable[[dict], bool]]:
    """Whether a phrase counts as found, by name."""
    found = {f"R@{k}": lambda p, k=k: p["rank"] is not None and p["rank"] <= k for k in DEPTHS}
    return found | {"pointing": lambda p: p["pointed"]}


def _figures(pairs: Sequence[tuple[dict, dict]]) -> dict[str, dict]:
    figures: dict[str, dict] = {}
    small = [pair for pair in pairs if pair[0]["area"] < SMALL]
    for prefix, chosen in {"": pairs, "small ": small}.items():
        if not chosen:
            continue
        names = {name: i for i, name in enumerate(dict.fromkeys(one["image"] for one, _ in chosen))}
        photo = np.array([names[one["image"]] for one, _ in chosen], np.int64)
        weights = resamples(len(names))
        for name, found in _measures().items():
            hits = [np.array([found(pair[side]) for pair in chosen], bool) for side in (0, 1)]
            one, other = (100 * float(h.mean()) for h in hits)
            drawn = [resampled_share(h, photo, weights) for h in hits]
            figure = {
                "run": one,
                "against": other,
                "difference": one - other,
                "interval": interval(drawn[0] - drawn[1]),
            }
            figures[prefix + name] = figure
    return figures


def _reasons(pairs: Sequence[tuple[dict, dict]]) -> dict[str, list[float]]:
    told = [[reason_of(phrase) for phrase in pair] for pair in pairs]
    return {r: [100 * sum(pair[side] == r for pair in told) / len(told) for side in (0, 1)] for r in REASONS}


def table(record: dict) -> str:
    """The comparison as lines of text."""
    lines = [f"{record['run']} against {record['against']}; percent, difference with its paired 95 % interval"]
    for name, figure in record["figures"].items():
        low, high = figure["interval"]
        cells = (f"{figure['run']:5.1f}", f"{figure['against']:5.1f}", f"{figure['difference']:+5.1f}")
        lines.append(f"{name:20}{' '.join(cells)} ({low:+.1f} to {high:+.1f})")
    lines += [f"{reason:20}{one:5.1f} {other:5.1f}" for reason, (one, other) in record["reasons"].items()]
    return "\n".join(lines)
