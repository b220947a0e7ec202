"""The time and the memory of a new process until its first answer, beside a bare import of PyTorch.

grounding step=benchmark benchmark=startup
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from statistics import median

from eval.benchmark_table import Row
from eval.checks import check_counts
from proposals.errors import InputError

PHRASE = "a smiling woman"
# A small process of its own starts the one that is measured: the peak memory of a new process on Linux is at least that
# of the process that started it.
WATCH = """
import os, subprocess, sys, time
start = time.perf_counter()
process = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
_, status, usage = os.wait4(process.pid, 0)
print(time.perf_counter() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss, os.waitstatus_to_exitcode(status))
"""
REFUSED = {"a missing photo": 2, "a wrong setting": 2}  # exit statuses; 0 for all other commands


def measure(rounds: int = 3) -> tuple[list[Row], dict]:
    """Measures new processes, one after another in turns.

    Args:
        rounds: number of measurements; the median counts. Another start before them fills the caches of files and
            kernels.

    Returns:
        For each command a row with its seconds, the processor's seconds, the peak memory in MB, and the ratio of its
        seconds to those of ``import torch``; and the phrase that is asked.

    Raises:
        InputError: ``rounds`` is below 1.
    """
    check_counts(1, rounds=rounds)
    photo = str(files("skimage.data") / "astronaut.png")
    return compare(
        {
            "import torch": ["-c", "import torch"],
            "import grounding": ["-c", "import grounding"],
            "grounding --help": ["-m", "grounding", "--help"],
            "grounding --version": ["-m", "grounding", "--version"],
            "a missing photo": ["-m", "grounding", "nowhere.jpg", PHRASE],
            "a wrong setting": ["-m", "grounding", photo, PHRASE, "gama=0.3"],
            "a photo, a phrase": ["-m", "grounding", photo, PHRASE],
            "the same with Hydra": ["-m", "grounding", photo, PHRASE, "hydra.verbose=false"],
        },
        rounds,
    ), {"phrase": PHRASE}


def compare(commands: dict[str, list[str]], rounds: int) -> list[Row]:
    """Measures commands of Python in turns.

    Args:
        commands: the arguments of Python by name; the first one is what the others are compared with.
        rounds: number of measurements of each, after one that does not count.

    Returns:
        A row for each command.

    Raises:
        InputError: a command ends with another exit status than ``REFUSED`` says.
    """
    measured: dict[str, list[tuple[float, float, float]]] = {name: [] for name in commands}
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(rounds + 1):
            for name, arguments in commands.items():
                found = _run(name, arguments, Path(folder))
                if turn:
                    measured[name].append(found)
    medians = {name: [median(values) for values in zip(*found, strict=True)] for name, found in measured.items()}
    first = next(iter(medians.values()))[0]
    return [
        {"start": n, "seconds": s, "processor seconds": c, "MB": m, "times import torch": s / first}
        for n, (s, c, m) in medians.items()
    ]


def _run(name: str, arguments: Sequence[str], folder: Path) -> tuple[float, float, float]:
    """Seconds, seconds of CPU time, and peak memory in MB of a new Python process in a folder."""
    import_path = os.pathsep.join([str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-c", WATCH, sys.executable, *arguments]
    environment = os.environ | {"PYTHONPATH": import_path}
    environment.pop("HYDRA_FULL_ERROR", None)  # main() sets it for this process; it would print tracebacks
    printed = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True).stdout
    seconds, processor, size, status = map(float, printed.split()[-4:])
    if status != REFUSED.get(name, 0):
        raise InputError(f"{name!r} ended with exit status {status:.0f}: run 'python {' '.join(arguments)}' to see why")
    return seconds, processor, size / (2**20 if sys.platform == "darwin" else 2**10)
