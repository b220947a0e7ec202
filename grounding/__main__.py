"""The command line: composes the configuration and runs one step.

    grounding photo.jpg "a cat" "the red mug"
    grounding evaluate data.root=flickr30k_entities data.split=val

``grounding.runtime.front_door`` reads the words. Hydra is imported only where it is needed: for sweeps, for most steps,
and for values in its grammar.

Exit codes:

- 0: the step is done.
- 1: a bug, with its traceback; or some jobs of a sweep failed.
- 2: an input cannot be used; one line says why.
- 3: some of many inputs were skipped, the others are done.
"""

import atexit
import errno
import gc
import logging
import os
import select
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from grounding.runtime import front_door, sweep_jobs
from grounding.runtime.ranks import let_threads_sleep, rank_of
from grounding.runtime.setting_types import check_types
from grounding.runtime.settings import OnlyHydraError, instantiate, resolve
from grounding.runtime.terminal import allow_any_text
from proposals.errors import InputError, SkippedError

log = logging.getLogger(__name__)

UNREADABLE = "cannot be read: put text with other characters than letters, digits and spaces into quotes:"
# errors of the system that are no bugs: the disk is full or read-only, or the user may not use a file
UNUSABLE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.ENOTDIR}
NOT_INSTALLED = "Could not find 'hydra/launcher/submitit"  # how Hydra's message begins


class AfterSweep:
    """Calls a function after the last job of a sweep, also if jobs failed; see ``grounding.runtime.sweep_jobs.end``.

    Args:
        join: called with the folder of the sweep, and the time of its start in seconds since 1970.

    Attributes:
        join: the function.
    """

    def __init__(self, join: Callable[[str, float], object]) -> None:
        self.join = join

    def on_multirun_start(self, config: Any, **_: object) -> None:
        """Called by Hydra."""
        from hydra.core.hydra_config import HydraConfig

        HydraConfig.instance().set_config(config)  # as Hydra does for each job: the sweep's folder contains name=
        sweep_jobs.begin(config.hydra.sweep.dir, self.join)

    def _ignore(self, **_: object) -> None:
        """Called by Hydra at the other events; its base class would need the import of Hydra."""

    on_run_start = on_run_end = on_multirun_end = on_job_start = on_job_end = on_compose_config = _ignore


def run(config: Any) -> None:
    """Runs the step of a configuration that Hydra composed.

    Args:
        config: the composed configuration; ``config.step`` is called.
    """
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode
    from hydra.utils import instantiate as call
    from omegaconf import OmegaConf

    sweep = HydraConfig.get().mode == RunMode.MULTIRUN
    try:
        check_types(
            cast(dict[str, Any], OmegaConf.to_container(config, resolve=False)), HydraConfig.get().runtime.choices
        )
        call(config.step, _convert_="all")
        if sweep and rank_of()[0] == 0:
            _record_job()
    except Exception as error:
        bug = _message(error) is None
        if sweep:
            _record_job(error)
        if sweep and bug and rank_of()[1] > 1:
            log.exception("this rank failed; its exit code makes srun stop the others")
            raise SystemExit(1) from error
        # in a sweep Hydra catches the exception, so that the other jobs run
        if sweep or bug:
            raise
        raise SystemExit(_report(error)) from error


def main() -> None:
    """Runs the console script ``grounding``."""
    # at its end, the interpreter would search all objects of PyTorch for garbage, which takes most of a second
    atexit.register(gc.freeze)
    allow_any_text()
    let_threads_sleep()
    wants_traceback = os.environ.get("HYDRA_FULL_ERROR") == "1"
    # Hydra would print several lines and exit with 1; with this variable it raises the exception
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        asked = front_door.read(sys.argv[1:])
        if asked.text is not None:
            print(asked.text)
        elif not _run_light(asked):
            _run_with_hydra(asked.hydra)
        code = sweep_jobs.end()
        sys.stdout.flush()
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        code = sweep_jobs.end()
        if wants_traceback or _message(error) is None:
            raise
        if code is None:
            code = _report(error)
    if code is not None:
        sys.exit(code)


def _close_output() -> None:
    """Writes the rest of the output, or discards it: the interpreter would try again at its end, and complain."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _has_no_reader() -> bool:
    """Whether the standard output is a pipe whose reader has ended, as in ``grounding ... | head``."""
    if not hasattr(select, "poll"):  # Windows
        return True
    poll = select.poll()
    poll.register(1, select.POLLOUT)
    return any(state & (select.POLLERR | select.POLLHUP) for _, state in poll.poll(0))


def _run_light(asked: front_door.CommandLine) -> bool:
    """Runs a step without Hydra; returns whether that is possible."""
    if asked.config is None:
        return False
    config = asked.config
    own = {"runtime.choices.step": asked.step}
    try:
        own["runtime.output_dir"] = str(Path.cwd() / "runs" / str(resolve(config["name"], config, own)))
        step = resolve(config["step"], config, own)
    except OnlyHydraError:
        return False
    logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(levelname)s %(message)s")
    check_types(config, asked.chosen)
    instantiate(step)
    return True


def _run_with_hydra(arguments: tuple[str, ...]) -> None:
    import hydra

    logging.raiseExceptions = False  # a log file on a full disk: each message would print a traceback
    sys.argv[1:] = arguments
    hydra.main(version_base="1.3", config_path="pkg://conf", config_name="config")(run)()


def _record_job(error: BaseException | None = None) -> None:
    """Writes how a job of a sweep ended into its folder."""
    from hydra.core.hydra_config import HydraConfig

    hydra_config = HydraConfig.get()
    job = sweep_jobs.SweepJob(
        Path(hydra_config.runtime.output_dir), int(hydra_config.job.num), tuple(hydra_config.overrides.task)
    )
    if error is not None:
        line = _message(error) or f"{type(error).__name__}: {error}".splitlines()[0]
        job = job._replace(error=line, code=_code(error))
    sweep_jobs.write_job(job)


def _message(error: BaseException) -> str | None:
    """Returns one line for the user; None for a bug.

    Hydra wraps the exceptions of a step. The user can correct an InputError among them, and a file that cannot be used.
    """
    chain = _chain(error)
    if any(map(_is_out_of_memory, chain)):
        return "there is not enough memory: use smaller photos, a smaller attention.side or batch, and fewer processes"
    input_errors = [link for link in chain if isinstance(link, InputError)]
    if not input_errors and (refused := _system_error(error)):
        where = refused.filename or "the output"
        return f"{where} cannot be used: {refused.strerror}: free space, or choose a file or folder that you may use"
    for link in chain:  # its cause may be a TypeError, as of range(0,1,x)
        if type(link).__name__ == "OverrideParseException":
            return f"{link.override} {UNREADABLE} {_corrected(link.override)}"  # type: ignore[attr-defined]
    if not input_errors and not all(map(_is_of_hydra, chain)):
        return None
    message = str((input_errors or chain)[0])
    if NOT_INSTALLED in message:
        return "cluster= needs an extra: .venv/bin/pip install -e '.[slurm]'"
    return ". ".join(line.strip() for line in message.splitlines() if line.strip())


def _system_error(error: BaseException) -> OSError | None:
    """The error of the system among an exception and its causes, if it is no bug."""
    for link in _chain(error):
        if isinstance(link, OSError) and (link.errno in UNUSABLE or (link.errno == errno.EPIPE and _has_no_reader())):
            return link
    return None


def _is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory could not be allocated, in the main memory or on a GPU."""
    said = isinstance(error, RuntimeError) and "allocate memory" in str(error)
    return isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or said


def _is_of_hydra(error: BaseException) -> bool:
    """Whether Hydra or OmegaConf raised an error about settings; if it did, both are imported."""
    if "hydra" not in sys.modules:
        return False
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    return isinstance(error, HydraException | OmegaConfBaseException)


def _corrected(override: str) -> str:
    """The override with its value as a text, for a shell."""
    key, _, value = override.partition("=")
    return shlex.quote(f"{key}={front_door.quoted(value)}")


def _chain(error: BaseException) -> list[BaseException]:
    """Returns an exception and its causes."""
    chain = [error]
    while chain[-1].__cause__ is not None and chain[-1].__cause__ not in chain:
        chain.append(chain[-1].__cause__)
    return chain


def _report(error: BaseException) -> int:
    """Prints the message of an exception and returns the exit code."""
    # before the output is closed, after which it has no reader that has ended
    refused, message, code = _system_error(error), _message(error), _code(error)
    if refused:
        _close_output()
    if refused is None or refused.errno != errno.EPIPE:  # after an early end of the reader, no message is needed
        print(f"grounding: {message}", file=sys.stderr)
    return code


def _code(error: BaseException) -> int:
    """The exit code of an exception."""
    if any(isinstance(link, SkippedError) for link in _chain(error)):
        return 3
    return 1 if _message(error) is None else 2


if __name__ == "__main__":
    main()
