"""Interruption: delays a signal that asks a training to end, until the training is saved."""

import os
import signal
import threading
from types import FrameType

# Slurm, torchrun and people send these; submitit uses SIGUSR2.
SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


class Interruption:
    """Inside its ``with`` block, the signals in ``SIGNALS`` are only recorded.

    Attributes:
        signal: number of the last signal that arrived; 0 if none did.
    """

    def __init__(self) -> None:
        self.signal = 0
        self._before: dict[int, object] = {}

    def __enter__(self) -> "Interruption":
        if threading.current_thread() is threading.main_thread():  # others cannot set signal handlers
            self._before = {number: signal.signal(number, self._record) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def follow(self, number: int) -> None:
        """Sends the signal again with the earlier handler in place, which usually ends the process.

        The handler of submitit puts the job back into the queue. If the handler returns, or if the signal was ignored
        before, the training continues.

        Args:
            number: number of the signal.
        """
        self.signal = 0
        self.__exit__()
        os.kill(os.getpid(), number)
        self.__enter__()

    def _record(self, number: int, _: FrameType | None) -> None:
        self.signal = number
