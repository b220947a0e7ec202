"""Cells of CSV that no spreadsheet takes for a formula.

Excel, LibreOffice and Google Sheets calculate a cell that begins with =, +, - or @, and a formula can send the other
cells of the sheet away. File names and phrases come from strangers.
"""

import re
from collections.abc import Mapping

# Programs skip white space, control and zero-width characters; East Asian editions read the wide forms of the signs.
_SKIPPED = r"[\s\x00-\x1f\x7f\u200b-\u200f\u2060\ufeff]"
_FORMULA = re.compile(rf"'*(?:{_SKIPPED}*[=+\-@＝＋－＠]|[\t\r\n])")


def safe_cell(value: object) -> object:
    """Puts an apostrophe before a text that a spreadsheet could calculate, which makes it text there.

    Args:
        value: the value of a cell.

    Returns:
        The value; a text that begins with =, +, -, @, a tab or the end of a line has one apostrophe more. White space
        and apostrophes before such a sign count as part of it, so that :func:`plain_cell` restores each text.
    """
    return f"'{value}" if isinstance(value, str) and _FORMULA.match(value) else value


def plain_cell(cell: str) -> str:
    """Restores the text of a cell that :func:`safe_cell` wrote.

    Args:
        cell: the text of a cell.

    Returns:
        The text as it was before.
    """
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


def safe_row(row: Mapping[str, object]) -> dict[str, object]:
    """Applies :func:`safe_cell` to each value of a row.

    Args:
        row: the values by column.

    Returns:
        The row that is written.
    """
    return {column: safe_cell(value) for column, value in row.items()}
