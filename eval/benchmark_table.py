"""The rows of a benchmark, and their table of text."""

from collections.abc import Sequence

Row = dict[str, str | float | None]  # a value for each column; None for an empty cell


def table(rows: Sequence[Row]) -> str:
    """Formats rows, with one column for each key.

    Args:
        rows: the rows; a row need not have every key.

    Returns:
        Lines of text, "-" where a row has no value.
    """
    columns = list(dict.fromkeys(key for row in rows for key in row))
    cells = [columns, *([_cell(row.get(key)) for key in columns] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    return "\n".join("  ".join(c.rjust(w) for c, w in zip(line, widths, strict=True)) for line in cells)


def _cell(value: str | float | None) -> str:
    if value is None:
        return "-"
    return value if isinstance(value, str) else f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
