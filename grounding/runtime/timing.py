"""Timing: seconds and memory of works that are compared."""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

Work = Callable[[], object]


def interleaved(works: dict[str, Work], rounds: int) -> dict[str, float]:
    """The median seconds of each work; all of them take turns, so that a slow minute hits all alike.

    Each work runs twice in a turn and the second is timed: the first pays for what the others left behind.
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
    """How many MB the process grows by while it works, looked at every millisecond."""
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
    """MB of memory that this process holds, or the one of this number."""
    pages = int(Path(f"/proc/{process}/statm").read_text("ascii").split()[1])
    return pages * 4096 / 2**20
