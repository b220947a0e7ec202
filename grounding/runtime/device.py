"""Where the network runs, and how to get the same bits there each time."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from proposals.errors import InputError


def checked_device(name: str | torch.device) -> torch.device:
    """The device of this name.

    Raises:
        InputError: PyTorch knows no such device, or this machine has none.
    """
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError) as error:
        raise InputError(f"device={name} is no device that PyTorch knows: say cpu, cuda, or cuda:1") from error
    try:
        if device.type == "meta":
            raise RuntimeError("it computes nothing")
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError, ImportError) as error:
        reason = str(error).partition("\n")[0].partition(". ")[0]
        raise InputError(f"device={name} is not to be had here ({reason}): say device=cpu") from error
    return device


@contextmanager
def reproducible() -> Iterator[None]:
    """Within it the same questions, asked in the same order, are answered by the same bits on any number of cores.

    Sums of floats follow from how many threads share them: with as many threads as before, answers are the same bits
    without this, too. It holds for the whole process and takes one thread, so it is slower on several. On a GPU cuDNN
    is held to its deterministic algorithms.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True):
            yield
    finally:
        torch.set_num_threads(threads)
