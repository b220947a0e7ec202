"""The tables and charts of an evaluation, as HTML."""

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from eval.evaluation_table import recall_baselines
from eval.failures import REASONS, reason_of
from eval.localization import DEPTHS, SMALL

COLOURS = ("#2e8b57", "#8fbc5a", "#d9b036", "#d9713c", "#8a6fb0", "#808080")  # of the REASONS
CURVE = 50  # ranks of the recall curve


def metric_tables(metrics: dict, phrases: Sequence[dict]) -> str:
    """The metrics, the reasons of misses, recall over rank, and the metrics of each type.

    Args:
        metrics: the metrics of step=evaluate.
        phrases: lines of ``phrases.jsonl``.

    Returns:
        HTML.
    """
    return _summary(metrics) + _reasons(phrases) + _curve(phrases) + _bars(metrics)


def _summary(metrics: dict) -> str:
    rows = {"all phrases": "recall", "small": "recall_small", "mean over types": "recall_type_mean"}
    lines = [
        [name, *(_cell(metrics, key, k) for k in map(str, DEPTHS))]
        for name, key in (rows | {"any box": "recall_any_box"}).items()
    ]
    lines += [
        [name.replace("_", " "), *(_cell(metrics, "baselines", name, k) for k in map(str, DEPTHS))]
        for name in recall_baselines(metrics)
    ]
    singles = {
        "mAP (Group)": ["ap_group"],
        "mAP (Phrase)": ["ap_phrase"],
        "pointing": ["pointing"],
        "pointing, image centre": ["baselines", "centre_pointing"],
        "proposals' upper bound": ["oracle_recall"],
        "phrases with a tag": ["coverage"],
    }
    return (
        "<h2>Metrics</h2><p>In percent, with 95 % intervals over photos.</p>"
        + _table(["", "R@1", "R@5", "R@10"], lines)
        + _table(["", ""], [[name, _cell(metrics, *path)] for name, path in singles.items()])
    )


def _cell(metrics: dict, *path: str) -> str:
    value, interval = metrics, metrics["intervals"]
    for key in path:
        value, interval = value[key], interval[key]
    if value is None:
        return "-"
    return f"{value:.1f}" + (f" <small>({interval[0]:.1f}-{interval[1]:.1f})</small>" if interval else "")


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    cells = "".join(f"<th>{cell}</th>" for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{cells}</tr>{body}</table>"


def type_names(phrases: Sequence[dict]) -> list[str]:
    """The types of the phrases, sorted.

    Args:
        phrases: lines of ``phrases.jsonl``.
    """
    return sorted({name for phrase in phrases for name in phrase["types"]})


def _reasons(phrases: Sequence[dict]) -> str:
    """The shares of the reasons among the phrases of each type, as bars."""
    rows = []
    for name in ("all", *type_names(phrases)):
        chosen = [phrase for phrase in phrases if name == "all" or name in phrase["types"]]
        counts = Counter(map(reason_of, chosen))
        bar = "".join(
            f'<span title="{reason}: {counts[reason]} of {len(chosen)}" '
            f'style="width:{100 * counts[reason] / len(chosen):.2f}%;background:{colour}"></span>'
            for reason, colour in zip(REASONS, COLOURS, strict=True)
        )
        shares = " / ".join(f"{100 * counts[reason] / len(chosen):.0f}" for reason in REASONS)
        rows.append([f"{name} ({len(chosen)})", f'<div class="bar">{bar}</div>', f"<small>{shares}</small>"])
    legend = " ".join(
        f'<span class="key" style="background:{c}"></span>{r}' for r, c in zip(REASONS, COLOURS, strict=True)
    )
    return f"<h2>Results of the phrases</h2><p>{legend}; in percent, in this order</p>" + _table(["", "", ""], rows)


def _curve(phrases: Sequence[dict]) -> str:
    """Recall over rank as an SVG curve, for all phrases and for small ones."""
    lines, labels = [], []
    for i, (name, chosen) in enumerate({"all": phrases, "small": [p for p in phrases if p["area"] < SMALL]}.items()):
        ranks = np.array([phrase["rank"] or np.inf for phrase in chosen])
        share = [(ranks <= k).mean() if len(ranks) else 0 for k in range(1, CURVE + 1)]
        points = " ".join(f"{40 + 560 * k / (CURVE - 1):.1f},{220 - 200 * s:.1f}" for k, s in enumerate(share))
        lines.append(f'<polyline points="{points}" fill="none" stroke="{COLOURS[(0, 3)[i]]}" stroke-width="2"/>')
        labels.append(f'<text x="500" y="{40 + 18 * i}" fill="{COLOURS[(0, 3)[i]]}">{name}</text>')
    ticks = [
        f'<text x="4" y="{224 - 2 * p}">{p}</text><path d="M40 {220 - 2 * p}H600" stroke="#ddd"/>'
        for p in range(0, 101, 20)
    ]
    ticks += [f'<text x="{36 + 560 * (k - 1) / (CURVE - 1):.0f}" y="238">{k}</text>' for k in (1, 10, 20, 30, 40, 50)]
    return f'<h2>Recall over rank</h2><svg viewBox="0 0 620 244">{"".join(ticks + lines + labels)}</svg>'


def _bars(metrics: dict) -> str:
    """R@1, R@5 and R@10 of each type."""
    rows = []
    for name, count in metrics["phrases_by_type"].items():
        cells = []
        for k in map(str, DEPTHS):
            value = metrics["recall_by_type"][name][k] or 0
            bar = f'<div class="bar thin"><span style="width:{value:.1f}%;background:#4878a8"></span></div>'
            cells.append(bar + _cell(metrics, "recall_by_type", name, k))
        rows.append([f"{name} ({count})", *cells, _cell(metrics, "ap_by_type", name)])
    return "<h2>By type</h2>" + _table(["", "R@1", "R@5", "R@10", "AP"], rows)
