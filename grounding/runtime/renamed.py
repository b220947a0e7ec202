"""Settings that have a new name: the command line refuses the old name and says the new one."""

import re
from collections.abc import Iterator, Sequence
from importlib.resources import files

from proposals.errors import InputError

# Old dotted key -> new dotted key. With "STEP:" before it, an old key counts for that step only, because another step
# may have a setting of the same name. "GROUP=OLD": "GROUP=NEW" is a choice of a configuration group.
RENAMED: dict[str, str] = {
    "proposals.smallest": "proposals.min_size",
    "evaluate:step.choose": "step.gamma_candidates",
    "evaluate:step.choose_on": "step.gamma_split",
    "localize:step.choose": "step.dominant",
    "localize:step.every": "step.hold_out_every",
    "benchmark.longest": "benchmark.peer_words",
    "train:step.average": "step.ema_decay",
    "train:step.decay": "step.weight_decay",
    "train:step.first": "step.tags_per_image",
    "train:step.inherit": "step.distillation_weight",
    "train:step.keep": "step.keep_checkpoints",
    "train:step.most": "step.micro_batch",
    "train:step.plateau": "step.lr_factor",
    "train:step.tag_rate": "step.tag_lr",
    "train:step.trunk_rate": "step.trunk_lr",
    "train:step.validate": "step.validate_every",
    "shards:step.minimum": "step.min_images",
    "shards:step.photos": "step.images_per_shard",
    "shards:step.smallest": "step.min_side",
    "shards:step.stop": "step.stop_words",
    "shards:step.tags": "step.max_tags",
}
DEFAULT_STEP = "ground"  # conf/config.yaml
CHOICE = re.compile(r"^ *- override /step: *([\w-]+)", re.MULTILINE)  # in the file of an experiment


def refuse_renamed(arguments: Sequence[str]) -> None:
    """Checks the overrides on a command line.

    Args:
        arguments: the words after the program's name; an override is ``KEY=VALUE``, with ``+``, ``++`` or ``~`` before
            it or not, and VALUE may list the values of a sweep (``a,b``).

    Raises:
        InputError: an override uses an old name; the message says the new one.
    """
    overrides = [argument.lstrip("+~").partition("=")[::2] for argument in arguments if not argument.startswith("-")]
    steps = _steps(overrides)
    for key, value in overrides:
        for old in _forms(key, value):
            for name in (old, *(f"{step}:{old}" for step in steps)):
                if name in RENAMED:
                    raise InputError(f"{old} was renamed: use {RENAMED[name]}")


def _steps(overrides: Sequence[tuple[str, ...]]) -> list[str]:
    """The steps that a command line runs: by ``step=``, else by the experiment's choice, else the default.

    An experiment that chooses no step may be meant for any, so all steps of the table count.
    """
    steps = [step for key, value in overrides if key == "step" for step in value.split(",")]
    experiments = [name for key, value in overrides if key == "experiment" for name in value.split(",")]
    if steps or not experiments:
        return steps or [DEFAULT_STEP]
    chosen = [match[1] for name in experiments if (match := CHOICE.search(_experiment(name)))]
    return chosen or list(dict.fromkeys(old.partition(":")[0] for old in RENAMED if ":" in old))


def _experiment(name: str) -> str:
    """The text of ``conf/experiment/NAME.yaml``; empty if there is no such file, which Hydra reports."""
    file = files("conf") / "experiment" / f"{name}.yaml"
    return file.read_text("utf-8") if re.fullmatch(r"[\w-]{1,99}", name) and file.is_file() else ""


def new_names(step: str) -> dict[str, str]:
    """The renamed settings of a step.

    Args:
        step: the step's name, for example ``"train"``.

    Returns:
        Old name -> new name, without ``step.`` before them.
    """
    before = f"{step}:step."
    return {
        old.removeprefix(before): new.removeprefix("step.") for old, new in RENAMED.items() if old.startswith(before)
    }


def _forms(key: str, value: str) -> Iterator[str]:
    """How the table may name an override: by its key, or by its key and one of its values."""
    yield key
    yield from (f"{key}={choice}" for choice in value.split(","))
