"""The step ``benchmark``: our figures beside the peers', from one run on one machine.

grounding step=benchmark benchmark=attention
"""

import logging
import platform
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from grounding.runtime.artefacts import write_json
from grounding.runtime.ranks import rank_of
from grounding.runtime.timing import interleaved

log = logging.getLogger(__name__)

Row = dict[str, str | float | None]


def benchmark(measure: Callable[[], tuple[list[Row], dict]], output: str) -> dict:
    """Measures, prints a table and writes ``benchmark.json``.

    Args:
        measure: gives the rows of the table, and what they have in common; output: the folder that is written to, by
            the first rank alone.

    Returns:
        What is written: machine, versions, what the rows have in common, the rows.
    """
    rows, common = measure()
    record = {"machine": machine()} | common | {"rows": rows}
    if rank_of()[0] == 0:
        write_json(Path(output, "benchmark.json"), record)
        print(table(rows))
    return record


def machine() -> dict:
    """What the figures hold for: processor, threads, versions."""
    packages = ("torch", "torchvision", "numba", "torchray", "zennit", "captum", "opencv-contrib-python-headless")
    return {
        "processor": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "versions": {name: found for name in packages if (found := _version(name))},
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def matrix_rate(size: int = 1536) -> float:
    """Multiply-adds a second of this machine's matrix product or convolution in float32, whichever is faster."""
    left, right = torch.rand(size, size), torch.rand(size, size)
    x, w = (
        t.contiguous(memory_format=torch.channels_last)
        for t in (torch.rand(8, 256, 28, 28), torch.rand(256, 256, 3, 3))
    )
    works = {"product": lambda: left @ right, "convolution": lambda: torch.conv2d(x, w, padding=1)}
    seconds = interleaved(works, 5)
    return max(size**3 / seconds["product"], 8 * 28**2 * w.numel() / seconds["convolution"])


def table(rows: Sequence[Row]) -> str:
    """Rows as lines of text, a column a key."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    cells = [columns, *([_cell(row.get(key)) for key in columns] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    return "\n".join("  ".join(c.rjust(w) for c, w in zip(line, widths, strict=True)) for line in cells)


def _cell(value: str | float | None) -> str:
    if value is None:
        return "-"
    return value if isinstance(value, str) else f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
