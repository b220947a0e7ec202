"""Types of values as annotations say them: whether a value has one, and the type in words."""

import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from inspect import Parameter
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Union, get_args, get_origin

from proposals.errors import InputError

MISSING = "???"  # a setting without a default, in conf
BASIC = {
    str: ("text", "texts"), Path: ("text", "texts"), bool: ("true or false", "truth values"),
    int: ("a whole number", "whole numbers"), float: ("a number", "numbers"),
    types.NoneType: ("null", "nulls"),
}  # fmt: skip


def check_fields(settings: Any, before: str = "") -> None:
    """Refuses settings with a value of another type than its field, and converts fractions and the like to floats.

    Args:
        settings: an object of a dataclass.
        before: what a message puts before the name, such as "step.".

    Raises:
        InputError: a value has another type.
    """
    for field in fields(settings):
        value = getattr(settings, field.name)
        if not accepts(value, field.type):
            raise InputError(f"{before}{field.name}={value} must be {in_words(field.type)}")
        if isinstance(value, Real) and not isinstance(value, Integral | float):  # such as fractions.Fraction
            object.__setattr__(settings, field.name, float(value))


def accepts(value: Any, annotation: Any) -> bool:
    """Whether a parameter takes a value of the settings.

    Args:
        value: text, number, truth value, None, list or dictionary; with ``_target_``, what a function will return.
        annotation: the parameter's type.

    Returns:
        Whether the types agree. A value with ``_target_`` agrees with any class.
    """
    origin, parts = get_origin(annotation) or annotation, get_args(annotation)
    if origin in (Union, types.UnionType):
        return any(accepts(value, part) for part in parts)
    if annotation in BASIC or annotation is None:
        return _is_basic(value, annotation)
    if isinstance(value, dict) and "_target_" in value:
        return True
    if origin is tuple and Ellipsis not in parts:
        return isinstance(value, list | tuple) and len(value) == len(parts) and all(map(accepts, value, parts))
    if isinstance(origin, type) and issubclass(origin, Sequence):
        return isinstance(value, list | tuple) and all(accepts(part, parts[-1] if parts else Any) for part in value)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return isinstance(value, dict) and all(accepts(part, parts[-1] if parts else Any) for part in value.values())
    return annotation in (Any, object, Parameter.empty)


def _is_basic(value: Any, annotation: Any) -> bool:
    if annotation in (str, Path):
        return isinstance(value, str | Path) and value != MISSING
    if annotation is float:
        return isinstance(value, Real) and not isinstance(value, bool)
    if annotation is int:
        return isinstance(value, Integral) and not isinstance(value, bool)
    return isinstance(value, annotation or types.NoneType)


def in_words(annotation: Any, many: bool = False) -> str:
    """The type that an annotation stands for, in words.

    Args:
        annotation: a type.
        many: whether of several values ("numbers" instead of "a number").
    """
    return " or ".join(dict.fromkeys(_expected(annotation, many))) or "values"


def _expected(annotation: Any, many: bool = False) -> Iterator[str]:
    """The types that an annotation stands for, in words."""
    origin, parts = get_origin(annotation) or annotation, get_args(annotation)
    if origin in (Union, types.UnionType):
        for part in parts:
            yield from _expected(part, many)
    elif annotation in BASIC or annotation is None:
        yield BASIC[annotation or types.NoneType][many]
    elif origin is tuple and Ellipsis not in parts:
        yield f"{'lists' if many else 'a list'} of {len(parts)} {in_words(parts[0], many=True)}"
    elif isinstance(origin, type) and issubclass(origin, Sequence):
        yield f"{'lists' if many else 'a list'} of {in_words(parts[-1] if parts else Any, many=True)}"
    elif isinstance(origin, type) and issubclass(origin, Mapping):
        yield f"{'tables' if many else 'a table {NAME: VALUE}'} of {in_words(parts[-1] if parts else Any, many=True)}"
    elif annotation is not Any:
        yield "settings of their own" if many else "settings of its own"


def written(value: Any) -> str:
    """A value as a command line has it, shortened.

    Args:
        value: text, number, truth value, None, list or dictionary.
    """
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name}: {written(part)}" for name, part in value.items()) + "}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(written, value))}]"
    words = {True: "true", False: "false", None: "null"}
    return words[value] if value is None or isinstance(value, bool) else str(value)
