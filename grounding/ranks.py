"""Ranks: which of the processes of a job this one is, as torchrun or Slurm says."""

import os
from collections.abc import Mapping
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


def wait_for_all() -> None:
    """Waits until every rank of the job has come here, at most ``PATIENCE``.

    They meet at MASTER_ADDR and MASTER_PORT, which torchrun sets.

    Raises:
        InputError: the launcher did not say where the ranks meet.
    """
    from torch import distributed  # takes seconds to import, which those who only count ranks need not wait for

    rank, world = rank_of()
    if world == 1:
        return
    try:
        distributed.init_process_group("gloo", rank=rank, world_size=world, timeout=PATIENCE)
    except (ValueError, RuntimeError) as error:
        mend = "start them with torchrun, or set MASTER_ADDR and MASTER_PORT"
        raise InputError(f"the ranks cannot meet ({error}): {mend}") from error
    distributed.barrier()
    distributed.destroy_process_group()


def cores(environment: Mapping[str, str] | None = None) -> int:
    """How many cores this process may keep busy: those it may run on, shared with torchrun's others on this machine."""
    environment = os.environ if environment is None else environment
    beside = environment.get("LOCAL_WORLD_SIZE", "1")
    return max(own_cores() // (int(beside) if beside.isdecimal() and int(beside) else 1), 1)
