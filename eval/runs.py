"""Reads the folder of an evaluation."""

import json
from pathlib import Path

from proposals.errors import InputError


def read_run(run: str) -> tuple[dict, list[dict]]:
    """Reads an evaluation of our own answers.

    Args:
        run: the folder that step=evaluate wrote.

    Returns:
        The metrics, and the lines of ``phrases.jsonl`` without those of photos that could not be read.

    Raises:
        InputError: the folder has no such evaluation, or the evaluation has one gamma for each half of the photos.
    """
    try:
        metrics = json.loads(Path(run, "metrics.json").read_bytes())
        phrases = [json.loads(line) for line in Path(run, "phrases.jsonl").read_text("utf-8").split("\n") if line]
        skipped = metrics.get("skipped_images", [])
        phrases = [phrase for phrase in phrases if phrase["image"] not in skipped]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{run} is not the folder of an evaluation ({error}): run step=evaluate first") from error
    if "predictions" in metrics or not phrases:
        raise InputError(f"{run} evaluates predictions from a file: use an evaluation of our own answers")
    if metrics["gamma"] is None:
        raise InputError(f"{run} has two gammas: use an evaluation without step.gamma_candidates")
    return metrics, phrases
