"""Worker processes: the same answers as without them, and their number fits the cores and the memory."""

import os
import subprocess
import sys
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from grounding import Grounder
from grounding.images import read_image
from grounding.runtime import workers
from grounding.runtime.ranks import let_threads_sleep
from grounding.runtime.workers import free_memory
from grounding.steps import ground as step
from proposals import SegmentProposer
from proposals.cores import own_cores
from proposals.errors import InputError

PHRASES = ["a woman in an orange suit", "a zorgophone"]


@pytest.fixture(scope="module")
def grounder() -> Grounder:
    return Grounder.load(proposer=SegmentProposer(count=30, side=100), side=224)


@pytest.fixture(scope="module")
def photos(astronaut, tmp_path_factory) -> list[object]:
    """One photo as a file, an open file, bytes, an image of Pillow, an array and a tensor, and files that are none."""
    folder = tmp_path_factory.mktemp("photos")
    small = Image.open(astronaut).convert("RGB").resize((64, 80))
    small.save(folder / "photo.png")
    (folder / "broken.png").write_bytes(b"broken")
    data = (folder / "photo.png").read_bytes()
    array = read_image(folder / "photo.png")
    tensor = torch.from_numpy(array).permute(2, 0, 1).float() / 255
    given = [folder / "photo.png", BytesIO(data), memoryview(data), small, array, tensor]
    return [folder / "broken.png", *given, BytesIO(b"broken"), 3]


def ask(grounder, photos, workers, **settings):
    for photo in photos:
        if hasattr(photo, "seek"):
            photo.seek(0)
    batch = grounder.ground_batch(photos, PHRASES, workers=workers, **settings)
    return list(batch), [str(skipped) for skipped in batch.skipped]


@pytest.mark.slow
def test_workers_give_the_answers_and_skip_the_images_of_one_process(grounder, photos):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        alone, skipped = ask(grounder, photos, 0)
    finally:
        torch.set_num_threads(threads)
    shared, skipped_by_workers = ask(grounder, photos, 2)
    assert [answers.image for answers in shared] == [answers.image for answers in alone] and len(alone) == 6
    assert len(skipped) == 3 and skipped_by_workers == skipped
    for one, other in zip(alone, shared, strict=True):
        for mine, theirs in zip(one.groundings, other.groundings, strict=True):
            assert mine.phrase == theirs.phrase and theirs.image is None
            assert np.array_equal(mine.boxes, theirs.boxes) and np.array_equal(mine.scores, theirs.scores)
            assert mine.presence == theirs.presence and np.array_equal(mine.map, theirs.map)


def test_workers_return_the_images_on_request(grounder, photos):
    (answers,), _ = ask(grounder, photos[1:2], 1, keep_images=True)
    assert np.array_equal(answers.groundings[0].image, read_image(photos[1]))


UNGUARDED = """
from grounding.runtime.workers import in_order, worker_pool
with worker_pool(2, len, "x" * 1_000_000) as pool:
    list(in_order(pool, abs, [1, 2, 3], 2))
"""


def test_workers_that_end_while_they_start_are_an_error(tmp_path):
    (tmp_path / "unguarded.py").write_text(UNGUARDED)  # without __name__ == "__main__", each worker would start workers
    command = [sys.executable, str(tmp_path / "unguarded.py")]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100)
    assert done.returncode == 1
    message = "a worker ended too early, probably because memory ran out: use fewer workers"
    # The process that frees what killed workers leave behind may write its own warning after the error.
    assert sum(line.endswith(f"InputError: {message}") for line in done.stderr.splitlines()) == 1


@pytest.mark.parametrize("workers", [-1, 1.5, "two"])
def test_an_invalid_number_of_workers_is_refused(grounder, workers):
    with pytest.raises(InputError, match=f"workers={workers} must be a whole number, 0 or more"):
        grounder.ground_batch(["a.jpg"], PHRASES, workers=workers)


@pytest.mark.parametrize(
    ("photos", "cores", "memory", "expected"),
    [
        (1000, 4, 10**11, 4),
        (1000, 4, None, 4),
        (1000, 1, 10**11, 0),  # one worker would only add a process
        (20, 4, 10**11, 2),
        (8, 4, 10**11, 0),
        (1000, 4, workers.READY_BYTES + 3 * workers.WORKER_BYTES, 3),
        (1000, 4, workers.READY_BYTES + 2 * workers.WORKER_BYTES - 1, 0),
    ],
)
def test_there_are_as_many_workers_as_pay_and_fit(grounder, monkeypatch, photos, cores, memory, expected):
    monkeypatch.setattr(step, "cores", lambda: cores)
    monkeypatch.setattr(workers, "free_memory", lambda: memory)
    assert step._workers(grounder, photos) == expected


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({}, None),
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu.max": "broken"}, None),
        ({"cpu.max": "100000 100000\n"}, 1),
        ({"cpu.max": "50000 100000\n"}, 1),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "100000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 1),
    ],
)
def test_the_cores_of_a_container_are_its_share(tmp_path, files, cores):
    write(tmp_path, files)
    assert own_cores(tmp_path) == (own_cores() if cores is None else cores)


@pytest.mark.parametrize(
    ("files", "free"),
    [
        ({}, None),
        ({"proc/meminfo": "MemTotal: 9 kB\nMemAvailable:      7 kB\n"}, 7 * 1024),
        ({"proc/meminfo": "MemTotal: 9 kB\n"}, None),
        ({"proc/meminfo": "MemAvailable: 7 kB\n", "sys/fs/cgroup/memory.max": "max\n"}, 7 * 1024),
        ({"sys/fs/cgroup/memory.max": "5000\n", "sys/fs/cgroup/memory.current": "2000\n"}, 3000),
        ({"sys/fs/cgroup/memory.max": "5000\n", "sys/fs/cgroup/memory.current": "6000\n"}, 0),
        (
            {
                "proc/meminfo": "MemAvailable: 7 kB\n",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "5000\n",
                "sys/fs/cgroup/memory/memory.usage_in_bytes": "1000\n",
                "sys/fs/cgroup/memory/memory.stat": "inactive_file 30\ntotal_inactive_file 200\n",
            },
            4200,
        ),
        (
            {
                "sys/fs/cgroup/memory.max": "5000\n",
                "sys/fs/cgroup/memory.current": "4900\n",
                "sys/fs/cgroup/memory.stat": "anon 100\ninactive_file 3000\nactive_file 1800\n",
            },
            3100,
        ),
    ],
)
def test_free_memory_is_that_of_the_container(tmp_path, files, free):
    write(tmp_path, files)
    assert free_memory(tmp_path) == free


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.mark.parametrize(
    ("given", "spins"),
    [({}, "3000"), ({"OMP_WAIT_POLICY": "ACTIVE"}, None), ({"GOMP_SPINCOUNT": "7"}, "7")],
)
def test_idle_threads_sleep_soon_unless_the_environment_says_otherwise(given, spins, monkeypatch):
    monkeypatch.setattr(os, "environ", dict(given))
    let_threads_sleep()
    assert os.environ.get("GOMP_SPINCOUNT") == spins
