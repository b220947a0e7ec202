"""Cores: how many of them this process may run on."""

import os


def own_cores() -> int:
    """The cores that the process is bound to; all of the machine's where the system cannot bind (macOS, Windows)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
