"""The step ``judge``: Flickr30k Entities, COCO and VOC beside each other, with one row for each data set.

    grounding step=judge
    grounding step=judge gamma=0.25 step.part=even name=judge-even
    grounding step=judge step.limit=5 '~step.data.voc'

Each data set is evaluated as by ``step=evaluate``, into a folder of its own.
"""

from collections.abc import Mapping
from pathlib import Path

from eval.categories import ObjectPhotos
from eval.evaluate import evaluate
from eval.flickr30k import Flickr30kEntities
from eval.localization import DEPTHS
from grounding import Grounder
from grounding.runtime.artefacts import write_json
from proposals.errors import InputError

# a column: the keys of its metric on Entities, and on COCO and VOC; None where there is no such metric
RECALLS = {f"R@{k} {name}": (entities, categories, str(k)) for k in DEPTHS for name, entities, categories in (
    ("any", "recall_any_box", "recall"), ("union", "recall", "recall_union"))}  # fmt: skip
COLUMNS: dict[str, tuple[tuple[str, ...] | None, tuple[str, ...]]] = {
    "coverage": (("coverage",), ("coverage",)),
    **{title: ((entities, k), (categories, k)) for title, (entities, categories, k) in RECALLS.items()},
    "pointing": (("pointing",), ("pointing",)),
    "difficult": (None, ("difficult", "pointing")),
    "own box": (("own_box",), ("own_box",)),
    "AUC": (None, ("presence_of_names", "auc")),
    "ECE": (None, ("presence_of_names", "calibration_error")),
}
FRACTIONS = ("AUC", "ECE")  # in 0..1; the others are in percent


def judge(
    grounder: Grounder,
    data: Mapping[str, Flickr30kEntities | ObjectPhotos],
    output: str,
    limit: int | None = None,
    cache: str | None = None,
    part: str = "all",
) -> dict:
    """Evaluates our own answers on several data sets, writes ``judge.json``, and prints a table.

    Args:
        grounder: answers the phrases.
        data: the readers of the data sets by name; each is evaluated into the folder of this name.
        output: the folder for the results.
        limit: use only the first ``limit`` photos of each data set; None for all.
        cache: the folder where maps and proposals are kept between runs; None to keep nothing.
        part: which photos to use: all, even or odd (see ``eval.halves``).

    Returns:
        For each data set "phrases", and for each column of the table its value and its 95 % interval over photos; None
        where the data set has no such metric. Only the first of several ranks returns it; the others return an empty
        dictionary.

    Raises:
        InputError: there is no data set, or see :func:`eval.evaluate.evaluate`.
    """
    if not data:
        raise InputError("no data set to judge: leave step.data as it is, or set one of it")
    rows: dict = {}
    for name, reader in data.items():
        print(f"\n{name}")
        photos = None if isinstance(reader, Flickr30kEntities) else reader
        folder = str(Path(output, name))
        place = str(reader.root), reader.split
        metrics = evaluate(grounder, *place, folder, limit, None, cache, photos=photos, part=part)
        if metrics:
            rows[name] = {"images": metrics["images"], "phrases": metrics["phrases"]} | _row(metrics, photos is None)
    if rows:
        write_json(Path(output, "judge.json"), rows)
        print(f"\n{judge_table(rows)}")
    return rows


def _row(metrics: dict, entities: bool) -> dict:
    paths = {title: both[0] if entities else both[1] for title, both in COLUMNS.items()}
    return {title: _figure(metrics, path) for title, path in paths.items()}


def _figure(metrics: dict, path: tuple[str, ...] | None) -> dict | None:
    """The value at a path and its interval, which a nested dictionary of metrics may have, too."""
    if path is None:
        return None
    value, interval = metrics, metrics["intervals"]
    for key in path:
        value = value[key]
        if value is None:
            return None
        interval = value["intervals"] if isinstance(value, dict) and "intervals" in value else interval[key]
    return {"value": value, "interval": interval}


def judge_table(rows: Mapping[str, dict]) -> str:
    """Formats the rows.

    Args:
        rows: what :func:`judge` returns.

    Returns:
        Lines of text.
    """
    width = max(map(len, rows)) + 2
    head = f"{'':{width}}{'photos':>7}{'phrases':>8}  " + "".join(f"{title:>{_width(title)}}" for title in COLUMNS)
    lines = [head]
    for name, row in rows.items():
        cells = "".join(f"{_cell(row[title], title):>{_width(title)}}" for title in COLUMNS)
        lines.append(f"{name:{width}}{row['images']:>7,}{row['phrases']:>8,}  {cells}")
    return "\n".join([*lines, "percent, AUC and ECE in 0..1; judge.json has the 95 % intervals over photos"])


def _width(title: str) -> int:
    return max(len(title), 5) + 2


def _cell(figure: dict | None, title: str) -> str:
    if figure is None:
        return "-"
    return format(figure["value"], ".3f" if title in FRACTIONS else ".1f")
