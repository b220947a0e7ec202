"""The Pointing Game of several methods, class by class: in how many classes a method is the best (Sec. 4.1)."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from proposals.errors import InputError

Hits = Mapping[tuple[str, str], bool]  # by photo and class


def is_points(run: str) -> bool:
    """Whether a folder has the results of ``step=point``."""
    return Path(run, "points.jsonl").exists()


def read_points(run: str) -> dict[tuple[str, str], bool]:
    """The cues of a run whose class has a tag, and whether each is a hit.

    Args:
        run: the folder that step=point wrote.

    Raises:
        InputError: the folder has no such results.
    """
    try:
        lines = Path(run, "points.jsonl").read_text("utf-8").split("\n")
        cues = [json.loads(line) for line in lines if line]
        hits = {(str(cue["photo"]), str(cue["name"])): bool(cue["hit"]) for cue in cues if cue["known"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{run} is not the folder of a Pointing Game ({error}): run step=point first") from error
    if not hits:
        raise InputError(f"{run} has no cue whose class has a tag: see data.classes of step=point")
    return hits


def compare_points(run: str, against: Sequence[str]) -> dict:
    """The accuracy of each class in each run, and the classes in which the first run is the best.

    Args:
        run: the folder of a Pointing Game.
        against: the folders of others, on the same photos.

    Returns:
        "runs": the folders. "classes": for each class its accuracies in percent, in the order of the runs. "best": the
        number of classes in which the first run has more hits than each other run; "tied": in which its hits equal the
        most of the others.

    Raises:
        InputError: a folder has no Pointing Game, or the cues differ.
    """
    runs = [run, *against]
    hits = [read_points(folder) for folder in runs]
    for folder, other in zip(against, hits[1:], strict=True):
        if odd := sorted(hits[0].keys() ^ other.keys()):
            raise InputError(f"{run} and {folder} have different cues (for example {odd[0][1]} in {odd[0][0]}): play "
                             "on the same photos, with the same classes")  # fmt: skip
    classes = {name: [_accuracy(own, name) for own in hits] for name in sorted({name for _, name in hits[0]})}
    best = sum(own > max(others) for own, *others in classes.values())
    tied = sum(own == max(others) for own, *others in classes.values())
    return {"runs": runs, "classes": classes, "best": best, "tied": tied}


def _accuracy(hits: Hits, name: str) -> float:
    own = [hit for (_, cue), hit in hits.items() if cue == name]
    return 100 * sum(own) / len(own)


def point_table(record: dict) -> str:
    """Formats a comparison.

    Args:
        record: what :func:`compare_points` returns.

    Returns:
        Lines of text.
    """
    classes, (run, *others) = record["classes"], record["runs"]
    lines = [f"accuracy of each class in percent: {run} against {', '.join(others)}"]
    lines += [f"{name:20}" + "".join(f"{share:8.1f}" for share in shares) for name, shares in classes.items()]
    lines.append(f"{run} is the best in {record['best']} of {len(classes)} classes and tied in {record['tied']}")
    return "\n".join(lines)
