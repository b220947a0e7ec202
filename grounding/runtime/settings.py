"""The settings of a command line, composed from the files of ``conf`` as Hydra composes them, but without Hydra.

Hydra takes about as long to import and to compose as all other steps before PyTorch together. A test compares every
choice of every group. What only Hydra can do (sweeps, launchers, values with its grammar) is left to it.
"""

import difflib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib import import_module
from importlib.resources import files
from typing import Any, NamedTuple

import yaml

from proposals.errors import InputError

FOLDER = files("conf")
MAIN = "config.yaml"
OVERRIDE = re.compile(
    r"override /([\w/]+)(@\S+)?$"
)  # an entry of a list of defaults that changes another group's choice
SETTING = re.compile(r"([+~]{0,2})([A-Za-z_][\w.@/:-]*)=(.*)", re.DOTALL)
REFERENCE = re.compile(r"\$\{([^${}]*)\}")
PLAIN = re.compile(r"[\w./:%-][\w./:%+-]*|")  # values that mean the same to Hydra and to :func:`plain_value`
NUMBER = re.compile(r"[+-]?(\d[\d_]*\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE)
WORDS = {"true": True, "false": False, "null": None}


class Text(str):
    """A text of the user, in which ``${`` is no reference."""

    __slots__ = ()


class Setting(NamedTuple):
    """A word of the command line of the form ``KEY=VALUE``.

    Attributes:
        mark: ``+``, ``++``, ``~`` or nothing, as Hydra reads them.
        key: the dotted key, or the name of a group.
        value: the text after ``=``.
    """

    mark: str
    key: str
    value: str

    def __str__(self) -> str:
        return f"~{self.key}" if self.mark == "~" and not self.value else f"{self.mark}{self.key}={self.value}"


class OnlyHydraError(Exception):
    """These settings need Hydra."""


def read_setting(word: str) -> Setting | None:
    """Reads a word of the command line; None if it does not have the form ``KEY=VALUE``."""
    match = SETTING.fullmatch(word)
    return Setting(*match.groups()) if match else None


@cache
def choices() -> dict[str, list[str]]:
    """The groups of ``conf`` and the names of their files, sorted."""
    folders = [folder for folder in FOLDER.iterdir() if folder.is_dir() and not folder.name.startswith("_")]
    return {folder.name: sorted(_stems(folder.iterdir())) for folder in folders}


def compose(chosen: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Composes the files of ``conf``.

    Args:
        chosen: a name for each group that the command line chooses.

    Returns:
        The settings, with their references (``${gamma}``) as they are written.
    """
    entries = _load(MAIN)["defaults"]
    names = _choose(chosen or {})
    config: dict[str, Any] = {}
    for entry in entries:
        if entry == "_self_":
            _merge(config, _content(MAIN))
            continue
        for group in entry:
            if names[group] is not None:
                _merge_choice(config, group, names[group], group)
    return config


def chosen_step(chosen: Mapping[str, str]) -> str:
    """The step that a command line runs."""
    return str(_choose(chosen)["step"])


def resolve(value: Any, config: Mapping[str, Any], own: Mapping[str, str]) -> Any:
    """Replaces the references in a value.

    Args:
        value: a part of the settings.
        config: all settings.
        own: the values of ``${hydra:...}``.

    Returns:
        The value without references.

    Raises:
        OnlyHydraError: a reference is of another kind.
    """
    if isinstance(value, dict):
        return {key: resolve(part, config, own) for key, part in value.items()}
    if isinstance(value, list):
        return [resolve(part, config, own) for part in value]
    if isinstance(value, Text) or not isinstance(value, str) or "${" not in value:
        return value
    if whole := REFERENCE.fullmatch(value):
        return _look_up(whole[1], config, own)
    return REFERENCE.sub(lambda match: str(_look_up(match[1], config, own)), value)


def instantiate(node: Any) -> Any:
    """Calls the functions that ``_target_`` names, the innermost first, as Hydra does.

    Args:
        node: settings without references.

    Returns:
        What the function returned; a list or a dictionary without ``_target_`` has its values called.
    """
    if isinstance(node, list):
        return [instantiate(part) for part in node]
    if not isinstance(node, dict):
        return str(node) if isinstance(node, Text) else node
    arguments = {key: instantiate(part) for key, part in node.items()}
    if "_target_" not in arguments:
        return arguments
    if "_partial_" in arguments:
        raise OnlyHydraError
    return _locate(arguments.pop("_target_"))(**arguments)


def plain_value(text: str) -> Any:
    """Reads a value as Hydra does, if it is a number, a truth value, null or plain text.

    Args:
        text: the text after ``=``.

    Returns:
        The value.

    Raises:
        OnlyHydraError: the text needs Hydra's grammar.
    """
    if not PLAIN.fullmatch(text):
        raise OnlyHydraError
    if text.lower() in WORDS:
        return WORDS[text.lower()]
    if text.lower().lstrip("+-") in ("nan", "inf"):
        return float(text)
    if NUMBER.fullmatch(text):
        return float(text) if re.search(r"[.e]", text, re.IGNORECASE) else int(text)
    return text


def assign(config: dict[str, Any], key: str, value: Any) -> None:
    """Sets the value of a dotted key that exists."""
    *parents, name = key.split(".")
    for parent in parents:
        config = config[parent]
        if not isinstance(config, dict):  # a reference, into which Hydra assigns
            raise OnlyHydraError
    config[name] = value


def check_settings(settings: Sequence[Setting], sweep: bool = False) -> dict[str, Any]:
    """Checks the names of settings and choices, and that numbers are numbers.

    Args:
        settings: those of the command line, in order.
        sweep: whether values may list several (``a,b``).

    Returns:
        The composed settings, without the values of the command line.

    Raises:
        InputError: there is no such setting or choice, or a value is of another type than the setting's.
        OnlyHydraError: a choice depends on the job of a sweep.
    """
    groups = choices()
    chosen = {setting.key: setting.value for setting in settings if setting.key in groups and "~" not in setting.mark}
    for group, value in chosen.items():
        for name in value.split(",") if sweep else [value]:
            if name.lower() != "null" and name.strip() not in groups[group] and PLAIN.fullmatch(name):
                raise InputError(f"there is no {group}={name}{_nearest(name, groups[group])}")
    if any(name not in groups[group] for group, name in chosen.items()):
        raise OnlyHydraError
    config = compose(chosen)
    for setting in settings:
        if not setting.mark and setting.key not in groups and not re.match(r"hydra\b|.*[@/]", setting.key):
            _check_setting(setting, config, chosen, sweep, any(other.mark for other in settings))
    return config


def _check_setting(
    setting: Setting, config: dict[str, Any], chosen: Mapping[str, str], sweep: bool, added: bool
) -> None:
    """Refuses a wrong name, unless other settings add (``+``) names, and a value of a wrong type."""
    parent: Any = config
    *parents, name = setting.key.split(".")
    for part in parents:
        parent = parent.get(part) if isinstance(parent, dict) else None
    if isinstance(parent, str) or (isinstance(parent, dict) and "${" in str(parent.get(name))):
        return  # the setting of another one, whose type is there
    if not isinstance(parent, dict) or name not in parent:
        if added:
            return
        known = [key for key in (*_keys(config), *choices()) if not key.startswith("hydra")]
        raise InputError(f"there is no setting {setting.key}{_nearest(setting.key, known, chosen)}")
    for text in setting.value.split(",") if sweep else [setting.value]:
        _check_type(setting.key, text, parent[name], chosen)


def _check_type(key: str, text: str, default: Any, chosen: Mapping[str, str]) -> None:
    try:
        value = plain_value(text)
    except OnlyHydraError:
        return
    expected = "true or false" if isinstance(default, bool) else "a number"
    if isinstance(default, bool) != isinstance(value, bool) and isinstance(default, int | float):
        raise InputError(f"{key}={text} must be {expected}{_place(key, chosen)}")
    if isinstance(default, int | float) and not isinstance(value, int | float):
        raise InputError(f"{key}={text} must be {expected}{_place(key, chosen)}")


def _nearest(name: str, known: Sequence[str], chosen: Mapping[str, str] | None = None) -> str:
    """The end of a message about an unknown name: the nearest known one and its line, or all of few."""
    near = difflib.get_close_matches(name, known, 1, 0.6)
    if not near:
        # the same last part elsewhere: boxes -> step.boxes
        near = [key for key in known if key.rpartition(".")[2] == name.rpartition(".")[2]][:1]
    listed = f"; choose one of {', '.join(known)}" if chosen is None else ""
    if not near:
        return listed or "; docs/reference/settings.md lists all; a phrase with = in it comes after --"
    return f"; did you mean {near[0]}?{listed or _place(near[0], chosen or {})}"


def _place(key: str, chosen: Mapping[str, str]) -> str:
    """Where a setting is described: `` (conf/config.yaml:13: gamma: 0.5  # exponent ...)``."""
    group, _, name = key.rpartition(".")
    group = group.partition(".")[0]
    names = _choose(chosen)
    for path in _sources(group, names[group]) if names.get(group) else [MAIN]:
        for number, line in enumerate(_text(path).splitlines(), 1):
            if re.match(rf"\s*{re.escape(name)}:", line):
                return f" (conf/{path}:{number}: {re.sub(' +', ' ', line.strip())})"
    return ""


def _sources(group: str, name: str) -> Iterator[str]:
    """The file of a choice, and those that it includes."""
    yield f"{group}/{name}.yaml"
    for entry in _load(f"{group}/{name}.yaml").get("defaults", []):
        if isinstance(entry, str) and entry != "_self_":
            yield from _sources(group, entry)


def _keys(config: Mapping[str, Any], before: str = "") -> Iterator[str]:
    for key, value in config.items():
        yield f"{before}{key}"
        if isinstance(value, dict):
            yield from _keys(value, f"{before}{key}.")


def _choose(chosen: Mapping[str, str]) -> dict[str, Any]:
    """The name of each group: of the command line, or else of the experiment, of the step, or the default."""
    names = {group: name for entry in _load(MAIN)["defaults"] if entry != "_self_" for group, name in entry.items()}
    given = names | dict(chosen)
    experiment = _overrides("experiment", given["experiment"]) if given["experiment"] else {}
    step = _overrides("step", (names | experiment | dict(chosen))["step"])
    return names | step | experiment | dict(chosen)


def _overrides(group: str, name: str) -> dict[str, str]:
    """The choices of other groups that a file makes."""
    found: dict[str, str] = {}
    for entry in _load(f"{group}/{name}.yaml").get("defaults", []):
        if isinstance(entry, str):
            found |= _overrides(group, entry) if entry != "_self_" else {}
        else:
            found |= {match[1]: choice for key, choice in entry.items() if (match := OVERRIDE.match(key))}
    return found


def _merge_choice(config: dict[str, Any], group: str, name: str, package: str) -> None:
    """Merges a file and those that it includes into the settings, at its package."""
    path = f"{group}/{name}.yaml"
    place = "" if "# @package _global_" in _text(path) else package
    entries = _load(path).get("defaults", [])
    for entry in entries if "_self_" in entries else ["_self_", *entries]:
        if entry == "_self_":
            _merge(_at(config, place), _content(path))
        elif isinstance(entry, str):
            _merge_choice(config, group, entry, package)
        else:
            for key, choice in entry.items():
                if not OVERRIDE.match(key):
                    other, _, under = key.lstrip("/").partition("@")
                    _merge_choice(config, other, choice, f"{package}.{under or other}")


def _merge(into: dict[str, Any], other: Mapping[str, Any]) -> None:
    for key, value in other.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = _copy(value)


def _copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copy(part) for key, part in value.items()}
    return [_copy(part) for part in value] if isinstance(value, list) else value


def _at(config: dict[str, Any], package: str) -> dict[str, Any]:
    for part in package.split(".") if package else []:
        config = config.setdefault(part, {})
    return config


def _content(path: str) -> dict[str, Any]:
    return {key: value for key, value in _load(path).items() if key != "defaults"}


@cache
def _load(path: str) -> dict[str, Any]:
    return yaml.safe_load(_text(path)) or {}


def _text(path: str) -> str:
    return FOLDER.joinpath(*path.split("/")).read_text("utf-8")


def _stems(paths: Iterator[Any]) -> Iterator[str]:
    return (path.name.removesuffix(".yaml") for path in paths if path.name.endswith(".yaml"))


def _look_up(reference: str, config: Mapping[str, Any], own: Mapping[str, str]) -> Any:
    kind, colon, rest = reference.partition(":")
    if not colon:
        return resolve(_select(reference, config), config, own)
    name, comma, default = rest.partition(",")
    if kind == "hydra" and rest in own:
        return own[rest]
    if kind == "oc.env" and (comma or name in os.environ):
        return os.environ.get(name, default)
    if kind == "oc.select":
        try:
            return resolve(_select(name, config), config, own)
        except OnlyHydraError:
            return plain_value(default)
    raise OnlyHydraError


def _select(key: str, config: Any) -> Any:
    for part in key.split("."):
        if not isinstance(config, dict) or part not in config:
            raise OnlyHydraError
        config = config[part]
    if config == "???":
        raise OnlyHydraError
    return config


def _locate(path: str) -> Any:
    """The function with a dotted path: an attribute of a module, or of a class in it."""
    parts = path.split(".")
    for end in range(len(parts), 0, -1):
        try:
            found: Any = import_module(".".join(parts[:end]))
        except ModuleNotFoundError as error:
            if error.name is None or not ".".join(parts[:end]).startswith(error.name):
                raise
            continue
        for name in parts[end:]:
            found = getattr(found, name)
        return found
    raise OnlyHydraError
