"""World: the ranks that train together, and what they tell one another.

Each call is met by the same call of every other rank. With one rank nothing is sent.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from grounding.runtime.ranks import process_group, rank_of

PATIENCE = timedelta(minutes=30)  # a rank that is gone ends the others no later


class World:
    """This process among those that train together.

    Attributes:
        rank, size: which one, of how many; device: that it computes on.
    """

    def __init__(self, rank: int, size: int, device: torch.device):
        self.rank, self.size, self.device = rank, size, device

    def sum(self, values: Sequence[float]) -> list[float]:
        """The ranks' sums of each value."""
        return self._reduced(values, "SUM")

    def most(self, value: float) -> float:
        """The largest of the ranks' values."""
        return self._reduced([value], "MAX")[0]

    def _reduced(self, values: Sequence[float], how: str) -> list[float]:
        if self.size == 1:
            return list(values)
        tensor = torch.tensor(values, dtype=torch.float64, device=self.device)
        distributed.all_reduce(tensor, getattr(distributed.ReduceOp, how))
        return tensor.tolist()

    def gather(self, rows: Tensor) -> Tensor:
        """The rows (n, ...) of all ranks, one rank's after the other's; n may differ between them."""
        if self.size == 1:
            return rows
        counts = [int(n) for n in self.sum([len(rows) if rank == self.rank else 0 for rank in range(self.size)])]
        padded = rows.new_zeros(max(counts), *rows.shape[1:]).to(self.device)
        padded[: len(rows)] = rows
        parts = [torch.empty_like(padded) for _ in counts]
        distributed.all_gather(parts, padded)
        return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)]).to(rows.device)

    def agree(self, model: nn.Module) -> None:
        """Gives all ranks the first one's buffers, the running statistics of batch norm."""
        for buffer in model.buffers() if self.size > 1 else ():
            distributed.broadcast(buffer, 0)

    def shared(self, model: nn.Module) -> nn.Module:
        """The model, its gradients averaged over the ranks; they begin with the weights of the first."""
        if self.size == 1:
            return model
        return DistributedDataParallel(model, [self.device] if self.device.type == "cuda" else None)


@contextmanager
def joined() -> Iterator[World]:
    """Joins the ranks that the launcher started: over NCCL where there are GPUs, else over gloo.

    Raises:
        InputError: the launcher did not say where the ranks meet.
    """
    rank, size = rank_of()
    gpu = torch.cuda.is_available()
    local = os.environ.get("LOCAL_RANK", os.environ.get("SLURM_LOCALID", "0"))
    # a site may show each of its tasks one GPU only
    device = torch.device(f"cuda:{int(local) % torch.cuda.device_count()}" if gpu else "cpu")
    if gpu:
        torch.cuda.set_device(device)
    with process_group("nccl" if gpu else "gloo", PATIENCE):
        yield World(rank, size, device)
