"""Fuzzing of the readers: changed copies of small valid files must be read, or refused with an InputError.

    make fuzz                    # 60 seconds a target
    make fuzz FUZZ_SECONDS=600
    python tests/fuzz/fuzz.py --seconds 10 --targets voc,coco --seed 3 --json counts.json

Prints for each target the number of executions, of the refusals among them, and of the lines of the project that they
reached, beside the number of lines of the functions that they entered. Every tenth execution is traced; an input that
reaches a new line is changed further. Any other exception, and an execution that takes more than ten seconds of CPU
time, is printed with the bytes that caused it, and the exit status is 1.
"""

import argparse
import json
import os
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))
from fuzz_lines import Lines
from fuzz_targets import TARGETS, Target

from proposals.errors import InputError

PIECES = (b"0", b"-1", b"9" * 5000, b"1e999", b"NaN", b"null", b"true", b'""', b"[]", b"{}", b"\0", b"\xff", b"\n",
          b"<", b"&", b"]", b"\xe2\x80\xa8", b"\xef\xbb\xbf", b"[" * 2000, "\u0661\u00b2".encode())  # fmt: skip
TRACED = 10  # every tenth execution is traced
KEPT, KEPT_BYTES = 200, 1 << 15  # largest number and size of the kept inputs that reached new lines
SLOW = 10  # seconds of CPU time after which an execution is counted as a crash
ADDED_MEMORY = 4 << 30  # bytes of address space beyond those at the start
MEMORY = Path("/dev/shm")  # a file system in memory, many times faster than a disk


def mutate(data: bytes, rng: random.Random) -> bytes:
    """A copy with one to four changes: bytes flipped, removed, repeated or replaced by awkward pieces."""
    changed = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        start = rng.randrange(len(changed) + 1)
        end = min(len(changed), start + rng.choice((1, 2, 8, 40)))
        kind = rng.randrange(12)
        if kind < 3 and start < len(changed):
            changed[start] ^= 1 << rng.randrange(8)
        elif kind < 5:
            del changed[start:end]
        elif kind < 8:
            changed[start:start] = changed[start:end] * rng.randint(1, 3)
        elif kind < 11:
            changed[start : end if rng.random() < 0.5 else start] = rng.choice(PIECES)
        else:
            del changed[start:]
    return bytes(changed)


def inputs(target: Target, seed: int, corpus: list[bytes] | None = None) -> Iterator[bytes]:
    """Endless changed inputs of a target, the same ones for the same seed and corpus."""
    rng = random.Random(seed)
    corpus = [] if corpus is None else corpus
    while True:
        yield mutate(rng.choice(corpus if corpus and rng.random() < 0.5 else target.seeds), rng)


def execute(target: Target, data: bytes, folder: Path) -> bool:
    """Reads one input. Returns whether it was refused with an InputError; any other exception is passed on."""
    if target.suffix:
        path = folder / f"fuzz{target.suffix}"
        path.unlink(missing_ok=True)  # a disk would wait for the old content to be written
        path.write_bytes(data)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            target.read(path if target.suffix else data)
    except InputError:
        return True
    return False


@dataclass
class Counts:
    """What was done with a target.

    Attributes:
        target: its name.
        executions: inputs that were read or refused.
        refused: inputs that were refused.
        lines: lines of the project that were reached.
        of_lines: lines of the functions that were entered.
        crashes: each other exception, once for each place that raised it.
    """

    target: str
    executions: int = 0
    refused: int = 0
    lines: int = 0
    of_lines: int = 0
    crashes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = f"{self.lines:6,} of {self.of_lines:6,} lines" if self.of_lines else ""
        done = f"{self.target:16}{self.executions:10,} executions{self.refused:10,} refused"
        return f"{done}{len(self.crashes):4} crashes{lines:>24}"


def _too_slow(_signal: int, _frame: FrameType | None) -> None:
    raise TimeoutError(f"more than {SLOW} seconds of CPU time")


@contextmanager
def _silent() -> Iterator[None]:
    """Hides what libraries write about broken files, and limits the time of an execution."""
    errors, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    before = signal.signal(signal.SIGVTALRM, _too_slow)
    os.dup2(nothing, 2)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
        os.dup2(errors, 2)
        os.close(errors)
        os.close(nothing)


def _limit_memory() -> None:
    """Lets an execution that takes too much memory fail with a MemoryError."""
    now = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (now + ADDED_MEMORY, resource.RLIM_INFINITY))


def fuzz(name: str, seconds: float, seed: int) -> Counts:
    """Fuzzes one target for some seconds of CPU time."""
    target, counts, lines, corpus, crashes = TARGETS[name], Counts(name), Lines(), list[bytes](), set[object]()
    memory = str(MEMORY) if os.access(MEMORY, os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=memory) as folder, _silent():
        for data in target.seeds:  # loads what is loaded once
            execute(target, data, Path(folder))
        end = time.process_time() + seconds
        for data in inputs(target, seed, corpus):
            if time.process_time() > end:
                break
            before, traced = len(lines), counts.executions % TRACED == 0
            counts.executions += 1
            signal.setitimer(signal.ITIMER_VIRTUAL, SLOW)
            try:
                with lines.traced() if traced else nullcontext():
                    counts.refused += execute(target, data, Path(folder))
            except Exception as error:
                last = traceback.extract_tb(error.__traceback__)[-1]
                if (place := (type(error), last.filename, last.lineno)) not in crashes:
                    crashes.add(place)
                    counts.crashes.append(
                        f"{type(error).__name__}: {str(error)[:200]} at {last.filename}:{last.lineno}"
                    )
                    print(f"{name}: {counts.crashes[-1]} of {data[:300]!r}", flush=True)
            if traced and len(lines) > before and len(data) <= KEPT_BYTES:
                corpus[:] = [*corpus[-KEPT + 1 :], data]
    counts.lines, counts.of_lines = len(lines), lines.in_all()
    print(counts, flush=True)
    return counts


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60, help="seconds of CPU time for each target")
    parser.add_argument("--targets", default=",".join(TARGETS), help="names, joined by commas")
    parser.add_argument("--seed", type=int, default=0, help="of the changes")
    parser.add_argument("--json", type=Path, help="a file for the counts")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    _limit_memory()
    counts = [fuzz(name, chosen.seconds, chosen.seed) for name in chosen.targets.split(",")]
    total = sum(count.executions for count in counts)
    crashes = sum(len(count.crashes) for count in counts)
    print(f"{'all':16}{total:10,} executions{sum(count.refused for count in counts):10,} refused{crashes:4} crashes")
    if chosen.json:
        whole = {"seconds": chosen.seconds, "seed": chosen.seed, "executions": total, "crashes": crashes}
        chosen.json.write_text(json.dumps(whole | {"targets": [asdict(count) for count in counts]}, indent=1) + "\n")
    return 1 if crashes else 0


if __name__ == "__main__":
    sys.exit(main())
