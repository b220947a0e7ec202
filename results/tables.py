"""Writes the tables of this folder's Markdown files from the CSV files beside them.

    python results/tables.py

A table is between two comments. The first one names the CSV file. It can also choose rows by the value of a column, and
that column is then left out:

    <!-- table entities-recall.csv run=best -->

    <!-- end -->

The columns ``NAME low`` and ``NAME high`` are the 95 % interval of the column ``NAME``. The text shows the three in one
cell: ``40.1 (36.7 to 43.4)``.
"""

import csv
import re
from collections.abc import Sequence
from pathlib import Path

FOLDER = Path(__file__).parent
BLOCK = re.compile(r"(<!-- table (\S+\.csv)((?: [^ =]+=[^ ]+)*) -->\n).*?(<!-- end -->)", re.DOTALL)


def updated(text: str, folder: Path = FOLDER) -> str:
    """A Markdown text with its tables as the CSV files have them.

    Args:
        text: the text of a file.
        folder: the folder of the CSV files.

    Returns:
        The same text with new tables.
    """

    def block(match: re.Match[str]) -> str:
        wanted = dict(condition.split("=", 1) for condition in match[3].split())
        return f"{match[1]}\n{table(folder / match[2], wanted)}\n\n{match[4]}"

    return BLOCK.sub(block, text)


def table(path: Path, wanted: dict[str, str]) -> str:
    """A table in Markdown.

    Args:
        path: the CSV file.
        wanted: column -> value of the rows that are shown.

    Returns:
        The lines of the table. A column that is empty in every shown row is left out.

    Raises:
        ValueError: no row has these values, or a row has more or fewer cells than the first line.
    """
    with path.open(encoding="utf-8", newline="") as file:
        every = list(csv.DictReader(file))
    for number, row in enumerate(every, 1):
        if None in row or None in row.values():  # how DictReader marks cells that are too many or missing
            raise ValueError(f"row {number} of {path.name} has another number of cells: quote a text with a comma")
    rows = [row for row in every if all(row[name] == value for name, value in wanted.items())]
    if not rows:
        raise ValueError(f"{path.name} has no row with {wanted}")
    names = [name for name in rows[0] if name not in wanted and any(row[name] for row in rows)]
    names = [name for name in names if not _is_bound(name, names)]
    lines = [names, ["---"] * len(names), *([_cell(row, name) for name in names] for row in rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _is_bound(name: str, names: Sequence[str]) -> bool:
    return name.removesuffix(" low").removesuffix(" high") in set(names) - {name}


def _cell(row: dict[str, str], name: str) -> str:
    low = row.get(f"{name} low")
    return f"{row[name]} ({low} to {row[f'{name} high']})" if low else row[name]


if __name__ == "__main__":
    for page in FOLDER.glob("*.md"):
        page.write_text(updated(page.read_text("utf-8")), "utf-8")
