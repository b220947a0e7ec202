"""The loader: reads batches ahead of the training, in worker processes."""

import signal
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from grounding.runtime.ranks import cores
from proposals.errors import InputError
from training.dataset import TrainingBatch


def load_batches(
    dataset: Dataset[TrainingBatch], positions: Iterator[Sequence[Any]], workers: int | None, device: torch.device
) -> Iterator[TrainingBatch]:
    """Reads a batch for each list of positions, in order.

    Args:
        dataset: the dataset to read from.
        positions: the photos of each batch, or their positions, as the dataset needs them.
        workers: number of worker processes. None: the number of cores minus one; 0: this process reads.
        device: where the batches are used; for a GPU their memory is pinned.

    Returns:
        The batches.

    Raises:
        InputError: a worker process died. It is raised when its batch is requested, never during a step.
    """
    batches = iter(
        DataLoader(
            dataset,
            batch_size=None,  # the positions come in lists
            sampler=positions,
            num_workers=max(cores() - 1, 1) if workers is None else workers,
            collate_fn=_unchanged,
            worker_init_fn=_begin_worker,
            pin_memory=device.type == "cuda",
        )
    )
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch's handler would raise anywhere in the program
    return _with_clear_errors(batches)


def _with_clear_errors(batches: Iterator[TrainingBatch]) -> Iterator[TrainingBatch]:
    try:
        yield from batches
    except (RuntimeError, OSError, EOFError) as error:  # all of them occur when a worker is killed
        why = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(f"a process that reads photos ended ({why}): use fewer of them, step.workers=") from error


def _unchanged(batch: TrainingBatch) -> TrainingBatch:
    return batch


def _begin_worker(_: int) -> None:
    torch.set_num_threads(1)
    # A job's SIGTERM goes to all its processes. A worker must not end before the training has saved its step.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
