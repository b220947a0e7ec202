"""Readers of tables of photos: CSV, JSON and Parquet, row by row; only a JSON array is read as a whole."""

import json
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from grounding.photos import SUFFIXES
from proposals.errors import InputError
from training.cells import column_name, column_names
from training.cures import table_cure
from training.sample_text import CAPTIONS, TAGS
from training.text_tables import MAX_CELL, PATHS, TableRow, read_text_table

SNIFFED = 1 << 16  # bytes of a JSON file that tell its kind
BATCH = 1000  # rows of a Parquet file that are read at a time
EXAMPLE = '{"path": "1.jpg", "caption": "a dog"}'


def read_table(path: Path) -> Iterator[TableRow]:
    """Reads the rows of a table.

    Args:
        path: ``.csv``, ``.tsv``, ``.txt`` or ``.token`` (see ``training.text_tables``), ``.jsonl`` (one object per
            line), ``.json`` (an array of objects, or an object of captions by photo) or ``.parquet``.

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


def photo_path(row: dict[str, Any]) -> str | None:
    """The path of the photo in a row; None if there is none."""
    cells = (row.get(name) for name in PATHS)
    return next((cell.strip() for cell in cells if isinstance(cell, str) and Path(cell.strip()).name), None)


def is_coco(path: Path) -> bool:
    """Whether a JSON file is COCO captions and not a table, by its first bytes.

    Args:
        path: the file.

    Returns:
        False also for a file that is not JSON; its reader says why.

    Raises:
        InputError: the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            start = file.read(SNIFFED).removeprefix(b"\xef\xbb\xbf").lstrip()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
    names = [name for name in (b'"annotations"', b'"images"', b'"info"', b'"sentences"') if name in start]
    return start.startswith(b"{") and bool(names) and (b'"annotations"' in names or b'"sentences"' not in names)


def _check_columns(row: TableRow, path: Path) -> None:
    for names in (PATHS, TAGS + CAPTIONS):
        if isinstance(row, dict) and not row.keys() & set(names):
            columns = ", ".join(map(str, row))
            raise InputError(f"{path} has columns {columns}: one must be {', '.join(names)}; {table_cure(row)}")


def _read_jsonl(path: Path) -> Iterator[TableRow]:
    with path.open("rb") as file:
        while line := file.readline(MAX_CELL + 1):
            if len(line) > MAX_CELL:
                while line and not line.endswith(b"\n"):
                    line = file.readline(MAX_CELL)
                yield f"in broken rows: more than {MAX_CELL} bytes"
            elif line.strip():
                row = parse_object(line)
                yield column_names(row) if isinstance(row, dict) else f"in broken rows: {row}"


def parse_object(data: bytes) -> TableRow:
    """Parses a JSON object.

    Args:
        data: UTF-8 bytes.

    Returns:
        The object, or a text that says why there is none.
    """
    try:
        found = json.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        return " ".join(str(error).split())
    return found if isinstance(found, dict) else "not a JSON object"


def _read_json(path: Path) -> Iterator[TableRow]:
    found = _parse_file(path)
    rows = _rows_of_object(found) if isinstance(found, dict) else found
    if not isinstance(rows, list) or not any(isinstance(row, dict) for row in rows):
        names = found if isinstance(found, dict) else []
        cure = f"{table_cure(names)}; or " if any("url" in name.lower() for name in names) else ""
        raise InputError(f"{path} is JSON without photos and texts: {cure}give COCO captions, or a list of {EXAMPLE}")
    for row in rows:
        yield column_names(row) if isinstance(row, dict) else "in broken rows: not a JSON object"


def _rows_of_object(found: dict[str, Any]) -> list[Any]:
    """The rows of captions by photo, or of the data sets with Karpathy's splits: a list of images with sentences."""
    if not isinstance(found.get("images"), list):
        named = all(Path(name).suffix.lower() in SUFFIXES for name in found)
        return [{"path": name, "captions": texts} for name, texts in found.items()] if named else []
    return [_row_of_image(image) for image in found["images"]]


def _row_of_image(image: Any) -> Any:
    if not isinstance(image, dict) or not isinstance(image.get("sentences"), list):
        return image
    texts = [sentence.get("raw") if isinstance(sentence, dict) else sentence for sentence in image["sentences"]]
    place = Path(*(part for part in (image.get("filepath"), image.get("filename")) if isinstance(part, str)))
    return {"path": str(place), "captions": texts}


def _parse_file(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes().decode("utf-8-sig"))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON in UTF-8 ({' '.join(str(error).split())})") from error


def _read_parquet(path: Path) -> Iterator[TableRow]:
    try:
        from pyarrow import ArrowException, parquet  # an optional dependency
    except ImportError as error:
        install = "run .venv/bin/pip install -e '.[parquet]'"
        raise InputError(f"reading {path} needs pyarrow: {install}, or use a CSV file") from error
    try:
        with parquet.ParquetFile(path) as file:
            _check_schema(file.schema_arrow, path)
            used = [name for name in file.schema_arrow.names if column_name(name) in PATHS + TAGS + CAPTIONS]
            for batch in file.iter_batches(BATCH, columns=used or None, use_threads=False):
                yield from map(column_names, batch.to_pylist())
    except (ArrowException, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} is not a readable Parquet file ({' '.join(str(error).split())})") from error


def _check_schema(schema: Any, path: Path) -> None:
    """Refuses a file before its rows are read, because only the columns that are needed are."""
    names = [column_name(name) for name in schema.names]
    _check_columns(dict.fromkeys(names), path)
    kinds = {name: str(kind) for name, kind in zip(names, schema.types, strict=True) if name in PATHS}
    if all(kind.startswith(("struct", "binary", "large_binary")) for kind in kinds.values()):
        raise InputError(
            f"{path}: its column {next(iter(kinds))} holds the photos themselves, not their paths: write them into "
            "files, and the paths into the column (in Hugging Face datasets: row['image'].save(path))"
        )


READERS: dict[str, Callable[[Path], Iterator[TableRow]]] = {
    ".csv": read_text_table,
    ".tsv": read_text_table,
    ".txt": read_text_table,
    ".token": read_text_table,
    ".jsonl": _read_jsonl,
    ".json": _read_json,
    ".parquet": _read_parquet,
}
