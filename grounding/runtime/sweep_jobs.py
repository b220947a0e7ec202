"""The jobs of a sweep: which ran, with which overrides, and how each ended."""

import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from grounding.runtime.artefacts import write_json

RECORD = "job.json"
OVERRIDES = ".hydra/overrides.yaml"  # Hydra writes it when a job begins


class SweepJob(NamedTuple):
    """A job of a sweep.

    Attributes:
        folder: its folder.
        number: Hydra's ``hydra.job.num``.
        overrides: the overrides that it was started with.
        error: why it failed, on one line; None if it did not.
        code: the exit code that the step would have had on its own.
    """

    folder: Path
    number: int
    overrides: tuple[str, ...]
    error: str | None = None
    code: int = 0


class RunningSweep(NamedTuple):
    """The sweep that this process runs.

    Attributes:
        folder: its folder.
        start: when it began, in seconds since 1970.
        join: called at its end with both.
    """

    folder: str
    start: float
    join: Callable[[str, float], object]


_running: list[RunningSweep] = []  # at most one


def begin(folder: str, join: Callable[[str, float], object]) -> None:
    """Notes that a sweep begins in this process.

    Args:
        folder: the folder of the sweep.
        join: called at its end with the folder and the time of the start, in seconds since 1970.
    """
    _running[:] = [RunningSweep(folder, time.time(), join)]


def end() -> int | None:
    """Joins the results of the sweep's jobs, and prints the name and the reason of each that failed.

    Returns:
        The exit code: of the only job; of several jobs, 3 if jobs only skipped some of many inputs, otherwise 1. None
        if no job failed, and for a single job whose exception is a bug.
    """
    if not _running:
        return None
    sweep = _running.pop()
    jobs = read_jobs(sweep.folder, sweep.start)
    sweep.join(sweep.folder, sweep.start)
    failed = [job for job in jobs if job.error is not None]
    if not failed:
        return None
    if len(jobs) == 1:
        if failed[0].code == 1:
            return None
        print(f"grounding: {failed[0].error}", file=sys.stderr)
        return failed[0].code
    shown = distinct_overrides(jobs)
    for job in failed:
        print(f"grounding: job {job.number} ({shown[job.folder]}) failed: {job.error}", file=sys.stderr)
    return 3 if all(job.code == 3 for job in failed) else 1


def write_job(job: SweepJob) -> None:
    """Writes how a job ended into its folder.

    Args:
        job: the job.

    Raises:
        InputError: the file cannot be written.
    """
    record = job._asdict() | {"overrides": list(job.overrides)}
    write_json(job.folder / RECORD, {name: value for name, value in record.items() if name != "folder"})


def read_jobs(folder: str | Path, since: float = 0) -> list[SweepJob]:
    """Reads how the jobs of a sweep ended.

    Args:
        folder: the folder of the sweep.
        since: seconds since 1970; jobs that ended or began earlier belong to an earlier sweep in the same folder.

    Returns:
        The jobs by their numbers. A job that began and left no record was killed.
    """
    jobs = {path.parent: _read(path) for path in Path(folder).glob(f"*/{RECORD}") if _is_new(path, since)}
    for path in Path(folder).glob(f"*/{OVERRIDES}"):
        place = path.parent.parent
        if place not in jobs and _is_new(path, since):
            number = int(place.name) if place.name.isdecimal() else -1
            jobs[place] = SweepJob(place, number, _overrides(path), "it ended without a result", 1)
    return sorted(jobs.values(), key=lambda job: (job.number, job.folder.name))


def distinct_overrides(jobs: Sequence[SweepJob]) -> dict[Path, str]:
    """The overrides that not all jobs share, by the job's folder.

    Args:
        jobs: the jobs of a sweep.
    """
    common = set.intersection(*(set(job.overrides) for job in jobs)) if len(jobs) > 1 else set()
    return {job.folder: " ".join(o for o in job.overrides if o not in common) for job in jobs}


def _is_new(path: Path, since: float) -> bool:
    return path.stat().st_mtime >= since


def _read(path: Path) -> SweepJob:
    record = json.loads(path.read_bytes())
    overrides = tuple(map(str, record["overrides"]))
    return SweepJob(path.parent, int(record["number"]), overrides, record["error"], int(record["code"]))


def _overrides(path: Path) -> tuple[str, ...]:
    """The items of a YAML list of plain or quoted words."""
    lines = path.read_text("utf-8", "replace").split("\n")
    return tuple(line.removeprefix("- ").strip("'") for line in lines if line.startswith("- "))
