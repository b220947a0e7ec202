"""The tables of a sweep over evaluations: one row for each job, in the columns of the paper's Tables 2, 4 and 5.

The paper's results are printed beside ours. They are of another split (test, 1,000 photos) and another tagger (18,157
tags, trained on 6 million photos), so compare the order of the methods rather than the values.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from eval.gammas import best_gamma, gamma_text
from eval.localization import DEPTHS, TYPES
from grounding.runtime.artefacts import atomic_path
from grounding.runtime.sweep_jobs import distinct_overrides, read_jobs

# Table 4: gamma, then all / small for R@1, R@5, R@10, mAP (Group), mAP (Phrase); MCG segments, except in the last row
TABLE_4 = {
    ("grad", "segments"): "0.50 | 24.3 / 7.6 | 49.6 / 32.9 | 59.7 / 45.8 | 10.2 / 3.8 | 28.8 / 15.6",
    ("deconv", "segments"): "0.50 | 21.5 / 11.3 | 48.4 / 34.5 | 58.5 / 46.0 | 10.0 / 4.0 | 26.5 / 16.7",
    ("lrp", "segments"): "0.50 | 24.3 / 11.8 | 51.6 / 36.8 | 61.3 / 48.5 | 10.3 / 4.3 | 28.9 / 18.1",
    ("cam", "segments"): "0.75 | 21.7 / 6.5 | 47.1 / 27.9 | 56.1 / 39.1 | 7.5 / 2.0 | 26.0 / 11.9",
    ("mwp", "segments"): "0.50 | 28.5 / 15.0 | 52.7 / 39.1 | 61.3 / 49.8 | 11.8 / 5.3 | 31.1 / 20.3",
    ("c-mwp", "segments"): "0.50 | 26.2 / 21.2 | 54.3 / 43.4 | 62.2 / 51.7 | 15.2 / 10.8 | 30.8 / 24.0",
    ("c-mwp", "boxes"): "0.25 | 27.0 / 18.4 | 49.9 / 35.2 | 57.7 / 43.9 | 13.2 / 8.1 | 29.4 / 20.0",
}
# Table 5: R@5 of each of TYPES, and the mean
TABLE_5 = {
    ("grad", "segments"): (65.0, 32.4, 14.0, 70.1, 63.0, 40.7, 58.8, 32.5, 47.1),
    ("deconv", "segments"): (65.4, 31.6, 18.7, 67.0, 64.0, 46.9, 53.6, 28.9, 47.0),
    ("lrp", "segments"): (64.6, 37.7, 16.4, 62.9, 63.5, 45.7, 59.4, 37.9, 48.5),
    ("cam", "segments"): (60.5, 28.4, 9.6, 57.0, 57.5, 37.0, 64.4, 32.7, 43.4),
    ("mwp", "segments"): (68.6, 37.7, 16.1, 68.7, 66.3, 53.7, 54.5, 36.8, 50.3),
    ("c-mwp", "segments"): (63.5, 47.6, 24.5, 69.9, 72.0, 54.3, 61.0, 40.2, 54.1),
    ("c-mwp", "boxes"): (62.8, 35.0, 17.6, 65.1, 73.5, 58.6, 53.2, 36.2, 50.3),
}
# Table 2: the Pointing Game on VOC07's difficult set, GoogLeNet
TABLE_2 = {
    "c-mwp": 70.6,
    "c-mwp-postnorm": 58.1,
    "c-mwp-nonorm": 41.6,
    "c-deconv": 67.7,
    "deconv": 49.4,
    "c-cam": 61.9,
    "cam": 61.9,
}
PROPOSALS = {"SegmentProposer": "segments", "BoxProposer": "boxes"}


def write_sweep_table(folder: str | Path, since: float = 0) -> str | None:
    """Prints the tables of the evaluations in a sweep's folder, and writes them to ``tables.md``.

    Table 4 has one row with the job's own gamma, and one with the gamma that is best on the evaluated split itself, as
    in the paper. If both are equal, it has one row.

    Args:
        folder: the folder of the sweep.
        since: seconds since 1970; older files are ignored, because they belong to an earlier sweep in the same folder.

    Returns:
        The tables, and the jobs that failed; None if there are neither evaluations nor failures.
    """
    jobs = read_jobs(folder, since)
    overrides = distinct_overrides(jobs)
    failed = [job for job in jobs if job.error is not None]
    metrics = list(_read_metrics(folder, since, overrides))
    phrases = [known for known in metrics if "by_gamma" in known]
    points = [known for known in metrics if "all" in known]
    everyday = [known for known in metrics if "by_class" in known]
    tables = [*([_table_4(phrases), _table_5(phrases)] if phrases else []), *([_pointing(points)] if points else [])]
    tables += [_everyday(everyday)] if everyday else []
    text = "\n\n".join("\n".join(table) for table in tables)
    if text:
        print(text)
    failures = [f"| {job.number} | {_cell(overrides[job.folder])} | {_cell(job.error or '')} |" for job in failed]
    if failures:
        text = "\n".join([text, "", "| failed job | overrides | reason |", "|---|---|---|", *failures]).lstrip()
    if not text:
        return None
    with atomic_path(Path(folder, "tables.md")) as aside:
        aside.write_text(text + "\n", "utf-8")
    return text


def _read_metrics(folder: str | Path, since: float, overrides: Mapping[Path, str]) -> Iterator[dict]:
    """The metrics of the jobs, with the job's number and overrides under "job"."""
    paths = [path for path in Path(folder).glob("*/metrics.json") if path.stat().st_mtime >= since]
    for path in sorted(paths, key=_job_number):
        try:
            metrics = json.loads(path.read_bytes())
        except ValueError:  # a job that was killed
            continue
        yield metrics | {"job": f"{path.parent.name} | {_cell(overrides.get(path.parent, ''))}"}


def _job_number(path: Path) -> tuple[int, str]:
    name = path.parent.name
    return (int(name) if name.isdecimal() else -1, name)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _key(metrics: dict) -> tuple[str, str]:
    return metrics["method"], PROPOSALS.get(metrics["proposals"], metrics["proposals"])


def _table_4(jobs: Sequence[dict]) -> Iterator[str]:
    yield "| job | overrides | method, proposals | gamma | R@1 | R@5 | R@10 | mAP (Group) | mAP (Phrase) |"
    yield "|---" * 9 + "|"
    for metrics in jobs:
        name = f"{metrics['job']} | {', '.join(_key(metrics))}"
        gamma = best_gamma({gamma: sum(at["recall"].values()) for gamma, at in metrics["by_gamma"].items()})
        if float(gamma) != metrics["gamma"]:
            yield f"| {name} | {gamma_text(metrics)} | {_row(metrics, metrics['intervals'])} |"
        row = _row(metrics["by_gamma"][gamma], metrics["intervals"]["by_gamma"][gamma])
        yield f"| {name} | {float(gamma):g}, best | {row} |"
        if _key(metrics) in TABLE_4:
            yield f"| | | (the paper's tagger, test split) | {TABLE_4[_key(metrics)]} |"


def _row(at: dict, intervals: dict) -> str:
    cells = [_pair(at["recall"][k], at["recall_small"][k], intervals["recall"][k]) for k in map(str, DEPTHS)]
    cells += [_pair(at[f"ap_{kind}"], at[f"ap_{kind}_small"]) for kind in ("group", "phrase")]
    return " | ".join(cells)


def _pair(every: float, small: float | None, interval: Sequence[float] | None = None) -> str:
    bounds = f" ({interval[0]:.1f}-{interval[1]:.1f})" if interval else ""
    return f"{every:.1f}{bounds} / {'-' if small is None else format(small, '.1f')}"


def _table_5(jobs: Sequence[dict]) -> Iterator[str]:
    yield f"| job | overrides | R@5 of | {' | '.join(TYPES)} | mean |"
    yield "|---" * 12 + "|"
    for metrics in jobs:
        by_type, intervals = metrics["recall_by_type"], metrics["intervals"]["recall_by_type"]
        cells = [_with_interval(by_type[t]["5"], intervals[t]["5"]) if t in by_type else "-" for t in TYPES]
        mean = _with_interval(metrics["recall_type_mean"]["5"], metrics["intervals"]["recall_type_mean"]["5"])
        name = f"{metrics['job']} | {', '.join(_key(metrics))}, gamma {gamma_text(metrics)}"
        yield f"| {name} | {' | '.join(cells)} | {mean} |"
        if _key(metrics) in TABLE_5:
            yield f"| | | (the paper's tagger, test split) | {' | '.join(map(str, TABLE_5[_key(metrics)]))} |"


def _pointing(jobs: Sequence[dict]) -> Iterator[str]:
    """Tables 1 and 2; Fig. 6 in a sweep over layers."""
    yield "| job | overrides | method | layer | all | difficult | the paper, difficult (Table 2, VOC07) |"
    yield "|---" * 7 + "|"
    for metrics in jobs:
        accuracies = [metrics[subset]["method"] for subset in ("all", "difficult")]
        cells = [_with_interval(a["mean"], a["interval"]) if a else "-" for a in accuracies]
        paper = TABLE_2.get(metrics["method"], "-")
        yield f"| {metrics['job']} | {metrics['method']} | {metrics['target']} | {' | '.join(cells)} | {paper} |"


def _everyday(jobs: Sequence[dict]) -> Iterator[str]:
    """Evaluations on the categories of COCO or VOC."""
    columns = "R@1, any object | R@5 | R@1, union box | R@5 | pointing | difficult | own box | presence, AUC"
    yield f"| job | overrides | {columns} |"
    yield "|---" * 10 + "|"
    for metrics in jobs:
        paths = [(key, k) for key in ("recall", "recall_union") for k in ("1", "5")]
        cells = [
            "-" if (value := found[path[-1]]) is None else _with_interval(value, at[path[-1]])
            for path in (*paths, ("pointing",), ("difficult", "pointing"), ("own_box",))
            for found, at in [_parents(metrics, path)]
        ]
        presence = metrics["presence_of_names"]
        cells.append("-" if presence is None or presence["auc"] is None else f"{presence['auc']:.3f}")
        yield f"| {metrics['job']} | {' | '.join(cells)} |"


def _parents(metrics: dict, path: Sequence[str]) -> tuple[dict, dict]:
    """The dictionaries that have the metric of a path, and its interval."""
    found, at = metrics, metrics["intervals"]
    for key in path[:-1]:
        found, at = found[key], at[key]
    return found, at


def _with_interval(value: float, interval: Sequence[float]) -> str:
    return f"{value:.1f} ({interval[0]:.1f}-{interval[1]:.1f})"
