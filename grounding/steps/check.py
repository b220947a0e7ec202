"""The step ``check``: says what a data set holds, what is missing and what would be skipped, before hours are spent.

grounding step=check images=PHOTOS captions=table.csv     # photos to train on
grounding step=check data=voc2012                         # photos with annotations
"""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple, Protocol

from grounding.runtime.artefacts import write_json
from grounding.runtime.ledger import EXAMPLES, SKIPPED, Ledger, show_names
from proposals.errors import SkippedError

CHECK = "check.json"


class Survey(NamedTuple):
    """What a data set holds.

    Attributes:
        ledger: everything in the data set, kept or skipped as the steps would.
        facts: a few sentences by name, such as ``{"captions": "5.0 for each photo"}``, in the order to print.
    """

    ledger: Ledger
    facts: Mapping[str, str]


class Checkable(Protocol):
    """A data set that can be checked. ``check`` of a file in ``conf/data`` is one."""

    def survey(self) -> Survey:
        """Reads the whole data set, but no more of each photo than is needed to find it.

        Returns:
            What it holds.

        Raises:
            InputError: a part of the data set without which nothing can be read is missing or broken.
        """
        ...


def check(photos: Checkable, output: str, data: Checkable | None = None) -> Survey:
    """Prints what a data set holds, and writes ``check.json`` and ``skipped.jsonl``.

    Args:
        photos: photos to train on; they are checked if ``data`` is None.
        output: the folder to write to.
        data: a data set with annotations.

    Returns:
        What the data set holds.

    Raises:
        InputError: it cannot be read, or nothing in it can be used.
        SkippedError: some of it would be skipped.
    """
    survey = (photos if data is None else data).survey()
    ledger = survey.ledger
    ledger.check()
    print(_table(survey))
    write_json(Path(output, CHECK), {"counts": ledger.line(), "skipped": dict(ledger.reasons)} | dict(survey.facts))
    ledger.write(Path(output, SKIPPED))
    ledger.require_kept()
    if ledger.reasons:
        raise SkippedError(f"{ledger.line()}; see {Path(output, SKIPPED)}")
    return survey


def _table(survey: Survey) -> str:
    lines = {"in": survey.ledger.line(), **_examples(survey.ledger), **survey.facts}
    width = max(map(len, lines))
    return "\n".join(f"{name:{width}}  {value}" for name, value in lines.items())


def _examples(ledger: Ledger) -> dict[str, str]:
    """The first names for each reason."""
    names: dict[str, list[str]] = {}
    for skipped in ledger.skipped:
        found = names.setdefault(skipped.reason, [])
        if len(found) <= EXAMPLES:
            found.append(skipped.name or skipped.where)
    return {reason: show_names(found) + (", ..." if len(found) > EXAMPLES else "") for reason, found in names.items()}
