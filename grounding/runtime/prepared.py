"""Makes the process ready from which workers are forked. It is imported there, before the first worker.

``multiprocessing`` imports the modules of ``set_forkserver_preload`` in that process, and gives them no arguments. So
the message is in a file that an environment variable names; see ``grounding.runtime.forking``. In every other process
this module does nothing.
"""

import gc
import logging
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.reduction import ForkingPickler
from pathlib import Path

from grounding.runtime.memory import give_back

MESSAGE = "GROUNDING_WORKERS_MESSAGE"
ready = False  # in a process that was forked after its preparation: nothing needs to be sent to it


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Ctrl-C ends the process that waits for the workers, and thereby this one, without a traceback."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _prepare(path: str) -> None:
    sys.path, message = ForkingPickler.loads(Path(path).read_bytes())  # the message may name modules beside a script
    begin, arguments, rehearse = ForkingPickler.loads(message)
    if begin is not None:
        begin(*arguments)
    if rehearse is not None:
        rehearse()
    # The workers share the pages that none of them changes. The garbage collector would change those of all objects.
    gc.collect()
    gc.freeze()
    give_back()


if message := os.environ.pop(MESSAGE, None):
    # Whatever goes wrong, for example because a class is defined in the user's script, goes wrong again in the workers,
    # which prepare themselves, or does not.
    with _uninterrupted(), suppress(Exception):
        logging.disable()
        _prepare(message)
        ready = True
    logging.disable(logging.NOTSET)
