"""A command line that runs in this process: a process of its own would import PyTorch again, which takes seconds."""

import io
import os
import sys
from contextlib import chdir, redirect_stderr, redirect_stdout
from pathlib import Path
from subprocess import CompletedProcess
from unittest.mock import patch

from grounding.__main__ import main
from grounding.runtime import front_door

# log files would stay open in this process
QUIET = ["hydra/job_logging=none", "hydra/hydra_logging=none"]


def run_here(folder: Path, *words: str) -> CompletedProcess[str]:
    """Runs a command line in a folder, without log messages.

    Returns:
        The exit code and what was printed, as of a process of its own.
    """
    out, err = io.StringIO(), io.StringIO()
    with chdir(folder), patch.dict(os.environ), redirect_stdout(out), redirect_stderr(err):
        os.environ.pop("HYDRA_FULL_ERROR", None)  # with it, a refusal would end with a traceback
        code = _run([*words])
    return CompletedProcess(words, code, out.getvalue(), err.getvalue())


def _run(words: list[str]) -> int:
    try:
        asked = front_door.read(words)
        quiet = QUIET if asked.text is None and asked.config is None else []
    except Exception:  # main() prints the refusal
        quiet = []
    with patch.object(sys, "argv", ["grounding", *words, *quiet]):
        try:
            main()
        except SystemExit as end:
            return int(end.code or 0)
    return 0
