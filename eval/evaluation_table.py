"""The metrics of step=evaluate as a table of text."""

from collections.abc import Iterator, Sequence

from eval.gammas import gamma_text
from eval.localization import DEPTHS
from eval.photo_reading import name_some

# a key of metrics.json: the name of its line
SINGLE_METRICS = {
    "ap_group": "mAP (Group)",
    "ap_group_small": "  small",
    "ap_phrase": "mAP (Phrase)",
    "ap_phrase_small": "  small",
    "pointing": "pointing",
    "pointing_without_tiny": "  of phrases over 5 %",
    "oracle_recall": "proposals' upper bound",
    "coverage": "phrases with a tag",
    "parsed": "phrases that are parsed",
    "own_box": "own box",
    "own_box_photos": "  photos, all phrases",
}


def evaluation_table(metrics: dict) -> str:
    """Formats metrics, each with its 95 % interval.

    Args:
        metrics: the metrics of step=evaluate.

    Returns:
        Lines of text.
    """
    own = "by_gamma" in metrics
    name = f"{metrics['method']}, gamma {gamma_text(metrics)}" if own else "predictions"
    width = max(24, len(name) + 2)

    def row(title: str, *paths: Sequence[str]) -> str:
        return title.ljust(width) + " / ".join(cell(metrics, (*path, k)) for path in paths for k in map(str, DEPTHS))

    lines = [
        f"{metrics['images']} photos, {metrics['phrases']} phrases, {metrics['phrases_small']} of them small; percent "
        f"(95 % interval over photos); protocol {metrics['protocol']}, score scale {metrics['score_scale']}",
        f"{'':{width}}{'R@1':18} / {'R@5':18} / {'R@10':18} / {'small: R@1':18} / {'R@5':18} / R@10",
        row(name, ["recall"], ["recall_small"]),
        *(
            row(f"  gamma {gamma}", ["by_gamma", gamma, "recall"], ["by_gamma", gamma, "recall_small"])
            for gamma in metrics.get("by_gamma", {})
        ),
        *(row("once for each type", [name], [f"{name}_small"]) for name in ["recall_by_category"] if name in metrics),
        row("any box", ["recall_any_box"]),
        *(row(baseline.replace("_", " "), ["baselines", baseline]) for baseline in recall_baselines(metrics)),
        *(row(f"{t} ({metrics['phrases_by_type'][t]})", ["recall_by_type", t]) for t in metrics["recall_by_type"]),
        row("mean over types", ["recall_type_mean"]),
        "",
        *_single_lines(metrics),
        *remarks(metrics),
    ]
    return "\n".join(lines)


def remarks(metrics: dict) -> Iterator[str]:
    """Names the photos that could not be used, and counts the phrases without a prediction.

    Args:
        metrics: the metrics of step=evaluate.

    Yields:
        Lines of text.
    """
    if metrics.get("skipped_images"):
        yield f"could not be read, counted as misses: {name_some(metrics['skipped_images'])}"
    if metrics.get("left_out"):
        yield f"photos without a usable annotation, left out: {name_some(metrics['left_out'])}"
    if metrics.get("missing_predictions"):
        yield f"phrases without a prediction, counted as misses: {metrics['missing_predictions']:,}"


def recall_baselines(metrics: dict) -> list[str]:
    """The names of the baselines that have recalls, not only a pointing accuracy.

    Args:
        metrics: the metrics of step=evaluate.
    """
    return [name for name, value in metrics["baselines"].items() if isinstance(value, dict)]


def _single_lines(metrics: dict) -> Iterator[str]:
    for key, name in SINGLE_METRICS.items():
        if key in metrics:
            yield f"{name:24}{cell(metrics, (key,))}"
    yield f"{'image centre, pointing':24}{cell(metrics, ('baselines', 'centre_pointing'))}"
    for kind, value in metrics["ap_by_type"].items():
        if value is not None:
            yield f"{'AP ' + kind:24}{cell(metrics, ('ap_by_type', kind))}"


def cell(metrics: dict, path: Sequence[str]) -> str:
    """One metric with its interval, 18 characters wide.

    Args:
        metrics: the metrics, with their "intervals".
        path: the keys of the metric.
    """
    value, interval = metrics, metrics["intervals"]
    for key in path:
        value, interval = value[key], interval[key]
    if value is None:
        return f"{'-':>5}{'':13}"
    return f"{value:5.1f} " + (f"({interval[0]:.1f}-{interval[1]:.1f})".ljust(12) if interval else " " * 12)
