"""The step ``benchmark``: our numbers beside those of other implementations, from one run on one machine.

grounding step=benchmark benchmark=attention
"""

from collections.abc import Callable
from pathlib import Path

from eval.benchmark_table import Row, table
from eval.machine import machine
from grounding.runtime.artefacts import write_json
from grounding.runtime.ranks import rank_of


def benchmark(measure: Callable[[], tuple[list[Row], dict]], output: str) -> dict:
    """Runs a benchmark, prints a table and writes ``benchmark.json``.

    Args:
        measure: returns the rows of the table, and what they have in common.
        output: the folder for the result. Only the first rank writes and prints.

    Returns:
        The contents of ``benchmark.json``: the machine, what the rows have in common, and the rows.
    """
    rows, common = measure()
    record = {"machine": machine()} | common | {"rows": rows}
    if rank_of()[0] == 0:
        write_json(Path(output, "benchmark.json"), record)
        print(table(rows))
    return record
