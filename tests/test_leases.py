"""Leases: one holder at a time, and none for ever."""

import multiprocessing
import os
import subprocess
import sys
import time

import pytest

from grounding.shards.leases import LeaseFolder, LostLeaseError
from proposals.errors import InputError


def test_one_process_holds_a_lease(tmp_path):
    first, second = LeaseFolder(tmp_path, 60), LeaseFolder(tmp_path, 60)
    lease = first.claim("a.1")
    assert lease is not None
    lease.check()
    assert second.claim("a.1") is None
    assert second.claim("a") is not None  # another name, although a file begins with it
    lease.release()
    assert second.claim("a.1") is not None


def test_a_lease_is_renewed_while_it_is_held(tmp_path):
    lease = LeaseFolder(tmp_path, 1).claim("a")
    time.sleep(1.5)
    assert LeaseFolder(tmp_path, 1).claim("a") is None
    lease.check()


def test_an_expired_lease_is_taken_over_once(tmp_path):
    lease = LeaseFolder(tmp_path, 60).claim("a")
    os.utime(lease.path, (0, 0))  # as if the holder were cut off
    taken = LeaseFolder(tmp_path, 60).claim("a")
    assert taken is not None
    assert LeaseFolder(tmp_path, 60).claim("a") is None
    with pytest.raises(LostLeaseError):
        lease.check()
    lease.release()  # does not end the lease of the other
    taken.check()
    taken.release()
    again = LeaseFolder(tmp_path, 60).claim("a")
    with pytest.raises(LostLeaseError):
        lease.check()  # although its file has the same name again
    again.check()


def test_a_clock_that_is_set_back_keeps_no_lease_for_ever(tmp_path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr("grounding.shards.leases.time.monotonic", lambda: now[0])
    lease, other = LeaseFolder(tmp_path, 60).claim("a"), LeaseFolder(tmp_path, 60)
    tomorrow = time.time() + 86400
    os.utime(lease.path, (tomorrow, tomorrow))  # renewed before the clock was set back
    assert other.claim("a") is None
    now[0] += 40
    os.utime(lease.path, (tomorrow + 1, tomorrow + 1))  # its holder works
    assert other.claim("a") is None
    now[0] += 50
    assert other.claim("a") is None
    now[0] += 20
    assert other.claim("a") is not None


def test_the_lease_of_a_dead_process_of_this_machine_is_free_at_once(tmp_path):
    code = f"""
import os
from grounding.shards.leases import LeaseFolder
assert LeaseFolder({str(tmp_path)!r}, 1000).claim("a")
os._exit(9)
"""
    assert subprocess.run([sys.executable, "-c", code]).returncode == 9
    assert LeaseFolder(tmp_path, 1000).claim("a") is not None


def claim(folder, start, results):
    folder = LeaseFolder(folder, 60)
    start.wait()
    lease = folder.claim("a")
    results.put(lease is not None)
    time.sleep(0.5)


def test_of_many_that_want_a_lease_one_gets_it(tmp_path):
    (tmp_path / "a.0").write_text("another machine")
    os.utime(tmp_path / "a.0", (0, 0))
    context = multiprocessing.get_context("spawn")
    start, results = context.Barrier(4), context.Queue()
    processes = [context.Process(target=claim, args=(tmp_path, start, results)) for _ in range(4)]
    for process in processes:
        process.start()
    assert sorted(results.get(timeout=60) for _ in processes) == [False, False, False, True]
    for process in processes:
        process.join()


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="file/leases cannot be written"):
        LeaseFolder(tmp_path / "file" / "leases", 60)
