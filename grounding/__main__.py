"""The command line: composes the configuration and runs one step.

    grounding image=photo.jpg 'phrases=[a cat, the red mug]'
    grounding step=evaluate data.root=flickr30k_entities data.split=val

Exit codes:

- 0: the step is done.
- 1: a bug, with its traceback.
- 2: an input cannot be used; one line says why.
- 3: some of many inputs were skipped, the others are done.
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
    "cannot be read: close each bracket; put text with other characters than plain letters, digits and spaces into "
    """double quotes within the single quotes: 'phrases=["Tür", "what is this?"]' 'image="Tür.jpg"'"""
)
NOT_INSTALLED = "Could not find 'hydra/launcher/submitit"  # how Hydra's message begins


class AfterSweep(Callback):
    """Calls a function after the last job of a sweep.

    Args:
        join: called with the folder of the sweep, and the time of its start in seconds since 1970.

    Attributes:
        join: the function.
        start: the time of the start.
    """

    def __init__(self, join: Callable[[str, float], object]) -> None:
        self.join, self.start = join, 0.0

    def on_multirun_start(self, config: DictConfig, **_: object) -> None:
        """Called by Hydra."""
        self.start = time.time()

    def on_multirun_end(self, config: DictConfig, **_: object) -> None:
        """Called by Hydra."""
        self.join(config.hydra.sweep.dir, self.start)


@hydra.main(version_base="1.3", config_path="pkg://conf", config_name="config")
def run(config: DictConfig) -> None:
    """Runs the step of a configuration.

    Args:
        config: the composed configuration; ``config.step`` is called.
    """
    try:
        instantiate(config.step, _convert_="all")
    except Exception as error:
        sweep, bug = HydraConfig.get().mode == RunMode.MULTIRUN, _message(error) is None
        if sweep and bug and rank_of()[1] > 1:
            log.exception("this rank failed; its exit code makes srun stop the others")
            raise SystemExit(1) from error
        # in a sweep Hydra catches the exception, so that the other jobs run
        if sweep or bug:
            raise
        raise SystemExit(_report(error)) from error


def main() -> None:
    """Runs the console script ``grounding``."""
    wants_traceback = os.environ.get("HYDRA_FULL_ERROR") == "1"
    # Hydra would print several lines and exit with 1; with this variable it raises the exception
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        refuse_renamed(sys.argv[1:])
        run()
    except (HydraException, OmegaConfBaseException, InputError) as error:
        if wants_traceback or _message(error) is None:
            raise
        sys.exit(_report(error))
    except KeyboardInterrupt:
        sys.exit(130)


def _message(error: BaseException) -> str | None:
    """Returns one line for the user; None for a bug.

    Hydra wraps the exceptions of a step. Only an InputError among them is an error that the user can correct.
    """
    chain = _chain(error)
    input_errors = [link for link in chain if isinstance(link, InputError)]
    if not input_errors and not all(isinstance(link, HydraException | OmegaConfBaseException) for link in chain):
        return None
    for link in chain:
        if isinstance(link, OverrideParseException):
            return f"{link.override} {UNREADABLE}"
    message = str((input_errors or chain)[0])
    if NOT_INSTALLED in message:
        return "cluster= needs an extra: .venv/bin/pip install -e '.[slurm]'"
    return ". ".join(line.strip() for line in message.splitlines() if line.strip())


def _chain(error: BaseException) -> list[BaseException]:
    """Returns an exception and its causes."""
    chain = [error]
    while chain[-1].__cause__ is not None and chain[-1].__cause__ not in chain:
        chain.append(chain[-1].__cause__)
    return chain


def _report(error: BaseException) -> int:
    """Prints the message of an exception and returns the exit code."""
    print(f"grounding: {_message(error)}", file=sys.stderr)
    return 3 if any(isinstance(link, SkippedError) for link in _chain(error)) else 2


if __name__ == "__main__":
    main()
