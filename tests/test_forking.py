"""Worker processes are forked from one process that is ready, and none is left behind."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from multiprocessing import forkserver
from pathlib import Path

import pytest

from grounding.runtime import prepared
from grounding.runtime.workers import in_order, worker_pool
from proposals.errors import InputError

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="workers are forked on Linux only")
done: list[tuple[object, ...]] = []


def begin(*arguments):
    done.append((os.getpid(), *arguments))


def rehearse():
    done.append((os.getpid(), "rehearsed", len(list(Path("/proc/self/task").iterdir()))))


def seen(_=None):
    return os.getppid(), prepared.ready, done, os.environ.get("OMP_NUM_THREADS"), os.environ.get("GROUNDING_TEST")


def ended(process: int) -> bool:
    return not Path(f"/proc/{process}").exists()


class NotThere:
    """It cannot be loaded in the process from which workers are forked, which has no parent."""

    def __reduce__(self):
        return load, ()


def load():
    if multiprocessing.parent_process() is None:
        raise ValueError("not here")
    return "loaded"


def test_the_workers_begin_once_in_the_process_that_they_are_forked_from(monkeypatch):
    monkeypatch.setenv("GROUNDING_TEST", "first")
    with worker_pool(2, begin, "a", [1], rehearse=rehearse) as pool:
        first, second = (result for _, result in in_order(pool, seen, range(2), 2))
    server = first[0]
    assert first == second == (server, True, [(server, "a", [1]), (server, "rehearsed", 1)], "1", "first")
    assert server != os.getpid() and ended(server)
    assert "GROUNDING_TEST" in os.environ and prepared.MESSAGE not in os.environ


def test_the_workers_of_the_next_pool_see_its_variables(monkeypatch):
    found = []
    for value in ("first", "second"):
        monkeypatch.setenv("GROUNDING_TEST", value)
        with worker_pool(1) as pool:
            found.append(pool.submit(seen).result()[-1])
    assert found == ["first", "second"]


def test_workers_begin_by_themselves_if_the_process_that_they_are_forked_from_cannot():
    with worker_pool(2, begin, NotThere()) as pool:
        results = [result for _, result in in_order(pool, seen, range(2), 2)]
    assert [(ready, [what for _, what in begun]) for _, ready, begun, *_ in results] == [(False, ["loaded"])] * 2


def test_workers_start_on_their_own_if_a_process_to_fork_from_runs_already():
    server = forkserver._forkserver
    assert server._forkserver_pid is None
    server.ensure_running()
    try:
        with worker_pool(1, begin, "b") as pool:
            parent, ready, begun, *_ = pool.submit(seen).result()
        assert parent == os.getpid() and not ready and [what for _, what in begun] == ["b"]
        assert not ended(server._forkserver_pid)
    finally:
        server._stop()


@pytest.mark.parametrize("lost", ["worker", "parent of the workers"])
def test_a_lost_process_is_an_error_in_one_line(lost):
    with pytest.raises(InputError, match="a worker ended too early"), worker_pool(2, begin) as pool:
        process = pool.submit(os.getpid if lost == "worker" else os.getppid).result()
        os.kill(process, signal.SIGKILL)
        while not ended(process) and "Z" not in Path(f"/proc/{process}/stat").read_text().split(")")[1][:3]:
            time.sleep(0.01)
        list(in_order(pool, abs, range(20), 8))


KILLED = """
import os, time
from grounding.runtime.workers import worker_pool
if __name__ == "__main__":
    with worker_pool(1, len, "x" * 1_000_000) as pool:
        print(pool.submit(os.getpid).result(), pool.submit(os.getppid).result(), flush=True)
        time.sleep(100)
"""


def test_no_process_outlives_a_parent_that_is_killed(tmp_path):
    (tmp_path / "killed.py").write_text(KILLED)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    with subprocess.Popen([sys.executable, str(tmp_path / "killed.py")], env=environment, stdout=-1) as process:
        others = [int(word) for word in process.stdout.readline().split()]
        assert len(others) == 2 and not any(map(ended, others))
        process.kill()
    until = time.monotonic() + 60
    while not all(map(ended, others)) and time.monotonic() < until:
        time.sleep(0.05)
    assert all(map(ended, others))
