"""The command line: composes the configuration and calls one step by its name.

    grounding image=photo.jpg 'phrases=[a cat, the red mug]'
    grounding step=evaluate data.root=flickr30k_entities data.split=val

Exit codes: 0; 2 for an input that cannot be used, told in one line; 3 where some of many inputs were skipped and the
rest is done; 1 for a fault of ours, with its traceback.
"""

import logging
import os
import sys
import time
from collections.abc import Callable

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, OverrideParseException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from hydra.utils import instantiate
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from grounding.runtime.ranks import rank_of
from grounding.runtime.renamed import refuse_renamed
from proposals.errors import InputError, SkippedError

log = logging.getLogger(__name__)

UNREADABLE = (
    "cannot be read: close each bracket, and where there are other signs than plain letters, digits and spaces, put "
    """quotes within the quotes: 'phrases=["Tür", "what is this?"]' 'image="Tür.jpg"'"""
)
NOT_INSTALLED = "Could not find 'hydra/launcher/submitit"  # Hydra's words


class AfterSweep(Callback):
    """After a sweep: what its jobs show together.

    Args:
        join: called with the sweep's folder, and when it began, in seconds since 1970.
    """

    def __init__(self, join: Callable[[str, float], object]):
        self.join, self.start = join, 0.0

    def on_multirun_start(self, config: DictConfig, **_: object) -> None:
        """Called by Hydra."""
        self.start = time.time()

    def on_multirun_end(self, config: DictConfig, **_: object) -> None:
        """Called by Hydra."""
        self.join(config.hydra.sweep.dir, self.start)


@hydra.main(version_base="1.3", config_path="pkg://conf", config_name="config")
def run(config: DictConfig) -> None:
    """Calls ``config.step``."""
    try:
        instantiate(config.step, _convert_="all")
    except Exception as error:
        swept, ours = HydraConfig.get().mode == RunMode.MULTIRUN, _told(error) is None
        if swept and ours and rank_of()[1] > 1:
            log.exception("this rank ends; its exit code tells srun to end the others")
            raise SystemExit(1) from error
        # a job of a sweep reports through Hydra, so that the other jobs go on
        if swept or ours:
            raise
        raise SystemExit(_refuse(error)) from error


def main() -> None:
    """The console script ``grounding``."""
    wants_traceback = os.environ.get("HYDRA_FULL_ERROR") == "1"
    # Hydra tells errors in several lines and exits with 1; this makes it raise them
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        refuse_renamed(sys.argv[1:])
        run()
    except (HydraException, OmegaConfBaseException, InputError) as error:
        if wants_traceback or _told(error) is None:
            raise
        sys.exit(_refuse(error))
    except KeyboardInterrupt:
        sys.exit(130)


def _told(error: BaseException) -> str | None:
    """The one line for the user, None where the fault is ours.

    Hydra wraps what a step raises; a step's own exceptions count only where they are an InputError.
    """
    chain = _chain(error)
    ours = [link for link in chain if isinstance(link, InputError)]
    if not ours and not all(isinstance(link, HydraException | OmegaConfBaseException) for link in chain):
        return None
    for link in chain:
        if isinstance(link, OverrideParseException):
            return f"{link.override} {UNREADABLE}"
    told = str((ours or chain)[0])
    if NOT_INSTALLED in told:
        return "cluster= needs an extra: .venv/bin/pip install -e '.[slurm]'"
    return ". ".join(line.strip() for line in told.splitlines() if line.strip())


def _chain(error: BaseException) -> list[BaseException]:
    """An exception and its causes."""
    chain = [error]
    while chain[-1].__cause__ is not None and chain[-1].__cause__ not in chain:
        chain.append(chain[-1].__cause__)
    return chain


def _refuse(error: BaseException) -> int:
    print(f"grounding: {_told(error)}", file=sys.stderr)
    return 3 if any(isinstance(link, SkippedError) for link in _chain(error)) else 2


if __name__ == "__main__":
    main()
