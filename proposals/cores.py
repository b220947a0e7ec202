"""The number of CPU cores available to this process."""

import os


def own_cores() -> int:
    """Number of CPU cores that this process may use.

    Returns:
        The size of the process's CPU affinity, or the number of cores of the machine on systems without CPU affinity
        (macOS, Windows).
    """
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
