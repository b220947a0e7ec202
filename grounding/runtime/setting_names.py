"""Checks of the settings of a command line: names, choices, and numbers. A refusal has the nearest right one."""

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from grounding.runtime.settings import (
    MAIN,
    NUMBER,
    PLAIN,
    OnlyHydraError,
    Setting,
    choices,
    choose,
    compose,
    load,
    plain_value,
    text_of,
)
from proposals.errors import InputError


def check_settings(settings: Sequence[Setting], sweep: bool = False) -> dict[str, Any]:
    """Checks the names of settings and choices, and that numbers are numbers.

    Args:
        settings: those of the command line, in order.
        sweep: whether values may list several (``a,b``), as they may with an experiment that is a sweep.

    Returns:
        The composed settings, without the values of the command line.

    Raises:
        InputError: there is no such setting or choice, or a value is of another type than the setting's.
        OnlyHydraError: a choice depends on the job of a sweep.
    """
    groups = choices()
    chosen = {setting.key: setting.value for setting in settings if setting.key in groups and "~" not in setting.mark}
    sweep = sweep or _is_sweep(chosen.get("experiment", ""), groups["experiment"])
    for group, value in chosen.items():
        if not sweep and re.match(r"\[|[^\"']*,", value):
            several = value.strip("[]").replace(" ", "")
            raise InputError(f"{group}={value} names several: choose one, or try each with -m {group}={several}")
        for name in value.split(",") if sweep else [value]:
            if name.lower() != "null" and name.strip() not in groups[group] and PLAIN.fullmatch(name):
                raise InputError(f"there is no {group}={name}{_nearest(name, groups[group])}")
            if group == "experiment" and name in groups[group]:
                _check_experiment(name, chosen)
    if any(name not in groups[group] for group, name in chosen.items()):
        raise OnlyHydraError
    config = compose(chosen)
    for setting in settings:
        if setting.key == "name" and re.match(r"[\[{]|\s*$", setting.value):
            raise InputError(f"{setting} must be text: the results go to runs/NAME")
        if not setting.mark and setting.key not in groups and not re.match(r"hydra\b|.*[@/]", setting.key):
            _check_setting(setting, config, chosen, sweep, any(other.mark for other in settings))
    return config


def _is_sweep(experiment: str, known: Sequence[str]) -> bool:
    return experiment in known and load(f"experiment/{experiment}.yaml").get("hydra", {}).get("mode") == "MULTIRUN"


def _check_experiment(name: str, chosen: Mapping[str, str]) -> None:
    """Refuses an experiment with settings that only another step has; ``chosen`` are the choices of groups."""
    steps = choices()["step"]
    if chosen.get("step", steps[0]) not in steps:
        return  # several, in a sweep; each job is checked
    step = choose({**chosen, "experiment": name})["step"]
    needed = {*load(f"experiment/{name}.yaml").get("step", {})}
    if needed <= {*compose({"step": step})["step"]}:
        return
    fitting = " or ".join(f"step={other}" for other in steps if needed <= {*compose({"step": other})["step"]})
    raise InputError(f"experiment={name} has settings of {fitting}, which step={step} does not have: add {fitting}")


def _check_setting(
    setting: Setting, config: dict[str, Any], chosen: Mapping[str, str], sweep: bool, added: bool
) -> None:
    """Refuses a wrong name, unless other settings add (``+``) names, and a value of a wrong type."""
    parent: Any = config
    *parents, name = setting.key.split(".")
    for part in parents:
        parent = parent.get(part) if isinstance(parent, dict) else None
    default = parent.get(name) if isinstance(parent, dict) else None
    if isinstance(default, dict) and default and not re.match(r"\{|\$|null$", setting.value):
        raise InputError(f"{setting} must be settings of its own: write {setting.key}.NAME=VALUE")
    if isinstance(parent, str) or (isinstance(parent, dict) and "${" in str(default)):
        return  # the setting of another one, whose type is there
    if not isinstance(parent, dict) or name not in parent:
        if added:
            return
        known = [key for key in (*_keys(config), *choices()) if not key.startswith("hydra")]
        raise InputError(f"there is no setting {setting.key}{_nearest(setting.key, known, chosen)}")
    if not sweep and re.match(r"[^\[{\"'(]*,", setting.value):
        first = setting.value.replace(",", ".", 1) if NUMBER.fullmatch(setting.value.replace(",", ".", 1)) else None
        one = f"{setting.key}={first}" if first else f"'{setting.key}=[{setting.value}]' for a list"
        raise InputError(f"{setting} has a comma: write {one}, or try each value with -m{place(setting.key, chosen)}")
    for text in setting.value.split(",") if sweep else [setting.value]:
        if text != "null" or not _is_null_by_default(setting.key, chosen):
            _check_type(setting.key, text, parent[name], chosen)


def _is_null_by_default(key: str, chosen: Mapping[str, str]) -> bool:
    """Whether a setting is null without the experiment, which may give it a number."""
    value: Any = compose(choose(chosen) | {"experiment": None})
    for part in key.split("."):
        value = value.get(part, "") if isinstance(value, dict) else ""
    return value is None


def _check_type(key: str, text: str, default: Any, chosen: Mapping[str, str]) -> None:
    if re.fullmatch(r"(['\"])[\d.+-]+\1", text) and isinstance(default, int | float):
        raise InputError(f"{key}={text} is text: write {key}={text[1:-1]}")
    try:
        value = plain_value(text)
    except OnlyHydraError:
        return
    if key.rpartition(".")[2] == "seed" and isinstance(value, int) and value < 0:
        raise InputError(f"{key}={text} must be 0 or more{place(key, chosen)}")
    expected = "true or false" if isinstance(default, bool) else "a number"
    if isinstance(default, bool) != isinstance(value, bool) and isinstance(default, int | float):
        raise InputError(f"{key}={text} must be {expected}{place(key, chosen)}")
    if isinstance(default, int | float) and not isinstance(value, int | float):
        raise InputError(f"{key}={text} must be {expected}{place(key, chosen)}")


def _nearest(name: str, known: Sequence[str], chosen: Mapping[str, str] | None = None) -> str:
    """The end of a message about an unknown name: the nearest known one and its line, or all of few."""
    # the same last part elsewhere: port -> step.port, not prior
    near = [key for key in known if "." in key and key.rpartition(".")[2] == name.rpartition(".")[2]][:1]
    near = near or difflib.get_close_matches(name, known, 1, 0.6)
    near = [key for key in known if key.casefold() == name.casefold()] or near
    listed = f"; choose one of {', '.join(known)}" if chosen is None else ""
    if chosen is None and name.endswith(".safetensors"):
        return f"; a file of your own is given as tagger.path={name}"
    if not near:
        return listed or "; docs/reference/settings.md lists all; a phrase with = in it comes after --"
    return f"; did you mean {near[0]}?{listed or place(near[0], chosen or {})}"


def place(key: str, chosen: Mapping[str, str]) -> str:
    """Where a setting is described: `` (conf/config.yaml:13: gamma: 0.5  # exponent ...)``; empty if nowhere.

    Args:
        key: the dotted key.
        chosen: the choices of groups.
    """
    group, _, name = key.rpartition(".")
    group = group.partition(".")[0]
    names = choose(chosen)
    for path in _sources(group, names[group]) if names.get(group) else [MAIN]:
        for number, line in enumerate(text_of(path).splitlines(), 1):
            if re.match(rf"\s*{re.escape(name)}:", line):
                return f" (conf/{path}:{number}: {re.sub(' +', ' ', line.strip())})"
    return ""


def _sources(group: str, name: str) -> Iterator[str]:
    """The file of a choice, and those that it includes."""
    yield f"{group}/{name}.yaml"
    for entry in load(f"{group}/{name}.yaml").get("defaults", []):
        if isinstance(entry, str) and entry != "_self_":
            yield from _sources(group, entry)


def _keys(config: Mapping[str, Any], before: str = "") -> Iterator[str]:
    for key, value in config.items():
        yield f"{before}{key}"
        if isinstance(value, dict):
            yield from _keys(value, f"{before}{key}.")
