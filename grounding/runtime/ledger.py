"""The ledger of a step: what came in is what was kept and what was skipped, by reason."""

import json
import logging
import os
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import Any, NamedTuple, TypeVar

from grounding.runtime.artefacts import write_json_lines
from proposals.errors import InputError

log = logging.getLogger(__name__)

SKIPPED = "skipped.jsonl"
IN_MEMORY = 1 << 20  # bytes of the list of skipped things; a longer list is in a temporary file
EXAMPLES = 3  # names in a message
LISTED = 10_000  # entries of a folder that are read to find its first names
LONGEST = 60  # characters of a name in a message

Item = TypeVar("Item")


class LedgerError(RuntimeError):
    """Something came in and was neither kept nor skipped, or was counted twice: a fault of the program."""


class Skipped(NamedTuple):
    """Something that was not used.

    Attributes:
        name: its name, such as the path of a photo.
        reason: the kind of reason. It completes a sentence: "27 unreadable", "61 without text".
        detail: what exactly is wrong; "" if the reason says it.
        where: the file that it comes from, such as a tar; "" if the name says it.
    """

    name: str
    reason: str
    detail: str = ""
    where: str = ""

    def __str__(self) -> str:
        name, message = self.name or self.where, self.detail or self.reason
        return message if name in message else f"{name}: {message}"  # many messages contain the name


class Ledger:
    """Counts what a step reads, what it keeps and what it skips. Each thing that came in is kept or skipped once.

    The memory does not grow with the number of skipped things.

        ledger = Ledger("photos", folder, "give the folder of the photos as images=")
        for path in ledger.reading(paths):
            try:
                use(path)
            except InputError as error:
                ledger.skip(path, "unreadable", str(error))
            else:
                ledger.keep()
        ledger.finish(output)

    Args:
        what: what is counted, in the plural: ``photos``.
        where: the folder or file in which it was looked for, for the message of a step that keeps nothing.
        cure: what to do if nothing was kept, as an imperative; it ends this message.

    Attributes:
        came: how many things came in.
        kept: how many of them were kept.
        reasons: how many were skipped for each kind of reason.
        expected: the first names that came in.
    """

    def __init__(self, what: str, where: str | Path | None = None, cure: str = "use other data"):
        self.what, self.where, self.cure = what, where, cure
        self.came, self.kept = 0, 0
        self.reasons: Counter[str] = Counter()
        self.expected: list[str] = []
        self._lines: SpooledTemporaryFile[bytes] = SpooledTemporaryFile(IN_MEMORY)  # noqa: SIM115
        weakref.finalize(self, self._lines.close)

    def came_in(self, name: object) -> None:
        """Counts a thing that must be kept or skipped later.

        Args:
            name: its name.
        """
        self.came += 1
        if len(self.expected) < EXAMPLES:
            self.expected.append(str(name))

    def reading(self, items: Iterable[Item], name: Callable[[Item], object] = str) -> Iterator[Item]:
        """Counts each item when it is read.

        Args:
            items: what comes in.
            name: the name of an item.

        Yields:
            The items.
        """
        for item in items:
            self.came_in(name(item))
            yield item

    def keep(self) -> None:
        """Counts a thing that is used."""
        self.kept += 1

    def skip(self, name: object, reason: str, detail: str = "", where: str = "") -> None:
        """Counts and lists a thing that is not used.

        Args:
            name: see :class:`Skipped`.
            reason: see :class:`Skipped`.
            detail: see :class:`Skipped`.
            where: see :class:`Skipped`.
        """
        self.reasons[reason] += 1
        self._lines.seek(0, os.SEEK_END)
        self._lines.write(json.dumps(Skipped(str(name), reason, detail, where)).encode() + b"\n")

    @property
    def skipped(self) -> Iterator[Skipped]:
        """What was skipped, in order."""
        self._lines.seek(0)
        while line := self._lines.readline():
            at = self._lines.tell()
            yield Skipped(*json.loads(line))
            self._lines.seek(at)  # something may have been skipped in between

    def merge(self, other: "Ledger") -> None:
        """Adds the counts and the list of another ledger.

        Args:
            other: of the same step, for example of one part of its input; it must balance.

        Raises:
            LedgerError: the other ledger does not balance.
        """
        other.check()
        self.came += other.came
        self.kept += other.kept
        self.expected += other.expected[: EXAMPLES - len(self.expected)]
        for skipped in other.skipped:
            self.skip(*skipped)

    def to_json(self) -> dict[str, Any]:
        """The counts and the list as JSON values, to pass them between processes."""
        return {
            "came": self.came,
            "kept": self.kept,
            "expected": self.expected,
            "skipped": [list(skipped) for skipped in self.skipped],
        }

    def add_json(self, values: Mapping[str, Any]) -> None:
        """Adds what another ledger's :meth:`to_json` returned.

        Args:
            values: the JSON values.

        Raises:
            LedgerError: they do not balance.
            KeyError: a value is missing.
            TypeError: a value has a wrong type.
        """
        other = Ledger(self.what)
        other.came, other.kept, other.expected = values["came"], values["kept"], values["expected"]
        for skipped in values["skipped"]:
            other.skip(*skipped)
        self.merge(other)

    def check(self) -> None:
        """Checks that everything that came in was kept or skipped.

        Raises:
            LedgerError: it was not.
        """
        if self.came != self.kept + self.reasons.total():
            raise LedgerError(
                f"of {self.came} {self.what}, {self.kept} were kept and {self.reasons.total()} skipped: report this"
            )

    def line(self) -> str:
        """The counts on one line: ``14,000 photos: 13,912 kept, 61 without text, 27 unreadable``."""
        counts = [f"{self.kept:,} kept", *self._counts()]
        return f"{self.came:,} {self.what}: {', '.join(counts)}"

    def write(self, path: Path) -> None:
        """Writes the list of what was skipped.

        Args:
            path: where the file appears: JSON lines of :class:`Skipped`. An empty list is written, too; it replaces
                that of an earlier run.

        Raises:
            InputError: it cannot be written.
        """
        write_json_lines(path, (skipped._asdict() for skipped in self.skipped))

    def finish(self, output: str | Path, name: str = SKIPPED, seen: Iterable[str] | None = None) -> str:
        """Ends the step: checks the counts, writes the list of what was skipped, and logs the counts.

        Args:
            output: the folder that the list is written to, see :meth:`write`.
            name: name of the list.
            seen: names that were found where the things were looked for. None: the entries of ``where``.

        Returns:
            The logged line.

        Raises:
            LedgerError: something was neither kept nor skipped.
            InputError: nothing was kept, or the list cannot be written.
        """
        self.check()
        self.write(Path(output, name))
        self.require_kept(seen)
        listed = f"; see {Path(output, name)}" if self.reasons else ""
        log.log(logging.WARNING if self.reasons else logging.INFO, "%s%s", self.line(), listed)
        return self.line()

    def require_kept(self, seen: Iterable[str] | None = None) -> None:
        """Checks that something was kept.

        Args:
            seen: see :meth:`finish`.

        Raises:
            InputError: nothing was kept. The message has the reasons, the first names that were looked for, and the
                first names that were found instead.
        """
        if self.kept:
            return
        reasons = f" ({', '.join(self._counts())})" if self.reasons else ""
        found = f"none of {self.came:,} {self.what} can be used{reasons}" if self.came else f"there are no {self.what}"
        first = next(self.skipped, None)
        why = f"; the first: {first}" if first and first.detail else ""
        raise InputError(f"{found}{self._search(seen)}{why}; {self.cure}")

    def _counts(self) -> list[str]:
        """The number of skipped things for each reason, the most frequent first."""
        ordered = sorted(self.reasons.items(), key=lambda pair: (-pair[1], pair[0]))
        return [f"{count:,} {reason}" for reason, count in ordered]

    def _search(self, seen: Iterable[str] | None) -> str:
        """What was looked for and where, and what is there."""
        if self.where is None and seen is None:
            return ""
        wanted = f" for {show_names(self.expected)}" if self.expected else ""
        there = show_names(_entries(self.where) if seen is None else seen)
        place = f": looked in {self.where}{wanted}" if self.where is not None else f": looked{wanted}"
        return f"{place}; found there: {there}" if there else place


def show_names(names: Iterable[str]) -> str:
    """The first names for a message, on one line.

    Args:
        names: any number of names.

    Returns:
        At most ``EXAMPLES`` names, shortened; "" if there are none. Characters that cannot be printed are escaped.
    """
    shown = [name if name.isprintable() else ascii(name)[1:-1] for name in islice(names, EXAMPLES)]
    return ", ".join(name if len(name) <= LONGEST else f"{name[:LONGEST]}…" for name in shown)


def _entries(where: str | Path | None) -> Iterator[str]:
    """The names of a folder's entries, sorted; nothing if it is not a folder."""
    if where is None or not Path(where).is_dir():
        return
    with os.scandir(where) as entries:
        listed = sorted((entry.name, entry.is_dir()) for entry in islice(entries, LISTED))
    if not listed:
        yield "nothing"
    yield from (f"{name}/" if folder else name for name, folder in listed)
