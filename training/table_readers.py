"""Readers of tables of photos: CSV, JSON lines and Parquet, row by row in constant memory."""

import csv
import json
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from proposals.errors import InputError
from training.sample_text import CAPTIONS, TAGS

PATHS = ("path", "image", "file_name", "filename")
BATCH = 1000  # rows of a Parquet file that are read at a time
MAX_CELL = 1 << 20  # characters
TableRow = dict[str, Any] | str


def read_table(path: Path) -> Iterator[TableRow]:
    """Reads the rows of a table.

    Args:
        path: ``.csv`` (commas) or ``.tsv`` (tabs) with a header, ``.jsonl`` (one object per line), or ``.parquet``.

    Yields:
        A row as a dict by column name, or a text that says why the row cannot be read.

    Raises:
        InputError: the file is missing, has no rows or is of another kind; no column names a photo or a text; or
            pyarrow is not installed for Parquet.
    """
    rows = READERS[path.suffix.lower()](path)
    try:
        first = next(rows, None)
        if first is None:
            raise InputError(f"{path} has no rows: a table needs a header and a line for each photo")
        _check_columns(first, path)
        yield from chain([first], rows)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error


def photo_path(row: TableRow) -> str | None:
    """The path of the photo in a row; None if there is none."""
    if isinstance(row, str):
        return None
    cells = (row.get(name) for name in PATHS)
    return next((cell.strip() for cell in cells if isinstance(cell, str) and Path(cell.strip()).name), None)


def _check_columns(row: TableRow, path: Path) -> None:
    for names in (PATHS, TAGS + CAPTIONS):
        if isinstance(row, dict) and not row.keys() & set(names):
            raise InputError(f"{path} has columns {', '.join(map(str, row))}: one must be {', '.join(names)}")


def _read_csv(path: Path) -> Iterator[TableRow]:
    csv.field_size_limit(MAX_CELL)
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        rows = csv.DictReader(file, delimiter="\t" if path.suffix.lower() == ".tsv" else ",")
        while True:
            try:
                row = next(rows, None)
            except csv.Error as error:
                yield f"broken row: {error}"
                continue
            if row is None:
                return
            yield {name: cell for name, cell in row.items() if name is not None}


def _read_jsonl(path: Path) -> Iterator[TableRow]:
    with path.open("rb") as file:
        while line := file.readline(MAX_CELL + 1):
            if len(line) > MAX_CELL:
                while line and not line.endswith(b"\n"):
                    line = file.readline(MAX_CELL)
                yield f"broken row: more than {MAX_CELL} bytes"
            elif line.strip():
                yield parse_object(line, "row")


def parse_object(data: bytes, what: str) -> TableRow:
    """Parses a JSON object.

    Args:
        data: UTF-8 bytes.
        what: what the bytes are, for the message.

    Returns:
        The object, or a text that says why there is none.
    """
    try:
        found = json.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        return f"broken {what}: {' '.join(str(error).split())}"
    return found if isinstance(found, dict) else f"broken {what}: not a JSON object"


def _read_parquet(path: Path) -> Iterator[TableRow]:
    try:
        from pyarrow import ArrowException, parquet  # an optional dependency
    except ImportError as error:
        install = "run .venv/bin/pip install -e '.[parquet]'"
        raise InputError(f"reading {path} needs pyarrow: {install}, or use a CSV file") from error
    try:
        with parquet.ParquetFile(path) as file:
            used = [name for name in file.schema_arrow.names if name in PATHS + TAGS + CAPTIONS]
            for batch in file.iter_batches(BATCH, columns=used or None, use_threads=False):
                yield from batch.to_pylist()
    except (ArrowException, ValueError) as error:
        raise InputError(f"{path} is not a readable Parquet file ({' '.join(str(error).split())})") from error


READERS: dict[str, Callable[[Path], Iterator[TableRow]]] = {
    ".csv": _read_csv,
    ".tsv": _read_csv,
    ".jsonl": _read_jsonl,
    ".parquet": _read_parquet,
}
