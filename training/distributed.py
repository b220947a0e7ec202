"""Data-parallel training: the ranks of a job, and what they exchange.

Every rank must make the same calls in the same order. With one rank, nothing is sent.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from grounding.runtime.ranks import process_group, rank_of

TIMEOUT = timedelta(minutes=30)  # the longest time that ranks wait for one that was lost


class RankGroup:
    """This process and the others that train with it.

    Attributes:
        rank: number of this process, from 0.
        size: number of processes.
        device: the device that this process computes on.
    """

    def __init__(self, rank: int, size: int, device: torch.device):
        self.rank, self.size, self.device = rank, size, device

    def sum(self, values: Sequence[float]) -> list[float]:
        """The sum of each value over the ranks."""
        return self._reduce(values, "SUM")

    def max(self, value: float) -> float:
        """The largest value of any rank."""
        return self._reduce([value], "MAX")[0]

    def _reduce(self, values: Sequence[float], operation: str) -> list[float]:
        if self.size == 1:
            return list(values)
        tensor = torch.tensor(values, dtype=torch.float64, device=self.device)
        distributed.all_reduce(tensor, getattr(distributed.ReduceOp, operation))
        return tensor.tolist()

    def gather(self, rows: Tensor) -> Tensor:
        """Concatenates the rows of all ranks, in the order of the ranks.

        Args:
            rows: ``(n, ...)``; n may differ between ranks.

        Returns:
            ``(sum of n, ...)``.
        """
        if self.size == 1:
            return rows
        counts = [int(n) for n in self.sum([len(rows) if rank == self.rank else 0 for rank in range(self.size)])]
        padded = rows.new_zeros(max(counts), *rows.shape[1:]).to(self.device)
        padded[: len(rows)] = rows
        parts = [torch.empty_like(padded) for _ in counts]
        distributed.all_gather(parts, padded)
        return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)]).to(rows.device)

    def broadcast_buffers(self, model: nn.Module) -> None:
        """Copies the buffers of rank 0 (running statistics of batch norm) to all ranks."""
        for buffer in model.buffers() if self.size > 1 else ():
            distributed.broadcast(buffer, 0)

    def data_parallel(self, model: nn.Module) -> nn.Module:
        """Wraps a model so that gradients are averaged over ranks; the weights of rank 0 are copied to all."""
        if self.size == 1:
            return model
        return DistributedDataParallel(model, [self.device] if self.device.type == "cuda" else None)


@contextmanager
def joined_ranks() -> Iterator[RankGroup]:
    """Connects the ranks that the launcher started: over NCCL if there are GPUs, otherwise over gloo.

    Yields:
        The group; its process group is destroyed afterwards.

    Raises:
        InputError: the launcher did not set an address where the ranks meet.
    """
    rank, size = rank_of()
    gpu = torch.cuda.is_available()
    local = os.environ.get("LOCAL_RANK", os.environ.get("SLURM_LOCALID", "0"))
    # modulo, because some clusters show only one GPU to each task
    device = torch.device(f"cuda:{int(local) % torch.cuda.device_count()}" if gpu else "cpu")
    if gpu:
        torch.cuda.set_device(device)
    with process_group("nccl" if gpu else "gloo", TIMEOUT):
        yield RankGroup(rank, size, device)
