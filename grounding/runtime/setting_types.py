"""The types of settings: those of the parameters of the functions that a step calls.

A step is settings with the dotted path of a function (``_target_``). Each of its settings is compared with the
annotation of the parameter that gets it, before anything is called.
"""

import inspect
import shlex
from collections.abc import Mapping
from functools import cache
from typing import Any, NamedTuple

from grounding.runtime.setting_names import place
from grounding.runtime.settings import REFERENCE, OnlyHydraError, locate
from grounding.runtime.value_types import MISSING, accepts, in_words, written
from proposals.errors import InputError

# Functions that take the fields of a class as **settings.
FIELDS = {"grounding.Grounder.load": "grounding.settings.Settings", "training.train.train": "training.recipe.Recipe"}
HYDRAS = ("_target_", "_partial_", "_convert_", "_recursive_", "_args_")  # keys that instantiate itself reads
SHOWN = 60  # characters of a value in a message


class _Value(NamedTuple):
    """A value and the setting that has it, which a reference may have led to."""

    key: str
    value: Any


def check_types(config: Mapping[str, Any], chosen: Mapping[str, str]) -> None:
    """Checks the settings of a step, and of all that it is made of, against the parameters that get them.

    Args:
        config: all settings, with references (``${gamma}``) as they are written; ``config["step"]`` is the step.
        chosen: the choices of groups, for the line of ``conf`` that a message shows.

    Raises:
        InputError: a setting has a value of another type than its parameter, is unknown, removed, or not set.
    """
    _check_node(_follow(_Value("step", config.get("step")), config), config, chosen)


def _check_node(node: _Value, config: Mapping[str, Any], chosen: Mapping[str, str]) -> None:
    if isinstance(node.value, list):
        parts = [_Value(f"{node.key}.{number}", part) for number, part in enumerate(node.value)]
    elif isinstance(node.value, dict):
        parts = [_Value(f"{node.key}.{name}", part) for name, part in node.value.items()]
    else:
        return
    for part in parts:
        _check_node(_follow(part, config), config, chosen)
    if isinstance(node.value, dict) and "_target_" in node.value:
        _check_call(node, config, chosen)


def _check_call(node: _Value, config: Mapping[str, Any], chosen: Mapping[str, str]) -> None:
    """Compares the settings of one function with its parameters."""
    target = str(node.value["_target_"])
    parameters = _parameters(target)
    if parameters is None:
        return
    for name, value in node.value.items():
        if name in HYDRAS:
            continue
        if name not in parameters:
            raise InputError(f"there is no setting {node.key}.{name}: {target} has no parameter {name}; leave it out")
        given = _follow(_Value(f"{node.key}.{name}", value), config)
        if not accepts(_resolved(given, config), parameters[name].annotation):
            raise InputError(_refusal(given, parameters[name].annotation) + place(given.key, chosen))
    required = [name for name, parameter in parameters.items() if parameter.default is parameter.empty]
    absent = [name for name in required if name not in node.value and "_partial_" not in node.value]
    if absent:
        raise InputError(f"{node.key}.{absent[0]} was removed, but {target} needs it")


@cache
def _parameters(target: str) -> Mapping[str, inspect.Parameter] | None:
    """The parameters of a function by name, with their annotations; None if it cannot be known which it has."""
    try:
        function = locate(target)
        found = dict(inspect.signature(function, eval_str=True).parameters)
    except (OnlyHydraError, AttributeError, TypeError, ValueError, NameError):
        return None  # the call itself says what is wrong
    if target in FIELDS:
        found |= inspect.signature(locate(FIELDS[target])).parameters
    variable = {name for name, parameter in found.items() if parameter.kind is parameter.VAR_KEYWORD}
    if variable and target not in FIELDS:
        return None
    return {name: parameter for name, parameter in found.items() if name not in variable}


def _follow(given: _Value, config: Any) -> _Value:
    """The setting that a reference leads to: the one that a user sets."""
    while isinstance(given.value, str) and (match := REFERENCE.fullmatch(given.value)):
        kind, colon, name = match[1].partition(":")
        select = kind == "oc.select"
        if colon and not select:
            return given._replace(value="")  # a text that Hydra or the environment has
        key, _, default = (name if select else kind).partition(",")
        try:
            found = _Value(key, _selected(key, config))
        except KeyError:
            found = _Value(key, MISSING)
        if found.value == MISSING and select:
            return found._replace(value=None if default == "null" else default)
        given = found
    return given


def _selected(key: str, config: Any) -> Any:
    for part in key.split("."):
        if isinstance(config, str):
            config = _follow(_Value("", config), config).value
        if not isinstance(config, dict):
            raise KeyError(key)
        config = config[part]
    return config


def _resolved(given: _Value, config: Mapping[str, Any]) -> Any:
    """A value with the references in it followed."""
    if isinstance(given.value, list):
        return [_resolved(_follow(_Value("", part), config), config) for part in given.value]
    if isinstance(given.value, dict) and "_target_" not in given.value:
        return {name: _resolved(_follow(_Value("", part), config), config) for name, part in given.value.items()}
    return given.value


def _refusal(given: _Value, annotation: Any) -> str:
    """What is wrong with a value, and what would be right."""
    key, value = given
    expected = in_words(annotation)
    if value == MISSING:
        return f"{key} is not set: add {key}={'TEXT' if expected.startswith('text') else 'VALUE'}"
    text = value if isinstance(value, str) else written(value)
    refusal = f"{key}={text if len(text) <= SHOWN else text[: SHOWN - 3] + '...'} must be {expected}"
    if "settings of its own" in expected:
        return f"{refusal}: write {key}.NAME=VALUE"
    if "list" in expected and not isinstance(value, list | dict) and value is not None:
        return f"{refusal}: write {shlex.quote(f'{key}=[{text}]')}"
    if expected.startswith("text") and isinstance(value, int | float):
        return f"{refusal}: write " + shlex.quote(f'{key}="{text}"')
    return refusal
