"""Ranks: which of the processes of a job this one is, as torchrun or Slurm says."""

import os
import re
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta

from proposals.cores import own_cores
from proposals.errors import InputError

PATIENCE = timedelta(days=1)  # between the first rank that is done and the last
LAUNCHERS = (("RANK", "WORLD_SIZE"), ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS"))  # the latter is set by srun alone


def rank_of(environment: Mapping[str, str] | None = None) -> tuple[int, int]:
    """This process's rank and how many there are; (0, 1) outside a job.

    Args:
        environment: in place of the process's own.

    Raises:
        InputError: the launcher's variables are no such numbers.
    """
    environment = os.environ if environment is None else environment
    for names in LAUNCHERS:
        if all(name in environment for name in names):
            values = [environment[name] for name in names]
            if not all(value.isdecimal() for value in values) or not int(values[0]) < int(values[1]):
                raise InputError(f"{names[0]}={values[0]}, {names[1]}={values[1]}: give a rank below the world's size")
            return int(values[0]), int(values[1])
    return 0, 1


def place_of(environment: Mapping[str, str] | None = None) -> str | None:
    """Where the ranks that srun started meet, as a URL: on the first one's machine, at a port that is the job's own.

    None where MASTER_ADDR is set, or outside a step of Slurm.

    Args:
        environment: in place of the process's own.
    """
    environment = os.environ if environment is None else environment
    if "MASTER_ADDR" in environment or "SLURM_STEP_NODELIST" not in environment:
        return None
    first = re.match(r"[^,[]*(\[\w+)?", environment["SLURM_STEP_NODELIST"])  # node[01-03,7],other: node01
    port = 10000 + int(environment["SLURM_JOB_ID"]) % 20000  # below those that systems give away
    return f"tcp://{first[0].replace('[', '')}:{port}"


@contextmanager
def process_group(backend: str = "gloo", patience: timedelta = PATIENCE) -> Iterator[Callable[[], object]]:
    """Makes the ranks of the job one process group, and gives a function that returns when every rank has called it.

    They meet at MASTER_ADDR and MASTER_PORT, which torchrun sets, or where :func:`place_of` says. Alone, nothing is
    made and nothing is waited for.

    Args:
        backend: of torch.distributed; patience: a rank that waits longer for another gives up.

    Raises:
        InputError: the launcher did not say where the ranks meet.
    """
    rank, world = rank_of()
    if world == 1:
        yield lambda: None
        return
    from torch import distributed  # takes seconds to import, which those who only count ranks need not wait for

    try:
        store = _own_store(rank, patience) if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True" else None
        about = {"store": store, "rank": rank, "world_size": world, "timeout": patience}
        distributed.init_process_group(backend, init_method=place_of(), **about)
    except (ValueError, RuntimeError) as error:
        mend = "start them with torchrun, or set MASTER_ADDR and MASTER_PORT"
        raise InputError(f"the ranks cannot meet ({error}): {mend}") from error
    try:
        yield distributed.barrier
    finally:
        distributed.destroy_process_group()


def wait_for_all() -> None:
    """Waits until every rank of the job has come here, at most ``PATIENCE``.

    Raises:
        InputError: as :func:`process_group` does.
    """
    with process_group() as wait:
        wait()


def _own_store(rank: int, patience: timedelta):
    """A store that the first rank keeps, its address in torchrun's.

    torchrun's own outlives the ranks: in it they would find, after a restart, where the dead ones were, and wait.
    An address of a dead one may be found here, too, but nobody answers there, and it is asked for again.
    """
    from torch.distributed import TCPStore

    host, until = os.environ["MASTER_ADDR"], time.monotonic() + patience.total_seconds()
    board = TCPStore(host, int(os.environ["MASTER_PORT"]), is_master=False, timeout=patience)
    if rank == 0:
        store = TCPStore(host, 0, is_master=True, wait_for_workers=False, timeout=patience)
        board.set("grounding", str(store.port))
        return store
    while not _answers(host, port := int(board.get("grounding"))):
        if time.monotonic() > until:
            raise ValueError("the first rank does not answer")
        time.sleep(0.1)
    return TCPStore(host, port, is_master=False, timeout=patience)


def _answers(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=5).close()
        return True
    except OSError:
        return False


def cores(environment: Mapping[str, str] | None = None) -> int:
    """How many cores this process may keep busy: those it may run on, shared with torchrun's others on this machine."""
    environment = os.environ if environment is None else environment
    beside = environment.get("LOCAL_WORLD_SIZE", "1")
    return max(own_cores() // (int(beside) if beside.isdecimal() and int(beside) else 1), 1)
