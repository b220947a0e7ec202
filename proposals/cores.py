"""The CPU cores of a process."""

import os
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")


def own_cores(cgroups: Path = CGROUPS) -> int:
    """Number of CPU cores that this process may use.

    Args:
        cgroups: the control groups of Linux, where a container has its share of the processor.

    Returns:
        The size of the process's CPU affinity, or the number of cores of the machine on systems without CPU affinity
        (macOS, Windows); no more than the share of the container, rounded up.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, _share(cgroups) or cores)


def _share(cgroups: Path) -> int | None:
    """The cores of a container; None without a limit. The files are those of version 2, then of version 1."""
    for names in (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")):
        try:
            quota, period = " ".join((cgroups / name).read_text() for name in names).split()
            if int(quota) > 0 and int(period) > 0:
                return -(-int(quota) // int(period))
        except (OSError, ValueError):  # no such file, or the quota is "max"
            continue
    return None
