"""The step ``ground``: an image and phrases in, boxes and overlays out."""

import re
from collections.abc import Sequence
from pathlib import Path

from grounding.answers import Grounding
from grounding.artefacts import write_json, written_aside
from grounding.draw import overlay
from grounding.exports import as_record
from grounding.grounder import Grounder
from proposals.errors import InputError


def ground(grounder: Grounder, image: str | None, phrases: Sequence[str], output: str) -> list[Grounding]:
    """Grounds phrases in one image, prints a table, and writes ``groundings.json`` and one overlay a phrase.

    Args:
        image: a path; phrases: what to find; output: the folder that is written to.

    Raises:
        InputError: the image cannot be read, or a phrase is empty, or there is none.
    """
    if not image:
        raise InputError("no image: say image=PHOTO")
    scene = grounder.look(image)
    answers = scene.ground(phrases)
    print(table(answers))
    for number, answer in enumerate(answers, 1):
        if answer.groundable:
            name = f"{number:02d}-{re.sub(r'[^a-z0-9]+', '-', answer.phrase.text.lower()).strip('-')[:60]}.png"
            with written_aside(Path(output, name)) as aside:
                overlay(scene.image, answer).save(aside, "PNG")
    record = {"image": str(image), "size": scene.image.shape[:2], "groundings": [as_record(a) for a in answers]}
    write_json(Path(output, "groundings.json"), record)
    print(f"\nboxes and overlays: {output}")
    return answers


def table(answers: Sequence[Grounding]) -> str:
    """One line a phrase: its best box, its score, the words that no tag covers."""
    rows = [("phrase", "box (x1 y1 x2 y2)", "score", "skipped words")]
    for answer in answers:
        box = " ".join(f"{v:.0f}" for v in answer.boxes[0]) if answer.groundable else "not groundable"
        score = f"{answer.scores[0]:.3f}" if answer.groundable else "-"
        rows.append((answer.phrase.text, box, score, ", ".join(answer.phrase.skipped) or "-"))
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows)
