"""Fills the disk at random moments while a task writes, again and again; nothing may be lost or half written.

    python tests/kills/full_disk.py --times 100
    python tests/kills/full_disk.py --times 20 --tasks ground,train --seed 3

A child of this process does a task of ``kill_tasks``. Before a random change of the file system or a random write, or
after a random time, its files can no longer grow (RLIMIT_FSIZE of 0 bytes: the system refuses each write, also those of
compiled code, as on a full disk). The child must end with one line that a user can act on, or as if nothing had
happened. Then each file must be whole or absent, and the same task, started again with space, must end with the same
files as a task whose disk was never full.
"""

import argparse
import os
import random
import resource
import signal
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import kill_loop
from kill_loop import KINDS, TIMED, Counts, Undisturbed, arm, check_all, files, finish
from kill_tasks import TASKS, make_inputs

from grounding.__main__ import _message as message_of

OPTIONAL = {"cache"}  # tasks whose files only save time; these may be missing without an error


def fill() -> None:
    """Lets no file of this process grow any more."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))


def run_full(task: Callable[[Path], None], folder: Path, kind: str, number: float) -> str | None:
    """Does a task in a child whose disk becomes full.

    Args:
        task: the task.
        folder: its output.
        kind: one of ``KINDS``.
        number: of the change or write, or the time in seconds.

    Returns:
        The line with which the task ended; None if it was done.

    Raises:
        AssertionError: it ended with a traceback, with several lines, or was killed.
    """
    read, write = os.pipe()
    if not (child := os.fork()):
        _child(task, folder, kind, number, write)
    os.close(write)
    with os.fdopen(read, encoding="utf-8") as pipe:
        line = pipe.read()
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) in (0, 2), f"{kind} {number}: {line}"
    assert len(line.splitlines()) <= 1, f"several lines: {line}"
    return line if os.waitstatus_to_exitcode(status) else None


def _child(task: Callable[[Path], None], folder: Path, kind: str, number: float, pipe: int) -> None:
    silent, status = os.open(os.devnull, os.O_WRONLY), 1
    for stream in (1, 2):
        os.dup2(silent, stream)
    try:
        if kind == "time":
            timer = threading.Timer(number, fill)
            timer.daemon = True
            timer.start()
        arm(folder, Counts(), kind, int(number), fill)
        task(folder)
        status = 0
    except Exception as error:
        line = message_of(error)
        status = 1 if line is None else 2
        os.write(pipe, (repr(error) if line is None else line).encode())
    finally:
        os._exit(status)


def once(name: str, task: Callable[[Path], None], expected: Undisturbed, rng: random.Random) -> tuple[str, bool]:
    """One full disk, and the same task with space. Returns when it was, and whether the task was refused."""
    kind = rng.choice(KINDS)
    number = rng.uniform(0, expected.seconds) if kind == "time" else rng.randrange(max(1, expected.counts[kind]))
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work, "out")
        line = run_full(task, folder, kind, number)
        if folder.exists():
            check_all(folder)
        if line is None and name not in OPTIONAL:
            _compare(folder, expected, "a task without an error")
        assert not finish(kill_loop.start(task, folder, Counts(), "time", -1))
        check_all(folder)
        _compare(folder, expected, "the same task with space")
    return kind, line is not None


def _compare(folder: Path, expected: Undisturbed, what: str) -> None:
    found = files(folder)
    wrong = [path for path, data in expected.files.items() if found.get(path) != data]
    assert not wrong, f"{what}: another output: {wrong}"
    more = {path for path in found.keys() - expected.files.keys() if Path(path).name not in TIMED}
    assert not more, f"{what}: files that an undisturbed run does not write: {sorted(more)}"


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description="Fills the disk at random moments; nothing may be lost.")
    parser.add_argument("--times", type=int, default=50, help="full disks of all tasks together")
    parser.add_argument("--tasks", default=",".join(TASKS), help=f"some of {','.join(TASKS)}")
    parser.add_argument("--seed", type=int, default=0)
    chosen, lost = parser.parse_args(), 0
    names = chosen.tasks.split(",")
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as reference:
        make_inputs(Path(folder))
        for number, name in enumerate(names):
            rng, kinds, refused = random.Random(f"{chosen.seed} {name}"), Counter[str](), 0
            try:
                expected = Undisturbed.of(lambda out, name=name: TASKS[name](Path(folder), out), Path(reference, name))
                for _ in range(chosen.times // len(names) + (number < chosen.times % len(names))):
                    kind, ended = once(name, lambda out, name=name: TASKS[name](Path(folder), out), expected, rng)
                    kinds[kind] += 1
                    refused += ended
            except AssertionError as error:
                lost += 1
                print(f"{name}: LOST after {kinds.total()} full disks: {error}", flush=True)
            how = ", ".join(f"{kinds[kind]} by {kind}" for kind in KINDS)
            print(f"{name}: {kinds.total()} full disks ({how}), {refused} ended with one line", flush=True)
    print(f"{lost} of {len(names)} tasks lost something", flush=True)
    return int(bool(lost))


if __name__ == "__main__":
    sys.exit(main())
