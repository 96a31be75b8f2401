"""Where a value comes from when the constructor is not given one."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from . import problems
from .base import MISSING, Parameter

__all__ = ["find_default", "override", "parse_value", "resolve_default"]

overrides: ContextVar[Mapping[tuple[str, str], str] | None] = ContextVar("asyncflow_overrides", default=None)
"""``(family, parameter name)`` -> text; set by :func:`override`, None where nothing is overridden."""


@contextmanager
def override(values: Mapping[tuple[str, str], str]) -> Iterator[None]:
    """Inside, constructors take these defaults: ``{("Report", "n"): "3"}``, texts as on the command line.

    They hold in the current context (this task, and what it starts), come before environment and declared
    defaults, and after arguments. Blocks nest; the inner one wins.
    """
    token = overrides.set({**(overrides.get() or {}), **values})
    try:
        yield
    finally:
        overrides.reset(token)


def resolve_default(cls: type, parameter: Parameter[Any]) -> Any:
    """The value of ``parameter`` of the task class ``cls`` when no argument is given.

    In this order: :func:`override`, the environment variable ``parameter.env``, ``parameter.default``.

    Raises:
        ParameterError: there is none, or the text found is no valid value.
    """
    value = find_default(cls, parameter)
    if value is MISSING:
        raise problems.missing(cls, {parameter.name: parameter}, [parameter.name])
    return value


def find_default(cls: type, parameter: Parameter[Any]) -> Any:
    """As :func:`resolve_default`, but ``MISSING`` if there is no default."""
    active = overrides.get()
    if active:
        family = cls.get_task_family()  # type: ignore[attr-defined]
        text = active.get((family, parameter.name))
        if text is not None:
            return parse_value(cls, parameter, text)
    if parameter.env is not None:
        text = os.environ.get(parameter.env)
        if text is not None:
            return parse_value(cls, parameter, text, f"from the environment variable {parameter.env}")
    if parameter.volatile and parameter.default is not MISSING:
        return checked(cls, parameter, parameter.default)
    return parameter.default


def parse_value(cls: type, parameter: Parameter[Any], text: str, source: str = "") -> Any:
    """The value written in ``text``, read and checked; ``source`` says in an error where it came from.

    Raises:
        ParameterError: the text is no valid value.
    """
    try:
        return parameter.normalize(parameter.parse(text))
    except (TypeError, ValueError, LookupError, ArithmeticError) as error:
        problem = problems.invalid_value(cls, parameter, text, error, source)
        cause = None if parameter.hidden else error  # its words or its traceback may show the value
    raise problem from cause


def checked(cls: type, parameter: Parameter[Any], value: object) -> Any:
    """``parameter.normalize(value)``, with a refusal turned into a ParameterError."""
    try:
        return parameter.normalize(value)
    except (TypeError, ValueError) as error:
        problem = problems.invalid_value(cls, parameter, value, error)
        cause = None if parameter.hidden else error
    raise problem from cause
