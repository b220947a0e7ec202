"""The metrics of an evaluation on categories as a table of text."""

from collections.abc import Iterator, Sequence

from eval.evaluation_table import cell, remarks
from eval.localization import DEPTHS, SMALL
from eval.phrase_metrics import TINY

POINTS = {
    "pointing": "pointing",
    "pointing_on_pixel": "  on a pixel of it",
    "pointing_in_box": "  in a box of it",
    "pointing_class_mean": "  mean over classes",
}
SINGLE = {
    "own_box": "own box",
    "own_box_photos": "  photos, all phrases",
    "oracle_recall": "proposals' upper bound",
    "coverage": "groundable phrases",
}
SHARES = {"precision": "  precision", "recall": "  recall", "f1": "  F1"}
PRESENCE = {
    "auc": "presence, area under ROC",
    "auc_class_mean": "  mean over classes",
    "calibration_error": "  calibration error",
    "brier": "  Brier score",
}


def category_table(metrics: dict) -> str:
    """Formats metrics, each with its 95 % interval.

    Args:
        metrics: the metrics of an evaluation on categories.

    Returns:
        Lines of text.
    """
    name = f"{metrics['method']}, gamma {metrics['gamma']:g}" if "method" in metrics else "predictions"
    counts = {"difficult": metrics["phrases_difficult"], **metrics["phrases_by_area"]}
    subsets = {
        f"difficult ({counts['difficult']})": ("difficult",),
        f"area below {TINY:.0%} ({counts[f'below_{TINY}']})": ("by_area", f"below_{TINY}"),
        f"  {TINY:.0%} to {SMALL:.0%} ({counts[f'{TINY}_to_{SMALL}']})": ("by_area", f"{TINY}_to_{SMALL}"),
        f"  from {SMALL:.0%} ({counts[f'from_{SMALL}']})": ("by_area", f"from_{SMALL}"),
    }
    lines = [
        f"{metrics['images']} photos, {metrics['phrases']} phrases, {counts['difficult']} of them difficult; percent "
        "(95 % interval over photos)",
        f"{'':26}{'R@1, any object':18} / {'R@5':18} / {'R@10':18} / {'R@1, union box':18} / {'R@5':18} / "
        f"{'R@10':18} / pointing",
        *(_row(metrics, title, path) for title, path in ({name: ()} | subsets).items()),
        f"{'whole image':26}" + " / ".join(cell(metrics, ("baselines", key)) for key in _WHOLE) + "  (any, union)",
        f"{'image centre, pointing':26}{cell(metrics, ('baselines', 'centre_pointing'))}",
        f"{'  difficult':26}{cell(metrics, ('difficult', 'baselines', 'centre_pointing'))}",
        "",
        *_single_lines(metrics),
        *_presence_lines(metrics["presence_of_names"]),
        *remarks(metrics),
    ]
    if metrics["pointed_by_boxes"]:
        lines.append(
            f"photos without masks, whose objects have the pixels of their boxes: {metrics['pointed_by_boxes']}"
        )
    return "\n".join(lines)


_WHOLE = ("whole_image", "whole_image_union")


def _row(metrics: dict, title: str, path: Sequence[str]) -> str:
    cells = [cell(metrics, (*path, key, str(k))) for key in ("recall", "recall_union") for k in DEPTHS]
    if "pointing" in metrics:
        cells.append(cell(metrics, (*path, "pointing")))
    return f"{title:26}" + " / ".join(cells)


def _single_lines(metrics: dict) -> Iterator[str]:
    for key, name in (POINTS | SINGLE).items():
        if key in metrics:
            yield f"{name:26}{cell(metrics, (key,))}"
    if "pointing" not in metrics:
        yield f"{'pointing':26}no points"


def _presence_lines(presence: dict | None) -> Iterator[str]:
    if presence is None:
        yield f"{'presence':26}no presence"
        return
    for key, name in PRESENCE.items():
        value, interval = presence[key], presence["intervals"][key]
        bounds = f"({interval[0]:.3f}-{interval[1]:.3f})" if interval else ""
        yield f"{name:26}" + ("    -" if value is None else f"{value:.3f} {bounds}")
    yield f"presence >= {presence['threshold']:g}, {presence['shown']:,} of {presence['pairs']:,} pairs are shown"
    for key, name in SHARES.items():
        yield f"{name:26}{cell(presence, (key,))}"
