"""Texts for a terminal: of any characters, in one line, and the message about a missing photo."""

import difflib
import io
import sys
import unicodedata
from pathlib import Path

LONGEST = 60  # columns of a text in a table


def allow_any_text() -> None:
    """Makes the standard output write characters that its encoding lacks as escapes, as the standard error does."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def in_one_line(text: str, longest: int = LONGEST) -> str:
    """A text without line breaks and other invisible characters, shortened.

    Args:
        text: any text.
        longest: the largest number of columns.
    """
    printable = "".join(character if character.isprintable() else " " for character in text)
    words = " ".join(printable.split())
    if columns(words) <= longest:
        return words
    kept = words[:longest]
    while columns(kept) > longest - 3:
        kept = kept[:-1]
    return f"{kept}..."


def columns(text: str) -> int:
    """The number of columns that a terminal needs for a text: two for a Chinese character or an emoji."""
    wide = sum(unicodedata.east_asian_width(character) in "WF" for character in text)
    return len(text) + wide - sum(unicodedata.combining(character) > 0 for character in text)


def no_such_file(name: str) -> str:
    """The message about a missing photo, with the nearest name in its folder."""
    try:
        there = [path.name for path in Path(name).expanduser().parent.iterdir()]
    except (OSError, ValueError, RuntimeError):  # no such folder, or no name of a folder
        there = []
    last = Path(name).name
    near = [other for other in there if other.casefold() == last.strip().casefold()]
    near = near or difflib.get_close_matches(last, there[:1000], 1, 0.85)
    return f"{name}: no such image file" + (f"; did you mean {Path(name).with_name(near[0])}?" if near else "")
