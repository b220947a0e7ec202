"""Writes answers as Parquet, one row for each phrase of each photo."""

from collections.abc import Iterator
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

from grounding.runtime.artefacts import atomic_path
from proposals.errors import InputError

PHOTOS = 1000  # in a row group
MISSING = "Parquet files need an extra: .venv/bin/pip install -e '.[parquet]'"


def check_pyarrow() -> None:
    """Checks that pyarrow is installed.

    Raises:
        InputError: it is not.
    """
    if find_spec("pyarrow") is None:
        raise InputError(MISSING)


def write_parquet(path: Path, records: Iterator[dict[str, Any]]) -> None:
    """Writes the records of photos (``grounding.exports.image_record``) as Parquet, in memory that does not grow.

    A row has the columns ``image``, ``width``, ``height``, the fields of the phrase's record, and ``x1``, ``y1``,
    ``x2``, ``y2`` and ``score`` of its first box, which are null if there is none.

    Args:
        path: where the file appears.
        records: the records.

    Raises:
        InputError: the file cannot be written.
    """
    rows = (row for record in records for row in _rows(record))
    write_rows(path, rows, _schema())


def write_rows(path: Path, rows: Iterator[dict[str, Any]], schema: Any) -> None:
    """Writes rows as Parquet, atomically, in memory that does not grow with their number.

    Args:
        path: where the file appears.
        rows: the rows.
        schema: a ``pyarrow.Schema``.

    Raises:
        InputError: the file cannot be written.
    """
    import pyarrow as pa
    from pyarrow import parquet

    with atomic_path(path) as temporary, parquet.ParquetWriter(temporary, schema, compression="zstd") as writer:
        while group := list(islice(rows, PHOTOS)):
            writer.write_table(pa.Table.from_pylist(group, schema))


def _rows(record: dict[str, Any]) -> Iterator[dict[str, Any]]:
    height, width = record["size"]
    for answer in record["groundings"]:
        first = dict(zip(("x1", "y1", "x2", "y2"), answer["boxes"][0], strict=True)) if answer["boxes"] else {}
        score = {"score": answer["scores"][0]} if answer["scores"] else {}
        yield {"image": record["image"], "width": width, "height": height} | answer | first | score


def _schema() -> Any:
    import pyarrow as pa

    texts, numbers = pa.list_(pa.string()), pa.list_(pa.float64())
    return pa.schema(
        [("image", pa.string()), ("width", pa.int32()), ("height", pa.int32()), ("phrase", pa.string())]
        + [("groundable", pa.bool_()), ("tags", texts), ("skipped", texts), ("read_as", pa.string())]
        + [("presence", pa.float64()), ("present", pa.bool_())]
        + [(name, pa.float64()) for name in ("x1", "y1", "x2", "y2", "score")]
        + [("boxes", pa.list_(numbers)), ("scores", numbers)]
    )
