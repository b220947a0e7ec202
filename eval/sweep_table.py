"""The tables of a sweep over evaluations: one row for each job, in the columns of the paper's Tables 2, 4 and 5.

The paper's results are printed beside ours. They are of another split (test, 1,000 photos) and another tagger (18,157
tags, trained on 6 million photos), so compare the order of the methods rather than the values.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from eval.gammas import gamma_text
from eval.localization import DEPTHS, TYPES
from eval.published import C_GRAD, TABLE_2, PublishedRow, paper_row, proposals_name
from eval.sweep_files import own_best, same_but_gamma, write_joined
from grounding.runtime.artefacts import atomic_path
from grounding.runtime.sweep_jobs import distinct_overrides, read_jobs

CONTRASTS = ("c-deconv", "c-cam")  # the other methods with a contrast in Table 2


def write_sweep_table(folder: str | Path, since: float = 0) -> str | None:
    """Prints the tables of the evaluations in a sweep's folder, and writes them to ``tables.md``.

    Each job has one row, and each row of the paper occurs once, after the last job that it stands beside. In Table 4,
    "best" marks the gamma that is best on the evaluated split itself, as in the paper; if no job has it, it has a row
    of its own after the jobs that differ in gamma only. ``joined.json`` and ``joined.csv`` have a record for each job.

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
    listed = [{"job": job.number, "overrides": overrides[job.folder], "reason": job.error} for job in failed]
    write_joined(folder, metrics, listed)
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
        own = overrides.get(path.parent, "")
        yield metrics | {"job": f"{path.parent.name} | {_cell(own)}", "number": path.parent.name, "overrides": own}


def _job_number(path: Path) -> tuple[int, str]:
    name = path.parent.name
    return (int(name) if name.isdecimal() else -1, name)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _name(metrics: dict) -> str:
    return f"{metrics['method']}, {proposals_name(metrics['proposals'])}"


def _beside(metrics: dict) -> PublishedRow | None:
    return paper_row(metrics["method"], metrics["proposals"])


def _table_4(jobs: Sequence[dict]) -> Iterator[str]:
    yield "| job | overrides | method, proposals | gamma | R@1 | R@5 | R@10 | mAP (Group) | mAP (Phrase) |"
    yield "|---" * 9 + "|"
    for metrics, papers in _with_papers(jobs):
        gamma = own_best(metrics)
        is_best = metrics["gamma"] == float(gamma)
        name = f"{metrics['job']} | {_name(metrics)} | {gamma_text(metrics)}{', best' * is_best}"
        yield f"| {name} | {_row(metrics, metrics['intervals'])} |"
        alike = [other for other in jobs if same_but_gamma(other) == same_but_gamma(metrics)]
        if metrics is alike[-1] and not any(other["gamma"] == float(gamma) for other in alike):
            row = _row(metrics["by_gamma"][gamma], metrics["intervals"]["by_gamma"][gamma])
            yield f"| | | {_name(metrics)} | {float(gamma):g}, best | {row} |"
        for paper in papers:
            cells = [_pair(every, small) for every, small in zip(paper.every, paper.small, strict=True)]
            yield f"| | | {_paper(paper)} | {paper.gamma:g} | {' | '.join(cells)} |"


def _with_papers(jobs: Sequence[dict]) -> Iterator[tuple[dict, list[PublishedRow]]]:
    """The jobs, each with the paper's row for which it is the last one."""
    last = {row: number for number, metrics in enumerate(jobs) if (row := _beside(metrics))}
    for number, metrics in enumerate(jobs):
        yield metrics, [row for row, at in last.items() if at == number]


def _row(at: dict, intervals: dict) -> str:
    cells = [_pair(at["recall"][k], at["recall_small"][k], intervals["recall"][k]) for k in map(str, DEPTHS)]
    cells += [_pair(at[f"ap_{kind}"], at[f"ap_{kind}_small"]) for kind in ("group", "phrase")]
    return " | ".join(cells)


def _paper(row: PublishedRow) -> str:
    return f"(the paper: its tagger, {row.proposals}, test split)"


def _pair(every: float | None, small: float | None, interval: Sequence[float] | None = None) -> str:
    bounds = f" ({interval[0]:.1f}-{interval[1]:.1f})" if interval else ""
    return f"{_figure(every)}{bounds} / {_figure(small)}"


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _table_5(jobs: Sequence[dict]) -> Iterator[str]:
    yield f"| job | overrides | R@5 of | {' | '.join(TYPES)} | mean |"
    yield "|---" * 12 + "|"
    for metrics, papers in _with_papers(jobs):
        by_type, intervals = metrics["recall_by_type"], metrics["intervals"]["recall_by_type"]
        cells = [_with_interval(by_type[t]["5"], intervals[t]["5"]) if t in by_type else "-" for t in TYPES]
        mean = _with_interval(metrics["recall_type_mean"]["5"], metrics["intervals"]["recall_type_mean"]["5"])
        name = f"{metrics['job']} | {_name(metrics)}, gamma {gamma_text(metrics)}"
        yield f"| {name} | {' | '.join(cells)} | {mean} |"
        for paper in papers:
            yield f"| | | {_paper(paper)} | {' | '.join(map(str, paper.by_type))} |"


def _pointing(jobs: Sequence[dict]) -> Iterator[str]:
    """Tables 1 and 2; Fig. 6 in a sweep over layers."""
    yield "| job | overrides | method | layer | all | difficult | the paper, difficult (Table 2, VOC07) |"
    yield "|---" * 7 + "|"
    for metrics in jobs:
        accuracies = [metrics[subset]["method"] for subset in ("all", "difficult")]
        cells = [_with_interval(a["mean"], a["interval"]) if a else "-" for a in accuracies]
        paper = TABLE_2.get(metrics["method"], "-")
        yield f"| {metrics['job']} | {metrics['method']} | {metrics['target']} | {' | '.join(cells)} | {paper} |"
    if any(metrics["method"] in CONTRASTS for metrics in jobs):
        yield f"| | | {C_GRAD}: the map is zero | | - | - | N.A. |"


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
