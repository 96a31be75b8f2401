"""The texts of parameter errors: what is wrong, where, and what to write instead.

Values of hidden parameters appear in none of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ..errors import ParameterError, TaskDefinitionError
from .base import MISSING, Parameter

__all__ = [
    "given_twice",
    "invalid_default",
    "invalid_value",
    "missing",
    "show",
    "too_many",
    "unhashable",
    "unknown",
]

_LONGEST = 80


def show(parameter: Parameter[Any], value: object) -> str:
    """``value`` for a message: its repr in at most 80 characters, or ``***`` if the parameter is hidden."""
    if parameter.hidden:
        return "***"
    try:
        text = repr(value)
    except Exception:  # a broken repr must not hide the error being reported
        text = f"<{type(value).__name__} object>"
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def _reason(parameter: Parameter[Any], error: Exception) -> str:
    """Why a value was refused. The words of ``error`` may quote the value, so a hidden one gets its own."""
    text = "" if parameter.hidden else str(error)
    return text or f"expected {parameter.expected}"


def _listing(parameters: Iterable[Parameter[Any]]) -> str:
    """``date, n=3``: the parameters of a task with their defaults."""
    texts = [p.name if p.default is MISSING else f"{p.name}={show(p, p.default)}" for p in parameters]
    return f"its parameters: {', '.join(texts)}" if texts else "it has no parameters"


def invalid_value(
    cls: type, parameter: Parameter[Any], value: object, error: Exception, source: str = ""
) -> ParameterError:
    """``value`` was refused with ``error``; ``source`` says where it came from, if not from a call."""
    origin = f" ({source})" if source else ""
    shown = show(parameter, value)
    return ParameterError(f"{cls.__name__}: {parameter.name}={shown}{origin} is not valid: {_reason(parameter, error)}")


def invalid_default(
    cls: type, parameter: Parameter[Any], value: object, error: Exception, option: str = "default"
) -> TaskDefinitionError:
    """The class gives a default (or another ``option``) that the parameter refuses."""
    # The commonest case in code that comes from Luigi, where any parameter takes a default of None.
    hint = "; to allow None, annotate with `| None` or use an Optional...Parameter" if value is None else ""
    return TaskDefinitionError(
        f"{cls.__name__}.{parameter.name}: {option}={show(parameter, value)} is not valid: "
        f"{_reason(parameter, error)}{hint}"
    )


def unknown(cls: type, parameters: Mapping[str, Parameter[Any]], names: Iterable[str]) -> ParameterError:
    """The constructor was given parameters the task does not have."""
    import difflib

    parts: list[str] = []
    for name in names:
        close = difflib.get_close_matches(name, parameters, n=1)
        parts.append(f"{name!r} (did you mean {close[0]!r}?)" if close else repr(name))
    return ParameterError(f"{cls.__name__}: no parameter {', '.join(parts)}; {_listing(parameters.values())}")


def missing(cls: type, parameters: Mapping[str, Parameter[Any]], names: Iterable[str]) -> ParameterError:
    """Parameters without a default were not given."""
    absent = [
        f"{name!r} (or set the environment variable {env})" if (env := parameters[name].env) else repr(name)
        for name in names
    ]
    noun = "parameter" if len(absent) == 1 else "parameters"
    return ParameterError(f"{cls.__name__}: missing {noun} {', '.join(absent)}; {_listing(parameters.values())}")


def too_many(cls: type, positional: tuple[str, ...], count: int) -> ParameterError:
    """More values were given by position than there are positional parameters."""
    noun = "value" if len(positional) == 1 else "values"
    names = f" ({', '.join(positional)})" if positional else ""
    return ParameterError(
        f"{cls.__name__}: takes at most {len(positional)} {noun} by position{names}, {count} were given"
    )


def given_twice(cls: type, name: str) -> ParameterError:
    """One parameter was given by position and by name."""
    return ParameterError(f"{cls.__name__}: {name!r} was given twice, by position and by name")


def unhashable(cls: type, values: Iterable[tuple[Parameter[Any], object]]) -> ParameterError:
    """A significant value cannot be hashed, so the task could not be found again."""
    for parameter, value in values:
        if parameter.by_text:
            continue
        try:
            hash(value)
        except TypeError:
            kind = type(parameter).__name__
            return ParameterError(
                f"{cls.__name__}: {parameter.name}={show(parameter, value)} is not valid: expected a "
                f"hashable value; let {kind}.normalize return one, or set {kind}.by_text = True"
            )
    return ParameterError(f"{cls.__name__}: a parameter value changes whether it is hashable")
