"""Ranks: the processes of one job, which torchrun or Slurm started together."""

import os
import re
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from proposals.cores import own_cores
from proposals.errors import InputError

TIMEOUT = timedelta(days=1)  # the longest time that the first rank that finishes waits for the last one
# Environment variables with the rank and the number of ranks. Slurm sets the second pair only for processes that srun
# starts.
LAUNCHERS = (("RANK", "WORLD_SIZE"), ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS"))
SPINS = "3000"  # loops of an idle thread before it sleeps, some ten microseconds; libgomp's default is 300,000


def rank_of(environment: Mapping[str, str] | None = None) -> tuple[int, int]:
    """Returns the rank of this process and the number of ranks.

    Args:
        environment: environment variables; by default those of this process.

    Returns:
        (rank, number of ranks); (0, 1) without a launcher.

    Raises:
        InputError: the launcher's variables are not numbers, or the rank is not below the number of ranks.
    """
    environment = os.environ if environment is None else environment
    for names in LAUNCHERS:
        if all(name in environment for name in names):
            values = [environment[name] for name in names]
            if not all(value.isdecimal() for value in values) or not int(values[0]) < int(values[1]):
                raise InputError(f"{names[0]}={values[0]}, {names[1]}={values[1]}: give a rank below the world's size")
            return int(values[0]), int(values[1])
    return 0, 1


def rendezvous_url(environment: Mapping[str, str] | None = None) -> str | None:
    """Returns the address at which ranks that srun started connect to each other.

    Args:
        environment: environment variables; by default those of this process.

    Returns:
        A URL with the machine of the first rank and a port that depends on the job's number; None if MASTER_ADDR is set
        or srun did not start this process.
    """
    environment = os.environ if environment is None else environment
    if "MASTER_ADDR" in environment or "SLURM_STEP_NODELIST" not in environment:
        return None
    first = re.match(r"[^,[]*(\[\w+)?", environment["SLURM_STEP_NODELIST"])  # node[01-03,7],other: node01
    assert first is not None  # the pattern matches an empty string, too
    port = 10000 + int(environment["SLURM_JOB_ID"]) % 20000  # below the ports that systems assign by themselves
    return f"tcp://{first[0].replace('[', '')}:{port}"


@contextmanager
def process_group(backend: str = "gloo", timeout: timedelta = TIMEOUT) -> Iterator[Callable[[], object]]:
    """Connects the ranks of the job to a process group of ``torch.distributed``.

    The ranks connect at MASTER_ADDR and MASTER_PORT, which torchrun sets, or at :func:`rendezvous_url`. A single rank
    needs no process group.

    Args:
        backend: a backend of ``torch.distributed``.
        timeout: the longest time that a rank waits for another.

    Yields:
        A function that returns when every rank has called it.

    Raises:
        InputError: the ranks cannot connect to each other.
    """
    rank, world = rank_of()
    if world == 1:
        yield lambda: None
        return
    from torch import distributed  # takes seconds to import, and most callers need only the rank

    try:
        store = _own_store(rank, timeout) if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True" else None
        distributed.init_process_group(
            backend, init_method=rendezvous_url(), store=store, rank=rank, world_size=world, timeout=timeout
        )
    except (ValueError, RuntimeError) as error:
        advice = "start them with torchrun, or set MASTER_ADDR and MASTER_PORT"
        raise InputError(f"the ranks cannot connect ({error}): {advice}") from error
    try:
        yield distributed.barrier
    finally:
        distributed.destroy_process_group()


def _own_store(rank: int, timeout: timedelta) -> Any:
    """Connects to a ``TCPStore`` of this attempt; its port is announced in torchrun's own store.

    torchrun's store outlives the ranks. After a restart, ranks that use it directly would find the entries of the dead
    ranks and wait for them. The announced port may still be the one of a dead rank, so it is read again until a rank
    answers there.
    """
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    host, until = os.environ["MASTER_ADDR"], time.monotonic() + timeout.total_seconds()
    board = TCPStore(host, int(os.environ["MASTER_PORT"]), is_master=False, timeout=timeout)
    if rank == 0:
        store = TCPStore(host, 0, is_master=True, wait_for_workers=False, timeout=timeout)
        board.set("grounding", str(store.port))
        return store
    while not _answers(host, port := int(board.get("grounding"))):
        if time.monotonic() > until:
            raise ValueError("the first rank does not answer")
        time.sleep(0.1)
    return TCPStore(host, port, is_master=False, timeout=timeout)


def _answers(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=5).close()
        return True
    except OSError:
        return False


def let_threads_sleep() -> None:
    """Makes idle threads of PyTorch sleep soon. Call it before PyTorch is imported.

    By default a thread of libgomp that has finished its part waits for milliseconds in a loop, which takes a core. If
    other programs need that core, the threads that have work wait for it. ``OMP_WAIT_POLICY`` or ``GOMP_SPINCOUNT`` in
    the environment have precedence.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)


def cores(environment: Mapping[str, str] | None = None) -> int:
    """Returns the number of CPU cores for this process.

    Args:
        environment: environment variables; by default those of this process.

    Returns:
        The cores that the process may use, divided by the number of ranks that torchrun started on this machine; at
        least 1.
    """
    environment = os.environ if environment is None else environment
    beside = environment.get("LOCAL_WORLD_SIZE", "1")
    return max(own_cores() // (int(beside) if beside.isdecimal() and int(beside) else 1), 1)
