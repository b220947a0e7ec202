"""The device of the network, and bit-identical results on it."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from proposals.errors import InputError


def checked_device(name: str | torch.device) -> torch.device:
    """Returns the device with this name after checking that it works.

    Args:
        name: a device as PyTorch names it, for example ``"cpu"``, ``"cuda"`` or ``"cuda:1"``.

    Returns:
        The device.

    Raises:
        InputError: PyTorch does not know the device, or it is not available on this machine.
    """
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError) as error:
        raise InputError(f"device={name} is not a PyTorch device: use cpu, cuda, or cuda:1") from error
    try:
        if device.type == "meta":
            raise RuntimeError("it computes nothing")
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError, ImportError) as error:
        reason = str(error).partition("\n")[0].partition(". ")[0]
        raise InputError(f"device={name} is not available on this machine ({reason}): use device=cpu") from error
    return device


@contextmanager
def reproducible() -> Iterator[None]:
    """Makes results bit-identical for any number of CPU cores, within a ``with`` block.

    The rounding of a sum depends on the number of threads that share the work. Inside the block PyTorch uses one
    thread, in the whole process, so it is slower on several cores; on a GPU cuDNN uses its deterministic algorithms.
    The same phrases have to be asked in the same order. Outside of the block results are bit-identical, too, as long as
    the number of threads stays the same.

    Yields:
        Nothing.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True):
            yield
    finally:
        torch.set_num_threads(threads)
