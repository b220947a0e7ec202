"""A full disk, a closed pipe, a folder that cannot be written, and a photo that is replaced while it is read."""

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import run_here
from made_shards import jpeg

from grounding import cache
from grounding.images import read_image
from proposals.errors import InputError

TESTS = Path(__file__).parent
SERVER = """
import resource, signal, sys
import fuzz_requests, fuzz_targets
fuzz_requests.ask(fuzz_targets.REQUESTS[0])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
for request in fuzz_targets.REQUESTS[:3] + fuzz_targets.REQUESTS[-2:]:
    fuzz_requests.ask(request)
"""


def full() -> None:
    """Lets no file of this process grow: the system refuses each write, as on a full disk."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


def grounding(folder: Path, *arguments: str, prepare=None, output=subprocess.PIPE) -> tuple[int, str]:
    """The exit code of a command, and what it prints as an error."""
    environment = os.environ | {"PYTHONPATH": str(TESTS.parent)}
    for name in ("HYDRA_FULL_ERROR", "PYTHONUNBUFFERED"):  # other tests call main(), which sets the first
        environment.pop(name, None)
    command = [sys.executable, "-m", "grounding", *arguments]
    done = subprocess.run(
        command, cwd=folder, env=environment, stdout=output, stderr=subprocess.PIPE, text=True, preexec_fn=prepare
    )
    return done.returncode, done.stderr


def test_a_step_on_a_full_disk_ends_with_one_line(tmp_path):
    (tmp_path / "captions.txt").write_text("A man in a red shirt.\n")
    code, errors = grounding(tmp_path, "step=phrases", "captions=captions.txt", prepare=full)
    assert code == 2
    assert errors.splitlines() == [
        "grounding: the output cannot be used: File too large: free space, or choose a file or folder that you may use"
    ]
    assert not list(tmp_path.rglob("*.jsonl"))


def test_an_output_that_cannot_be_written_is_said_in_one_line(tmp_path):
    with Path("/dev/full").open("w") as output:
        code, errors = grounding(tmp_path, "--version", output=output)
    assert (code, len(errors.splitlines())) == (2, 1)
    assert "No space left on device" in errors


def test_a_folder_that_cannot_be_written_is_said_in_one_line(tmp_path):
    (tmp_path / "captions.txt").write_text("A man in a red shirt.\n")
    (tmp_path / "runs").write_text("a file in the place of the folder")
    done = run_here(tmp_path, "step=phrases", "captions=captions.txt")
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "runs" in done.stderr and "Not a directory" in done.stderr


def test_nothing_is_said_when_the_reader_of_a_pipe_has_ended(tmp_path):
    reading, writing = os.pipe()
    os.close(reading)
    try:
        assert grounding(tmp_path, "--help", output=writing) == (2, "")
    finally:
        os.close(writing)


@pytest.mark.parametrize(
    ("error", "printed", "code"),
    [
        ("PermissionError(errno.EACCES, 'Permission denied', 'a.json')", "a.json cannot be used: Permission denied", 2),
        ("BrokenPipeError(errno.EPIPE, 'Broken pipe')", "None", 1),  # of a worker: the output has a reader
    ],
)
def test_what_was_printed_before_an_error_is_kept(error, printed, code):
    program = f"import errno, sys; from grounding.__main__ import _report; print('kept'); sys.exit(_report({error}))"
    done = subprocess.run([sys.executable, "-c", program], cwd=TESTS.parent, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (code, "kept\n")
    assert printed in done.stderr


@pytest.mark.slow
def test_nothing_is_lost_when_the_disk_is_full():
    program = [sys.executable, str(TESTS / "kills" / "full_disk.py"), "--times", "10", "--seed", "1"]
    done = subprocess.run(program, capture_output=True, text=True, timeout=600)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "0 of 5 tasks lost something"), done


@pytest.mark.slow
def test_the_server_needs_no_disk(tmp_path):
    pytest.importorskip("fastapi", reason="no FastAPI: .venv/bin/pip install -e '.[demo]'")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (TESTS.parent, TESTS / "fuzz")))}
    done = subprocess.run([sys.executable, "-c", SERVER], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_photo_that_is_replaced_while_it_is_read_is_read_again(tmp_path, monkeypatch):
    path, photos = tmp_path / "a.jpg", [jpeg("chelsea", turn) for turn in range(3)]
    path.write_bytes(photos[0])

    def read(source, aspect):
        image = read_image(source, aspect)
        if remaining:
            path.write_bytes(remaining.pop())
        return image

    monkeypatch.setattr(cache, "read_image", read)
    remaining = [photos[1]]
    image, digest = cache._read(path)
    assert image.shape == read_image(path).shape
    assert digest == cache._digest(path)
    remaining = [photos[0], photos[2]] * 2
    with pytest.raises(InputError, match=r"a\.jpg changes while it is read: run again when it is complete"):
        cache._read(path)
