"""The settings of a command line, composed from the files of ``conf`` as Hydra composes them, but without Hydra.

Hydra takes about as long to import and to compose as all other steps before PyTorch together. A test compares every
choice of every group. What only Hydra can do (sweeps, launchers, values with its grammar) is left to it.
"""

import os
import re
from collections.abc import Iterator, Mapping
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
MAX_DIGITS = 4000  # Python reads integers of up to 4,300 digits
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
    entries = load(MAIN)["defaults"]
    names = choose(chosen or {})
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
    return str(choose(chosen)["step"])


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
    return locate(arguments.pop("_target_"))(**arguments)


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
        if len(text) > MAX_DIGITS:
            raise InputError(f"{text[:20]}... has {len(text):,} characters: write a shorter number")
        return float(text) if re.search(r"[.e]", text, re.IGNORECASE) else int(text)
    return text


def assign(config: dict[str, Any], key: str, value: Any) -> None:
    """Sets the value of a dotted key that exists."""
    *parents, name = key.split(".")
    for parent in parents:
        config = config.get(parent, {})
        if not isinstance(config, dict):  # a reference, into which Hydra assigns
            raise OnlyHydraError
    if not config:  # there is no such setting, as Hydra says too
        raise OnlyHydraError
    config[name] = value


def choose(chosen: Mapping[str, str]) -> dict[str, Any]:
    """The name of each group: of the command line, or else of the experiment, of the step, or the default.

    Args:
        chosen: the choices of the command line.
    """
    names = {group: name for entry in load(MAIN)["defaults"] if entry != "_self_" for group, name in entry.items()}
    given = names | dict(chosen)
    experiment = _overrides("experiment", given["experiment"]) if given["experiment"] else {}
    step = _overrides("step", (names | experiment | dict(chosen))["step"])
    return names | step | experiment | dict(chosen)


def _overrides(group: str, name: str) -> dict[str, str]:
    """The choices of other groups that a file makes."""
    found: dict[str, str] = {}
    for entry in load(f"{group}/{name}.yaml").get("defaults", []):
        if isinstance(entry, str):
            found |= _overrides(group, entry) if entry != "_self_" else {}
        else:
            found |= {match[1]: choice for key, choice in entry.items() if (match := OVERRIDE.match(key))}
    return found


def _merge_choice(config: dict[str, Any], group: str, name: str, package: str) -> None:
    """Merges a file and those that it includes into the settings, at its package."""
    path = f"{group}/{name}.yaml"
    place = "" if "# @package _global_" in text_of(path) else package
    entries = load(path).get("defaults", [])
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
    return {key: value for key, value in load(path).items() if key != "defaults"}


@cache
def load(path: str) -> dict[str, Any]:
    """The content of a file of ``conf``.

    Args:
        path: relative to ``conf``.
    """
    return yaml.safe_load(text_of(path)) or {}


def text_of(path: str) -> str:
    """The text of a file of ``conf``.

    Args:
        path: relative to ``conf``.
    """
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


def locate(path: str) -> Any:
    """Imports the function with a dotted path: an attribute of a module, or of a class in it.

    Args:
        path: the dotted path.

    Raises:
        OnlyHydraError: there is none.
    """
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
