"""The step ``all``: the tables of the paper and ``step=judge``, one command after another.

    grounding experiment=all
    grounding experiment=all tagger.path=runs/train/tagger.safetensors name=all-mine

Each command runs in a process of its own, which frees its memory at its end. A command that has succeeded is not run
again, unless its settings, the tagger or the version of this package have changed. Remove ``NAME.done.json`` to run it
again all the same. A command that was stopped is started again, and reuses what its step has stored.
"""

import hashlib
import json
import logging
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from grounding.runtime.artefacts import atomic_path, write_json
from grounding.runtime.version import VERSION
from grounding.tagger.packaged import TAGGERS
from grounding.tagger.tagger import TagClassifier
from proposals.errors import InputError

log = logging.getLogger(__name__)

SKIPPED = 3  # the exit code of a command that has skipped photos and used the others
LONGEST = 300  # characters of a failed command's message that are shown


def all_tables(commands: Mapping[str, Sequence[str]], tagger: str | None, output: str) -> Path:
    """Runs the commands that have not succeeded yet, and writes what all of them printed to ``tables.md``.

    Args:
        commands: the settings of each command by name, as on the command line.
        tagger: file of a tagger for all commands, or the name of one of the package; None: each command has its own.
        output: the folder of ``tables.md``. The files of a command are in the folder ``NAME`` in it, what it printed
            is in ``NAME.txt``, and its messages are in ``NAME.log``.

    Returns:
        The path of ``tables.md``.

    Raises:
        InputError: there is no command, a name cannot be the name of a folder, the tagger cannot be read, or a command
            failed. All other commands have run before a failure is reported.
    """
    _check(commands)
    folder, failed = Path(output).resolve(), dict[str, str]()
    digests = [TagClassifier.load(name).digest() for name in ([tagger] if tagger else TAGGERS)]
    given = [f"tagger.path={json.dumps(tagger)}"] if tagger else []
    for number, (name, settings) in enumerate(commands.items(), 1):
        command = [*settings, *given]
        key = hashlib.sha256(json.dumps([VERSION, digests, command]).encode()).hexdigest()[:12]
        if _done(folder, name, key):
            log.info("%d of %d, %s: done before", number, len(commands), name)
            continue
        log.info("%d of %d, %s: grounding %s", number, len(commands), name, " ".join(settings))
        if message := _run(folder, name, command, key):
            failed[name] = message
    path = _write_tables(folder, commands, failed)
    if failed:
        reasons = "; ".join(f"{name}: {message}" for name, message in failed.items())
        raise InputError(
            f"{len(failed)} of {len(commands)} commands failed; correct the cause and start again. {reasons}"
        )
    print(f"{len(commands)} commands: {path}")
    return path


def _check(commands: Mapping[str, Sequence[str]]) -> None:
    if not commands:
        raise InputError("there is no command: give step.commands=")
    if wrong := [name for name in commands if not name or Path(name).name != name or name.startswith(".")]:
        raise InputError(f"{wrong[0]!r} cannot be the name of a folder: give another name in step.commands=")


def _done(folder: Path, name: str, key: str) -> bool:
    try:
        record = json.loads((folder / f"{name}.done.json").read_bytes())
        return bool(record["key"] == key) and (folder / f"{name}.txt").is_file()
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _run(folder: Path, name: str, command: Sequence[str], key: str) -> str | None:
    """Runs a command; returns the last line of its messages if it failed."""
    places = [f"hydra.run.dir={json.dumps(str(folder / name))}", f"hydra.sweep.dir={json.dumps(str(folder / name))}"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.done.json").unlink(missing_ok=True)  # of other settings or another tagger
    printed = folder / f"{name}.log"
    with atomic_path(folder / f"{name}.txt") as tables, tables.open("wb") as out, printed.open("wb") as messages:
        code = subprocess.run(
            [sys.executable, "-m", "grounding", *command, *places], stdout=out, stderr=messages, env=_environment()
        ).returncode
    if code not in (0, SKIPPED):
        lines = printed.read_text(errors="replace").split("\n")
        return next((line[:LONGEST] for line in reversed(lines) if line.strip()), f"exit code {code}")
    write_json(folder / f"{name}.done.json", {"key": key, "command": list(command)})
    return None


def _environment() -> dict[str, str]:
    """The environment of a command, with this process's ``sys.path``, so that it finds the same packages."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    environment.pop("HYDRA_FULL_ERROR", None)  # set by this process; with it, a refusal would end with a traceback
    return environment


def _write_tables(folder: Path, commands: Mapping[str, Sequence[str]], failed: Mapping[str, str]) -> Path:
    parts = ["# All tables\n"]
    for name, settings in commands.items():
        if name not in failed:
            text = (folder / f"{name}.txt").read_text(errors="replace").strip()
            parts.append(f"## {name}\n\n    grounding {' '.join(settings)}\n\n{text}\n")
        else:
            parts.append(f"## {name}\n\nNot done.\n")
    with atomic_path(folder / "tables.md") as temporary:
        temporary.write_text("\n".join(parts), encoding="utf-8")
    return folder / "tables.md"
