"""How worker processes start: forked from a process that is ready, or on their own.

A process that is started on its own imports PyTorch, numba and SciPy, captures the network and loads the compiled
kernels, which takes seconds and most of its memory. So on Linux one process does this, with one thread, and the workers
are forked from it: they start at once, and share the memory that none of them changes.
"""

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.context import BaseContext
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

from grounding.runtime.prepared import MESSAGE

PREPARED = "grounding.runtime.prepared"
_starting = threading.Lock()


@contextmanager
def ready_context(message: bytes) -> Iterator[BaseContext]:
    """A context whose processes are forked from one that is ready, or are started on their own.

    They are started on their own on other systems than Linux, where libraries may have threads of their own; if there
    is a GPU, because PyTorch then has threads that a forked process lacks; and if a process of ``multiprocessing`` to
    fork from runs already, for example that of another pool: it has other modules and settings.

    Args:
        message: a function or None, its arguments, and another function or None, pickled. The process that is forked
            calls the first with the arguments, and then the second without arguments.

    Yields:
        The context. The environment variables are those of its beginning.
    """
    if sys.platform != "linux" or _sees_gpu():
        yield get_context("spawn")
        return
    server, file = _server(), os.memfd_create("workers")
    try:
        with open(file, "wb", closefd=False) as stream:
            stream.write(ForkingPickler.dumps((sys.path, message)))
        with _starting:  # two pools must not take the same process for their own
            own = server._forkserver_pid is None
            if own:
                _start(server, f"/proc/{os.getpid()}/fd/{file}")
        try:
            yield get_context("forkserver" if own else "spawn")
        finally:
            if own:
                _stop(server)
    finally:
        os.close(file)


def _start(server: Any, path: str) -> None:
    before = server._preload_modules
    os.environ[MESSAGE] = path
    server.set_forkserver_preload([PREPARED])
    try:
        server.ensure_running()
    finally:
        server.set_forkserver_preload(before)
        del os.environ[MESSAGE]


def _stop(server: Any) -> None:
    """Ends the process, unless a user's process was forked from it and still runs: ``_stop`` would wait for its end."""
    pid = server._forkserver_pid
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii").split()
    except OSError:  # it has ended
        children = []
    if not children:
        server._stop()


def _server() -> Any:
    """The only process to fork from that ``multiprocessing`` has; its end and its state have no public names."""
    from multiprocessing import forkserver  # not on Windows

    return forkserver._forkserver


def _sees_gpu() -> bool:
    return "torch" in sys.modules and bool(sys.modules["torch"].cuda.device_count())
