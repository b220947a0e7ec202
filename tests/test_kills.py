"""A few kills of each task of ``make kills``, and the check of what it looks at."""

import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "kills"))
import kill_loop


@pytest.mark.slow
def test_nothing_is_lost_when_a_process_is_killed():
    # a process of its own, because it forks
    program = [sys.executable, kill_loop.__file__, "--times", "10", "--seed", "1"]
    done = subprocess.run(program, capture_output=True, text=True, timeout=600)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "10 kills, 0 of 5 tasks lost something"), done


@pytest.mark.parametrize(
    ("name", "data"), [("a.json", b'{"a"'), ("a.jsonl", b"{}\n{"), ("a.zip", b"PK"), ("a.png", b"\x89PNG"), ("a", b"")]
)
def test_incomplete_files_are_seen(tmp_path, name, data):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(AssertionError, match=f"{name} is not whole"):
        kill_loop.check_all(tmp_path)
