"""Reads tables that are text, CSV and its relatives, as spreadsheets, pandas and data sets write them."""

import csv
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from shlex import quote
from typing import Any

from grounding.photos import SUFFIXES
from grounding.text.lines import MARKS
from proposals.errors import InputError
from training.cells import column_name
from training.sample_text import CAPTIONS, TAGS

PATHS = (
    "path", "image", "file_name", "filename", "image_name", "image_path", "img_path", "file", "filepath", "photo",
    "image_id",
)  # fmt: skip
MAX_CELL = 1 << 20  # characters
DELIMITERS = ",;\t|"
FLICKR = re.compile(r"[^\t]+\.\w+#\d+\t")  # Flickr8k.token.txt: 1.jpg#0, a tab, a caption; no header

TableRow = dict[str, Any] | str


def read_text_table(path: Path) -> Iterator[TableRow]:
    """Reads the rows of a text table.

    The delimiter is a comma, a semicolon, a tab or a bar: the one with which the first line has the columns that are
    needed. Excel's line ``sep=;`` is understood. So are the captions of Flickr8k and Flickr30k (``1.jpg#0<TAB>text``).

    Args:
        path: a UTF-8 file, with or without a byte order mark.

    Yields:
        A row as a dict by column name (``training.cells.column_name``), or a text that says why it cannot be read.

    Raises:
        InputError: the file is not UTF-8, a quote is not closed, or two columns have the same name.
        OSError: it cannot be read.
    """
    _check_mark(path)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            first = file.readline(MAX_CELL)
            if "\0" in first:
                raise _wrong_encoding(path, "UTF-16")
            if FLICKR.match(first):
                file.seek(0)
                yield from _flickr_rows(path)
                return
            skipped = 1 if first.startswith("sep=") else 0
            delimiter = first[4:5] if skipped else _delimiter(first, path)
            file.seek(0)
            for _ in range(skipped):
                file.readline()
            yield from _rows(csv.reader(file, delimiter=delimiter, strict=True), delimiter, path, skipped)
    except UnicodeDecodeError as error:
        line, byte = _find_undecodable(path)
        raise InputError(
            f"{path}:{line}: not UTF-8 (byte {byte:#x}): if it is Latin-1, {_convert(path, 'WINDOWS-1252')}"
        ) from error


def _check_mark(path: Path) -> None:
    with path.open("rb") as file:
        start = file.read(4)
    for mark, name in MARKS.items():
        if start.startswith(mark):
            raise _wrong_encoding(path, name)


def _wrong_encoding(path: Path, name: str) -> InputError:
    return InputError(f"{path} is {name}, not UTF-8: {_convert(path, name)}")


def _convert(path: Path, encoding: str) -> str:
    return f"convert it with iconv -f {encoding} -t UTF-8 {quote(path.name)} > utf8{path.suffix}"


def _find_undecodable(path: Path) -> tuple[int, int]:
    """Number of the first line that is not UTF-8, and its first wrong byte."""
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as error:
                return number, line[error.start]
    return 0, 0


def _flickr_rows(path: Path) -> Iterator[TableRow]:
    with path.open(encoding="utf-8-sig", newline="\n") as file:
        for line in filter(str.strip, file):
            place, tab, caption = line.partition("\t")
            image = place.rpartition("#")[0]
            yield {"image": image, "caption": caption.strip()} if tab and image else "in broken rows: no image#number"


def _delimiter(header: str, path: Path) -> str:
    """The delimiter with which a header has a column for the photo and one for the text."""
    for delimiter in DELIMITERS:
        names = {column_name(name) for name in next(csv.reader([header], delimiter=delimiter), [])}
        if names & set(PATHS) and names & {*TAGS, *CAPTIONS}:
            return delimiter
    return "\t" if path.suffix.lower() == ".tsv" else ","


def _rows(reader: Any, delimiter: str, path: Path, line: int) -> Iterator[TableRow]:
    csv.field_size_limit(MAX_CELL)
    swallowed = re.compile(rf"\n[^\n]*(?:{'|'.join(map(re.escape, sorted(SUFFIXES)))}){re.escape(delimiter)}")
    header: list[str] = []
    while True:
        start = line + reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise _open_quote(path, start, str(error)) from error
        if cells is None:
            return
        if any("\n" in cell and swallowed.search(cell) for cell in cells):
            raise _open_quote(path, start, "a text contains the next rows")
        if not header:
            header = _header(cells, path)
        elif any(cells):
            yield _row(header, cells, delimiter)


def _open_quote(path: Path, line: int, why: str) -> InputError:
    cure = 'put a text with quotes into quotes and double those in it ("a ""red"" mug")'
    return InputError(f"{path}:{line}: a quote is not closed or not doubled ({why}): {cure}")


def _header(cells: Sequence[str], path: Path) -> list[str]:
    names = [column_name(cell) for cell in cells]
    for name in (*PATHS, *TAGS, *CAPTIONS):
        if names.count(name) > 1:
            raise InputError(f"{path} has two columns {name}: rename or join them")
    return names


def _row(header: list[str], cells: list[str], delimiter: str) -> TableRow:
    while len(cells) > len(header) and not cells[-1].strip():
        cells.pop()
    if len(cells) > len(header):
        if header[-1] not in TAGS + CAPTIONS:
            return (
                f"with too many cells: {len(cells)} for {len(header)} columns; a text with {delimiter!r} needs quotes"
            )
        # a text without quotes that contains the delimiter: only the last column can be so long
        cells[len(header) - 1 :] = [delimiter.join(cells[len(header) - 1 :])]
    if lost := next((name for name in header[len(cells) :] if name in PATHS + TAGS + CAPTIONS), None):
        row = delimiter.join(cells)
        return f"with too few cells: {len(cells)} for {len(header)} columns, and none for {lost}, in {row[:60]!r}"
    # Flickr30k's results.csv has spaces around the bars
    return {name: cell.strip() for name, cell in zip(header, cells, strict=False)}
