"""Texts as programs write them into a cell of a table or a field of JSON: lists, separators, HTML."""

import ast
import html
import json
import re
from collections.abc import Mapping
from typing import Any

# comma, semicolon, bar, also full-width, ideographic and Arabic ones; line break and tab
SEPARATORS = re.compile("[,;|\n\r\t\uff0c\uff1b\uff5c\u3001\u060c\u061b]")
ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")
MARKUP = re.compile(r"</?[A-Za-z][^<>]*>")
BRACKETS = {"[": "]", "(": ")", "{": "}"}
QUOTED = re.compile(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"", re.DOTALL)
BETWEEN = re.compile(r"[\s,]*(?:(?:nan|None|\.\.\.)[\s,]*)*")  # what may stand between the texts of a list


def split_tags(cell: str) -> list[str]:
    """The tags in a cell.

    Args:
        cell: a list as JSON, Python (pandas) or NumPy writes it, or tags with separators between them.

    Returns:
        The tags, not normalised; some may be blank.
    """
    found = parse_list(cell)
    if found is not None:
        return found
    cell = plain_text(cell)  # before it is split, because an entity ends with a semicolon
    if is_bracketed(cell) and cell.strip()[0] == "[":  # a list without quotes, or with a fault
        return [tag.strip(" '\"") for tag in SEPARATORS.split(cell.strip()[1:-1])]
    return SEPARATORS.split(cell)


def parse_list(cell: str) -> list[str] | None:
    """The texts of a list that is written into a cell: JSON, or Python's ``repr`` of a list, tuple, set or array.

    Args:
        cell: the text of the cell.

    Returns:
        The texts of the list; None if the cell is no such list. Its other values, such as numbers, are left out.
    """
    if not is_bracketed(cell):
        return None
    try:
        found = json.loads(cell)
        return [plain_text(text) for text in found if isinstance(text, str)] if isinstance(found, list) else None
    except (ValueError, RecursionError):
        return _parse_repr(cell.strip()[1:-1])


def is_bracketed(cell: str) -> bool:
    """Whether a cell begins with a bracket and ends with the matching one."""
    cell = cell.strip()
    return len(cell) > 1 and BRACKETS.get(cell[0]) == cell[-1]


def _parse_repr(inside: str) -> list[str] | None:
    texts = QUOTED.findall(inside)
    if not texts or not all(BETWEEN.fullmatch(rest) for rest in QUOTED.split(inside)):
        return None
    try:
        # one literal at a time: the text may be hostile, and cannot nest
        return [plain_text(ast.literal_eval(text)) for text in texts]
    except (ValueError, SyntaxError):
        return None


def plain_text(text: str) -> str:
    """Replaces HTML entities (``&amp;``) by their characters, and removes HTML markup (``<b>``).

    Args:
        text: a tag or a caption.

    Returns:
        The plain text.
    """
    for _ in range(2):  # some programs escape twice: &amp;amp;
        text = ENTITY.sub(lambda found: html.unescape(found[0]), text)
    return MARKUP.sub(" ", text) if "<" in text else text


def column_names(fields: Mapping[Any, Any]) -> dict[str, Any]:
    """Names columns in one way: ``File Name``, ``file-name`` and ``FILE_NAME`` become ``file_name``.

    Args:
        fields: values by column; of columns that get the same name, one that has it already wins, else the first.

    Returns:
        The values by new name.
    """
    named: dict[str, Any] = {}
    for name, value in fields.items():
        new = column_name(str(name))
        if new not in named or new == name:
            named[new] = value
    return named


def column_name(name: str) -> str:
    """One name of a column, see :func:`column_names`."""
    return re.sub(r"[\s-]+", "_", name.strip().strip("\ufeff")).casefold()
