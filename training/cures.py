"""Cures: what to do with data in a layout that is not read, for the messages of the readers."""

import os
from collections.abc import Collection, Iterator
from itertools import islice
from pathlib import Path
from shlex import quote

from grounding.photos import SUFFIXES
from grounding.runtime.hidden import is_hidden

PACKED = (".zip", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".7z", ".rar")
WORKBOOKS = (".xlsx", ".xls", ".ods", ".numbers")
TABLES = (".csv", ".tsv", ".jsonl", ".json", ".parquet", ".txt", ".token")
TEXTS = (".txt", ".json", ".caption")  # beside a photo of the same name
LISTED = 2000  # files of a folder that are looked at
DOWNLOAD = "download the photos with img2dataset, and give the folder of its tars as images="


def table_cure(columns: Collection[str]) -> str:
    """What to do with a table that has no column for the photo or none for the text.

    Args:
        columns: the names of its columns; if it has no header, the cells of its first row.

    Returns:
        An imperative.
    """
    if any("url" in name.lower() or "://" in name for name in columns):
        return f"its photos are URLs: {DOWNLOAD}"
    if {"annotations", "data"} <= set(columns):
        return "it looks like Label Studio: export the project as CSV or COCO"
    return "rename one, or add a header"


def source_cure(path: Path) -> str:
    """What to do with a file or a folder that has no texts in a layout that is read.

    Args:
        path: the file or folder.

    Returns:
        An imperative, with what was found; "" if nothing is known about it.
    """
    if not path.is_dir():
        return _file_cure(path)
    files = list(islice(_files(path), LISTED))
    packed = [cure for cure in map(_file_cure, files) if cure]
    photos = {file.with_suffix("") for file in files if file.suffix.lower() in SUFFIXES}
    beside = [file for file in files if file.suffix.lower() in TEXTS and file.with_suffix("") in photos]
    tables = [file for file in files if file.suffix.lower() in TABLES]
    if beside:
        folder = quote(str(beside[0].parent))
        return f"it has photos with texts beside them: pack each folder with tar -cf SHARDS/0.tar -C {folder} ."
    if tables and len(tables) < len(photos):
        return f"it has {tables[0].relative_to(path)}: give images={tables[0]}, or set captions={tables[0]}"
    if packed:
        return packed[0]
    if len({photo.parent for photo in photos}) > 1:
        return "if its folders are classes: write a table with the columns path and tags"
    return ""


def _file_cure(path: Path) -> str:
    suffix = path.suffix.lower()
    if suffix in WORKBOOKS:
        return f"{path.name} is a workbook: save it as CSV UTF-8"
    return f"{path.name} is packed: unpack it first, a .tar.gz with gunzip" if suffix in PACKED else ""


def _files(folder: Path) -> Iterator[Path]:
    for here, folders, names in os.walk(folder):
        folders.sort()
        yield from (Path(here, name) for name in sorted(names) if not is_hidden(Path(name)))
