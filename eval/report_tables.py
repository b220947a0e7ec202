"""The tables and charts of an evaluation, as HTML."""

from collections import Counter
from collections.abc import Iterable, Sequence
from html import escape

import numpy as np

from eval.evaluation_table import recall_baselines
from eval.failures import REASONS, reason_of
from eval.localization import DEPTHS, SMALL

COLOURS = ("#2e8b57", "#8fbc5a", "#d9b036", "#d9713c", "#8a6fb0", "#808080")  # of the REASONS
_DEPTHS = tuple(map(str, DEPTHS))
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
    if "by_class" in metrics:
        return _category_summary(metrics)
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


def _category_summary(metrics: dict) -> str:
    subsets = {"all phrases": (), "difficult": ("difficult",)}
    subsets |= {name.replace("_", " "): ("by_area", name) for name in metrics["by_area"]}
    recalls = [(key, str(k)) for key in ("recall", "recall_union") for k in DEPTHS]
    rows = [
        [title, *(_cell(metrics, *path, *key) for key in (*recalls, ("pointing",)))] for title, path in subsets.items()
    ]
    keys = {
        "own box": ["own_box"],
        "photos where all phrases have their own box": ["own_box_photos"],
        "pointing, image centre": ["baselines", "centre_pointing"],
        "R@1, whole image, any object": ["baselines", "whole_image"],
        "proposals' upper bound": ["oracle_recall"],
        "groundable phrases": ["coverage"],
    }
    singles = [[name, _cell(metrics, *path)] for name, path in keys.items()]
    if presence := metrics["presence_of_names"]:
        names = {"presence, area under the ROC curve": "auc", "presence, calibration error": "calibration_error"}
        singles += [[name, _fraction(presence, key)] for name, key in names.items()]
    return (
        "<h2>Metrics</h2><p>In percent, with 95 % intervals over photos. Areas are the union box's share of the photo."
        "</p>"
        + _table(["", *(f"R@{k}, {name}" for name in ("any object", "union") for k in DEPTHS), "pointing"], rows)
        + _table(["", ""], singles)
    )


def _fraction(presence: dict, key: str) -> str:
    value, interval = presence[key], presence["intervals"][key]
    bounds = f" <small>({interval[0]:.3f}-{interval[1]:.3f})</small>" if interval else ""
    return "-" if value is None else f"{value:.3f}{bounds}"


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
        rows.append([f"{escape(name)} ({len(chosen)})", f'<div class="bar">{bar}</div>', f"<small>{shares}</small>"])
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
    if "by_class" in metrics:
        classes = {name: recalls["recall"] for name, recalls in metrics["by_class"].items()}
        for name, count in metrics["phrases_by_class"].items():
            cells = [_bar(classes[name][k] or 0) + _cell(metrics, "by_class", name, "recall", k) for k in _DEPTHS]
            rows.append([f"{escape(name)} ({count})", *cells, _cell(metrics, "by_class", name, "pointing")])
        return "<h2>By class</h2>" + _table(["", "R@1, any object", "R@5", "R@10", "pointing"], rows)
    for name, count in metrics["phrases_by_type"].items():
        cells = []
        for k in map(str, DEPTHS):
            cells.append(_bar(metrics["recall_by_type"][name][k] or 0) + _cell(metrics, "recall_by_type", name, k))
        rows.append([f"{name} ({count})", *cells, _cell(metrics, "ap_by_type", name)])
    return "<h2>By type</h2>" + _table(["", "R@1", "R@5", "R@10", "AP"], rows)


def _bar(value: float) -> str:
    return f'<div class="bar thin"><span style="width:{value:.1f}%;background:#4878a8"></span></div>'
