"""The rows of Tables 4 and 5, of the paired differences, and of the halves of the photos."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from eval.halves import PARTS
from eval.localization import DEPTHS, TYPES
from eval.metrics import Metrics, Path
from eval.protocol import Protocol
from eval.published import C_GRAD, PAPER, PublishedRow, paper_row, proposals_name
from eval.systems import PhraseTable, SystemResults, system_metrics

Row = dict[str, str]  # column -> text, empty for no value

OWN_METHODS = ("mwp", "c-mwp")  # the paper's own
RECALLS: dict[str, Path] = {f"R@{k}": ("recall", str(k)) for k in DEPTHS}
SMALL_RECALLS: dict[str, Path] = {f"small R@{k}": ("recall_small", str(k)) for k in DEPTHS}
BY_CATEGORY: dict[str, Path] = {f"R@{k} by category": ("recall_by_category", str(k)) for k in DEPTHS}
PRECISIONS: dict[str, Path] = {
    f"{small}mAP ({title}){name}": (f"ap_{key}{'_small' * bool(small)}", scale)
    for title, key in (("Group", "group"), ("Phrase", "phrase"))
    for name, scale in ((" raw", "raw"), (" unit", "unit"))
    for small in ("", "small ")
}
POINTS: dict[str, Path] = {"pointing, maximum of the map": ("pointing",), "pointing, the answer's point": ("point",)}
TABLE_4 = RECALLS | SMALL_RECALLS | PRECISIONS | BY_CATEGORY | POINTS
WITH_INTERVAL = {*RECALLS, "mAP (Group) raw", "mAP (Group) unit"}
TABLE_5: dict[str, Path] = {name: ("recall_by_type", name, "5") for name in TYPES} | {"mean": ("recall_type_mean", "5")}
COMPARED = RECALLS | SMALL_RECALLS | {name: PRECISIONS[name] for name in ("mAP (Group) raw", "mAP (Group) unit")}
# the paper's column of mAP (Group) is beside the raw scores: the paper mentions no scaling
PUBLISHED = {"R@1": 0, "R@5": 1, "R@10": 2, "mAP (Group) raw": 3, "mAP (Phrase) raw": 4}


class Table4:
    """The tables of a run of step=table4.

    Args:
        results: what each system finds; the last one is our own system.
        phrases: the phrases.
        protocols: the protocols.
    """

    def __init__(self, results: Sequence[SystemResults], phrases: PhraseTable, protocols: Sequence[Protocol]):
        self.results, self.phrases, self.protocols = results, phrases, protocols

    def tables(self) -> dict[str, list[Row]]:
        """The rows of table4, table5, differences and halves."""
        found: dict[str, list[Row]] = {"table4": [], "table5": [], "differences": [], "halves": []}
        for protocol in self.protocols:
            counted = _counted(self.phrases, protocol)
            gammas = [result.best_gamma(protocol.name, counted) for result in self.results]
            metrics = [
                system_metrics(result, self.phrases, protocol, gamma, counted)
                for result, gamma in zip(self.results, gammas, strict=True)
            ]
            for name, columns in (("table4", TABLE_4), ("table5", TABLE_5)):
                found[name] += self._rows(protocol, gammas, metrics, columns)
            strongest = self._strongest(gammas, protocol, counted)
            found["differences"] += self._differences(protocol, gammas, metrics, strongest)
            found["halves"] += self._halves(protocol)
        return found

    def _rows(
        self, protocol: Protocol, gammas: Sequence[float | None], metrics: Sequence[Metrics], columns: dict[str, Path]
    ) -> Iterator[Row]:
        """Our rows, each with the paper's row below it, c-Grad, and the paper's rows that have none of ours above."""
        shown: list[PublishedRow] = []
        for result, gamma, found in zip(self.results, gammas, metrics, strict=True):
            name, proposer = result.system.name, result.system.proposer
            head = _head(protocol, name, proposals_name(proposer), "ours", gamma)
            yield head | _cells(found, columns, {*TABLE_5, *WITH_INTERVAL})
            paper = paper_row(name if result.system.by_phrase else "MCG_base", proposer)
            if paper is not None and paper not in shown:
                shown.append(paper)
                yield self._published(protocol, paper, columns)
        blank = dict.fromkeys(_cells(metrics[0], columns, {*TABLE_5, *WITH_INTERVAL}), "")
        yield _head(protocol, f"{C_GRAD}: the map is zero", "any", "ours", None) | blank
        for paper in PAPER:
            if paper not in shown:
                yield self._published(protocol, paper, columns)

    def _published(self, protocol: Protocol, paper: PublishedRow, columns: dict[str, Path]) -> Row:
        head = _head(protocol, paper.method, paper.proposals, "the paper, test", paper.gamma)
        if columns is TABLE_5:
            values = {name: paper.recall_of(name) for name in columns}
        else:
            values = {name: paper.every[i] for name, i in PUBLISHED.items()}
            values |= {f"small {name}": paper.small[i] for name, i in PUBLISHED.items()}
        row = dict.fromkeys(_columns(columns, {*TABLE_5, *WITH_INTERVAL}), "")
        return head | row | {name: _text(value) for name, value in values.items()}

    def _strongest(self, gammas: Sequence[float | None], protocol: Protocol, chosen: np.ndarray) -> int:
        """The number of the row of the paper's own method with the largest sum of R@1, R@5 and R@10."""
        sums = {
            number: self._hits(number, gamma, protocol, chosen)
            for number, gamma in enumerate(gammas)
            if self.results[number].system.name in OWN_METHODS
        }
        return max(sums, key=lambda number: sums[number]) if sums else 0

    def _hits(self, number: int, gamma: float | None, protocol: Protocol, chosen: np.ndarray) -> int:
        ranks = self.results[number].judged[protocol.name, gamma].ranks[chosen]
        return sum(int((ranks <= depth).sum()) for depth in DEPTHS)

    def _differences(
        self, protocol: Protocol, gammas: Sequence[float | None], metrics: Sequence[Metrics], strongest: int
    ) -> Iterator[Row]:
        """Each row minus the strongest row of the paper's own method."""
        against = self._title(strongest, gammas)
        for number, (result, gamma) in enumerate(zip(self.results, gammas, strict=True)):
            if number != strongest:
                name, proposals = result.system.name, proposals_name(result.system.proposer)
                head = _head(protocol, name, proposals, against, gamma, "minus")
                yield head | _difference_cells(metrics[number], metrics[strongest])

    def _halves(self, protocol: Protocol) -> Iterator[Row]:
        """Our own system against the strongest row on each half, with the gammas of the same and of the other half."""
        own = len(self.results) - 1
        halves = _halves(self.phrases, protocol)
        if not all(half.any() for half in halves.values()):
            return
        for part, other in (("even", "odd"), ("odd", "even")):
            for chosen_on in (part, other):
                gammas = [result.best_gamma(protocol.name, halves[chosen_on]) for result in self.results]
                strongest = self._strongest(gammas, protocol, halves[chosen_on])
                metrics = [
                    system_metrics(self.results[number], self.phrases, protocol, gammas[number], halves[part])
                    for number in (own, strongest)
                ]
                head = {"protocol": protocol.name, "photos": part, "gammas chosen on": chosen_on}
                head |= {"best: gamma": f"{gammas[own]:g}", "minus": self._title(strongest, gammas)}
                values = {f"best: {name}": _text(_value(metrics[0], path)) for name, path in RECALLS.items()}
                yield head | values | _difference_cells(*metrics)

    def _title(self, number: int, gammas: Sequence[float | None]) -> str:
        """A row's method, proposals and gamma."""
        system = self.results[number].system
        gamma = "" if gammas[number] is None else f", gamma {gammas[number]:g}"
        return f"{system.name}, {proposals_name(system.proposer)}{gamma}"


def forget_scores(results: SystemResults, phrases: PhraseTable, protocols: Sequence[Protocol]) -> None:
    """Drops the scores of the gammas that no row will show. They are most of the memory of a run.

    Args:
        results: what a system finds.
        phrases: the phrases.
        protocols: the protocols.
    """
    for protocol in protocols:
        subsets = [_counted(phrases, protocol), *_halves(phrases, protocol).values()]
        shown = {results.best_gamma(protocol.name, subset) for subset in subsets}
        for (name, gamma), judged in results.judged.items():
            if name == protocol.name and gamma not in shown:
                results.judged[name, gamma] = judged._replace(scores=[])


def _counted(phrases: PhraseTable, protocol: Protocol) -> np.ndarray:
    """``(N,)`` bool, the phrases that count in a protocol."""
    return np.array([label is not None for label in phrases.labels[protocol.name]])


def _halves(phrases: PhraseTable, protocol: Protocol) -> dict[str, np.ndarray]:
    """The phrases that count, of the photos with even and with odd numbers."""
    names, order = np.array(phrases.photo), sorted(set(phrases.photo))
    return {part: _counted(phrases, protocol) & np.isin(names, order[PARTS[part]]) for part in ("even", "odd")}


def _head(protocol: Protocol, name: str, proposals: str, whose: str, gamma: float | None, column: str = "whose") -> Row:
    row = {"protocol": protocol.name, "method": name, "proposals": proposals, column: whose}
    return row | {"gamma": "" if gamma is None else f"{gamma:g}"}


def _columns(columns: Iterable[str], with_interval: set[str]) -> Iterator[str]:
    for name in columns:
        yield from (name, f"{name} low", f"{name} high") if name in with_interval else (name,)


def _cells(metrics: Metrics, columns: dict[str, Path], with_interval: set[str]) -> Row:
    row: Row = {}
    for name, path in columns.items():
        row[name] = _text(_value(metrics, path))
        if name in with_interval:
            bounds = _value(metrics, path, intervals=True) or (None, None)
            row |= {f"{name} low": _text(bounds[0]), f"{name} high": _text(bounds[1])}
    return row


def _difference_cells(one: Metrics, other: Metrics) -> Row:
    row: Row = {}
    for name, path in COMPARED.items():
        value, bounds = one.difference(other, path)
        low, high = bounds or (None, None)
        row |= {name: f"{value:+.1f}", f"{name} low": _text(low, "+.1f"), f"{name} high": _text(high, "+.1f")}
    return row


def _value(metrics: Metrics, path: Path, intervals: bool = False) -> Any:
    tree: Any = metrics.intervals if intervals else metrics.values
    for key in path:
        if key not in tree:
            return None
        tree = tree[key]
    return tree


def _text(value: float | None, form: str = ".1f") -> str:
    return "" if value is None else format(value, form)


def markdown(rows: Sequence[Row]) -> str:
    """A table in Markdown; the bounds of an interval are in the cell of their value.

    Args:
        rows: rows with the same columns.

    Returns:
        Lines of text.
    """
    names = [name for name in rows[0] if not name.endswith((" low", " high"))]
    lines = [names, ["---"] * len(names), *([_markdown_cell(row, name) for name in names] for row in rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _markdown_cell(row: Row, name: str) -> str:
    low = row.get(f"{name} low")
    return f"{row[name]} ({low} to {row[f'{name} high']})" if low else row[name]
