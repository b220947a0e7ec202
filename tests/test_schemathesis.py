"""Requests that Schemathesis makes from the server's OpenAPI description: each reply must be as it describes."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

CONFIG = Path(__file__).with_name("schemathesis.toml")
SECONDS = 40  # at most


@pytest.mark.slow
@pytest.mark.skipif(find_spec("schemathesis") is None, reason="no Schemathesis: .venv/bin/pip install -e '.[dev]'")
def test_replies_are_as_the_description_says(site, tmp_path):
    program = [sys.executable, "-m", "schemathesis.cli", "--no-color", "--config-file", str(CONFIG)]
    address = f"http://127.0.0.1:{site.port}/openapi.json"
    command = ["run", address, "--seed=1", f"--max-time={SECONDS}", "--no-shrink"]
    done = subprocess.run([*program, *command], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "10 selected / 10 total" in done.stdout
