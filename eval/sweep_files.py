"""The results of a sweep for other programs: a record for each job, as JSON and CSV, and a plot of R@k over gamma."""

import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from eval.gammas import best_gamma
from eval.localization import DEPTHS
from eval.published import paper_row, proposals_name
from grounding.runtime.artefacts import atomic_path, write_json
from grounding.runtime.cells import safe_row

NAMES = ("method", "target", "gamma")  # what tells jobs apart, besides their overrides
IGNORED = ("by_gamma", "by_class", "data", "chosen", "intervals")  # of a job's metrics: tables of their own


def same_but_gamma(metrics: Mapping[str, Any]) -> tuple[str, ...]:
    """What jobs share that differ in gamma only.

    Args:
        metrics: the metrics of a job on phrases, with its overrides under "overrides".
    """
    overrides = [part for part in metrics["overrides"].split() if not re.match(r"gamma=", part)]
    return (metrics["method"], metrics["proposals"], *overrides)


def own_best(metrics: Mapping[str, Any]) -> str:
    """The gamma, as a key of ``by_gamma``, with the largest sum of R@1, R@5 and R@10."""
    return best_gamma({gamma: sum(at["recall"].values()) for gamma, at in metrics["by_gamma"].items()})


def write_joined(folder: str | Path, jobs: Sequence[Mapping[str, Any]], failed: Sequence[Mapping[str, Any]]) -> None:
    """Writes ``joined.json`` and ``joined.csv``, and ``gamma.png`` if jobs evaluate phrases.

    Args:
        folder: the folder of the sweep.
        jobs: the metrics of each job, with its number and overrides under "number" and "overrides".
        failed: number, overrides and reason of the jobs that failed.

    Raises:
        InputError: a file cannot be written.
    """
    records = [_record(metrics) for metrics in jobs]
    rows = {row for metrics in jobs if "by_gamma" in metrics for row in [paper_row(*_key(metrics))] if row}
    paper = [row._asdict() for row in sorted(rows)]
    write_json(Path(folder, "joined.json"), {"jobs": records, "failed": list(failed), "paper": paper})
    columns = list(dict.fromkeys(name for record in records for name in record))
    with atomic_path(Path(folder, "joined.csv")) as aside, aside.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(map(safe_row, records))
    phrases = [metrics for metrics in jobs if "by_gamma" in metrics]
    if phrases:
        _plot(Path(folder, "gamma.png"), phrases)


def _key(metrics: Mapping[str, Any]) -> tuple[str, str]:
    return metrics["method"], metrics["proposals"]


def _record(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """A flat record of a job: its number, its overrides, its settings, and its figures, as ``recall.5``."""
    record = {"job": metrics["number"], "overrides": metrics["overrides"]}
    record |= {name: metrics[name] for name in NAMES if name in metrics}
    if "proposals" in metrics:
        record["proposals"] = proposals_name(metrics["proposals"])
    if "by_gamma" in metrics:
        record["best"] = metrics["gamma"] is not None and float(own_best(metrics)) == metrics["gamma"]
    kept = {name: value for name, value in metrics.items() if name not in IGNORED}
    return record | {name: value for name, value in _flat(kept) if name not in record}


def _flat(metrics: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, float | int]]:
    for name, value in metrics.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{name}.")
        elif isinstance(value, int | float) and name != "number":
            yield f"{before}{name}", value


def _plot(path: Path, jobs: Sequence[Mapping[str, Any]]) -> None:
    """R@1, R@5 and R@10 over gamma, a curve for each kind of job."""
    # imported here, because most sweeps do not evaluate phrases
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4 * len(DEPTHS), 4), layout="constrained")
    plots = figure.subplots(1, len(DEPTHS), sharex=True)
    kinds: dict[tuple[str, ...], dict[float, Mapping[str, Any]]] = {}
    for metrics in jobs:
        curve = kinds.setdefault(same_but_gamma(metrics), {})
        curve |= {float(gamma): at["recall"] for gamma, at in metrics["by_gamma"].items()}
    for plot, depth in zip(plots, map(str, DEPTHS), strict=True):
        for (method, proposals, *overrides), curve in kinds.items():
            gammas = sorted(curve)
            label = " ".join([f"{method}, {proposals_name(proposals)}", *overrides])
            plot.plot(gammas, [curve[gamma][depth] for gamma in gammas], marker="o", label=label)
        plot.set(title=f"R@{depth}, percent", xlabel="gamma")
    plots[0].legend(fontsize="small")
    with atomic_path(path) as aside:
        figure.savefig(aside, format="png", dpi=120)
