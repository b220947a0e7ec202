"""Measures the run time and the memory of functions that are compared."""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

Work = Callable[[], object]


def interleaved(works: dict[str, Work], rounds: int) -> dict[str, float]:
    """Measures the median run time of several functions.

    The functions take turns, so that a slow minute of the machine affects all of them alike. In each turn a function
    runs twice and the second run is timed, because the first one finds the caches filled by another function.

    Args:
        works: the functions by name.
        rounds: the number of turns.

    Returns:
        Seconds by name.
    """
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            work()
            start = time.perf_counter()
            work()
            seconds[name].append(time.perf_counter() - start)
    return {name: median(times) for name, times in seconds.items()}


def peak_memory(work: Work) -> float:
    """Measures how much the memory of the process grows while a function runs.

    Args:
        work: the function.

    Returns:
        MB at the peak, sampled every millisecond, minus MB before the call.
    """
    before, peak, done = resident(), 0.0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.001):
            peak = max(peak, resident())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        work()
    finally:
        done.set()
        watcher.join()
    return max(peak, resident()) - before


def resident(process: int | str = "self") -> float:
    """Returns the resident memory of a process.

    Args:
        process: its id; by default this process.

    Returns:
        MB.
    """
    pages = int(Path(f"/proc/{process}/statm").read_text("ascii").split()[1])
    return pages * 4096 / 2**20
