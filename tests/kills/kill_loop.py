"""Kills a process at random moments while it writes, again and again; nothing may be lost or half written.

    make kills                   # 200 kills
    python tests/kills/kill_loop.py --times 20 --tasks ground,train --seed 3

A child of this process grounds a folder, grounds tars, makes shards, trains, or fills a cache, and is killed (SIGKILL)

- before a random change of the file system: a file opened for writing, a rename, a removal, a new folder;
- before a random write to a file;
- or after a random time, wherever it is, also in a write of compiled code.

Then each file in its output must be whole or absent, and the same task, started again, must end with the same files as
a task that nobody killed. A killed child is often killed again before it may finish. Prints the kills of each task; the
exit status is 1 if anything was lost.
"""

import argparse
import io
import json
import mmap
import os
import random
import signal
import struct
import sys
import tarfile
import tempfile
import threading
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from safetensors.numpy import load_file

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from kill_tasks import TASKS, make_inputs

CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link", "os.symlink"}
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
WRITES = {"write", "writelines", "flush", "close", "tofile", "truncate"}
KINDS = ("change", "write", "time")
TIMED = {"metrics.jsonl", "metrics.json", "report.md"}  # files that say how long something took
LEASES = "leases"  # who works on which tar; those of a killed process expire
JOURNAL = "metrics.jsonl"  # grows line by line
AGAIN = 0.3  # how often a killed child is killed again before it may finish


class Counts:
    """Two numbers in memory that a child shares: the changes and the writes that it has made."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 16)

    def read(self) -> dict[str, int]:
        return dict(zip(KINDS, struct.unpack("qq", self._memory[:16]), strict=False))

    def add(self, kind: str) -> int:
        """Counts one, and returns how many there were before."""
        place = slice(8 * KINDS.index(kind), 8 * KINDS.index(kind) + 8)
        (before,) = struct.unpack("q", self._memory[place])
        self._memory[place] = struct.pack("q", before + 1)
        return before


def kill() -> None:
    """Kills this process."""
    os.kill(os.getpid(), signal.SIGKILL)


def arm(folder: Path, counts: Counts, kind: str, number: int, strike: Callable[[], None] = kill) -> None:
    """Makes this process call ``strike`` before its change or write with a number; it counts both."""

    def seen(now: str) -> None:
        if counts.add(now) == number and now == kind:
            strike()

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if event == "open" and isinstance(arguments[2], int) and not arguments[2] & WRITING:
            return
        if event in CHANGES or event == "open":
            paths = [os.fsdecode(a) for a in arguments if isinstance(a, str | bytes | os.PathLike)]
            if any(path.startswith(str(folder)) for path in paths):
                seen("change")

    def profile(_frame: object, event: str, called: object) -> None:
        if event == "c_call" and getattr(called, "__name__", "") in WRITES:
            file = getattr(called, "__self__", None)
            if isinstance(file, io.IOBase | np.ndarray) and not isinstance(file, io.BytesIO | io.StringIO):
                seen("write")

    sys.addaudithook(hook)
    if kind != "time":  # a profile makes the child slower
        threading.setprofile(profile)
        sys.setprofile(profile)


def start(task: Callable[[Path], None], folder: Path, counts: Counts, kind: str, number: int) -> int:
    """Starts a child that does a task, and returns its process id."""
    if child := os.fork():
        return child
    status = 1
    try:
        silent = os.open(os.devnull, os.O_WRONLY)
        for stream in (1, 2):
            os.dup2(silent, stream)
        arm(folder, counts, kind, number)
        task(folder)
        status = 0
    finally:
        os._exit(status)
    return 0


def finish(child: int, seconds: float | None = None) -> bool:
    """Waits for a child, and kills it after some seconds. Returns whether it was killed."""
    if seconds is not None:
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
        return True
    if status:
        raise AssertionError(f"a child that was not killed ended with status {status}")
    return False


def files(folder: Path) -> dict[str, bytes]:
    """The files of a folder by their relative names, without temporary ones, which are hidden."""
    found = {path.relative_to(folder): path for path in sorted(folder.rglob("*")) if path.is_file()}
    shown = {
        name: path for name, path in found.items() if not any(p.startswith(".") or p == LEASES for p in name.parts)
    }
    return {name.as_posix(): path.read_bytes() for name, path in shown.items()}


def check_whole(path: Path) -> None:
    """Raises an exception if a file is not complete."""
    suffix, data = path.suffix, path.read_bytes()
    if suffix == ".json":
        json.loads(data)
    elif suffix == ".jsonl":
        assert not data or data.endswith(b"\n"), "the last line is not complete"
        for line in data.splitlines():
            json.loads(line)
    elif suffix in (".png", ".jpg"):
        Image.open(io.BytesIO(data)).load()
    elif suffix == ".safetensors":
        load_file(path)
    elif suffix == ".npy":
        np.load(io.BytesIO(data), allow_pickle=False)
    elif suffix in (".zip", ".npz"):
        assert zipfile.ZipFile(io.BytesIO(data)).testzip() is None
    elif suffix == ".tar":
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            assert all(len(tar.extractfile(member).read()) == member.size for member in tar)
        assert data.endswith(bytes(1024)), "the end of the tar is missing"
    else:
        assert data or suffix in (".md", ".txt", ".csv"), "the file is empty"


def check_all(folder: Path) -> int:
    """Checks each file of a folder, and returns how many there are."""
    names = [name for name in files(folder) if not name.endswith(JOURNAL)]
    for path in map(folder.joinpath, names):
        try:
            check_whole(path)
        except Exception as error:
            raise AssertionError(f"{path.name} is not whole: {error!r}") from error
    return len(names)


@dataclass
class Undisturbed:
    """What a task does if nobody kills it.

    Attributes:
        files: its output, without the files that say how long something took.
        counts: its changes and writes.
        seconds: how long it takes.
    """

    files: dict[str, bytes]
    counts: dict[str, int]
    seconds: float

    @classmethod
    def of(cls, task: Callable[[Path], None], folder: Path) -> "Undisturbed":
        counts, begin = Counts(), time.monotonic()
        assert not finish(start(task, folder / "first", counts, "time", -1))
        seconds, counts = time.monotonic() - begin, Counts()
        assert not finish(start(task, folder / "second", counts, "change", -1))
        first, second = files(folder / "first"), files(folder / "second")
        assert first.keys() == second.keys()
        differing = {name for name in first if first[name] != second[name]}
        assert {Path(name).name for name in differing} <= TIMED, f"two runs differ in {sorted(differing)}"
        kept = {name: data for name, data in first.items() if Path(name).name not in TIMED}
        return cls(kept, counts.read(), seconds)


def kill_once(task: Callable[[Path], None], folder: Path, expected: Undisturbed, rng: random.Random) -> str:
    """Starts a task and kills it. Returns how; "" if it was faster."""
    kind = rng.choice(KINDS)
    if kind == "time":
        child = start(task, folder, Counts(), kind, -1)
        return kind if finish(child, rng.uniform(0, expected.seconds)) else ""
    number = rng.randrange(max(1, expected.counts[kind]))
    return kind if finish(start(task, folder, Counts(), kind, number)) else ""


def rounds(name: str, inputs: Path, times: int, rng: random.Random) -> Iterator[tuple[str, int]]:
    """Yields how a task was killed, each time, and the number of files that were whole then."""
    task, done = (lambda folder: TASKS[name](inputs, folder)), 0
    with tempfile.TemporaryDirectory() as reference:
        expected = Undisturbed.of(task, Path(reference))
    while done < times:
        with tempfile.TemporaryDirectory() as work:
            folder = Path(work, "out")
            while True:
                if kind := kill_once(task, folder, expected, rng):
                    done += 1
                    yield kind, check_all(folder) if folder.exists() else 0
                if done >= times or rng.random() > AGAIN:
                    break
            assert not finish(start(task, folder, Counts(), "time", -1))
            check_all(folder)
            found = files(folder)
            wrong = [path for path, data in expected.files.items() if found.get(path) != data]
            assert not wrong, f"{name}: another output after a kill: {wrong}"
            more = {path for path in found.keys() - expected.files.keys() if Path(path).name not in TIMED}
            assert not more, f"{name}: files that an undisturbed run does not write: {sorted(more)}"


def main() -> int:
    parser = argparse.ArgumentParser(description="Kills tasks at random moments; nothing may be lost.")
    parser.add_argument("--times", type=int, default=200, help="kills of all tasks together")
    parser.add_argument("--tasks", default=",".join(TASKS), help=f"some of {','.join(TASKS)}")
    parser.add_argument("--seed", type=int, default=0)
    arguments, lost, all_kills = parser.parse_args(), 0, 0
    names = arguments.tasks.split(",")
    with tempfile.TemporaryDirectory() as folder:
        make_inputs(Path(folder))
        for number, name in enumerate(names):
            share = arguments.times // len(names) + (number < arguments.times % len(names))
            kills, checked = Counter[str](), 0
            try:
                for kind, whole in rounds(name, Path(folder), share, random.Random(f"{arguments.seed} {name}")):
                    kills[kind] += 1
                    checked += whole
            except AssertionError as error:
                lost += 1
                print(f"{name}: LOST after {kills.total()} kills: {error}", flush=True)
            how = ", ".join(f"{kills[kind]} by {kind}" for kind in KINDS)
            print(f"{name}: {kills.total()} kills ({how}), {checked} files whole", flush=True)
            all_kills += kills.total()
    print(f"{all_kills} kills, {lost} of {len(names)} tasks lost something", flush=True)
    return int(bool(lost))


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        sys.exit(main())
