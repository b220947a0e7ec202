"""Interruption: a signal that asks a training to end, held back until the work is saved."""

import os
import signal
import threading
from types import FrameType

# what Slurm, torchrun and people send; SIGUSR2 is submitit's own
SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


class Interruption:
    """Within its ``with`` block the signals are only noted.

    Attributes:
        signal: the number of the last one that came, 0 while none has.
    """

    def __init__(self) -> None:
        self.signal = 0
        self._before: dict[int, object] = {}

    def __enter__(self) -> "Interruption":
        if threading.current_thread() is threading.main_thread():  # only there Python lets them be caught
            self._before = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def follow(self, number: int) -> None:
        """Lets a signal do what it would have done at once: end the process, or what its earlier handler does.

        submitit's handler puts the job back into the queue. Where a handler comes back, as that of a signal that is
        ignored does, the training goes on.
        """
        self.signal = 0
        self.__exit__()
        os.kill(os.getpid(), number)
        self.__enter__()

    def _note(self, number: int, _: FrameType | None) -> None:
        self.signal = number
