"""The names one can import from ``asyncflow``: they exist, and each says what it is."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import asyncflow
from asyncflow import errors

PUBLIC = {name: getattr(asyncflow, name, None) for name in asyncflow.__all__}
MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(asyncflow.__path__, "asyncflow.")
    if not module.name.endswith(("__main__", "_version"))
)


def _members(cls: type) -> Iterator[tuple[str, Any]]:
    """What a class of the package lets its users call or read, wherever in the package it is written."""
    for base in cls.__mro__:
        if not base.__module__.startswith("asyncflow"):
            continue
        for name, member in vars(base).items():
            if not name.startswith("_") and base is next(owner for owner in cls.__mro__ if name in vars(owner)):
                yield name, member


DOCUMENTED = [
    (f"{name}.{member}", thing)
    for name, cls in PUBLIC.items()
    if isinstance(cls, type)
    for member, thing in _members(cls)
    if inspect.isroutine(thing) or isinstance(thing, (property, staticmethod, classmethod)) or hasattr(thing, "func")
]


def test_all_is_sorted_complete_and_true() -> None:
    assert asyncflow.__all__ == sorted(set(asyncflow.__all__))
    assert not [name for name, thing in PUBLIC.items() if thing is None]
    imported = {
        alias.asname or alias.name
        for node in ast.walk(ast.parse(Path(asyncflow.__file__).read_text()))
        if isinstance(node, ast.ImportFrom) and node.module != "__future__"
        for alias in node.names
    }
    assert imported == set(asyncflow.__all__)


# A text, and a union of words: neither has a docstring.
@pytest.mark.parametrize("name", [name for name in PUBLIC if name not in ("__version__", "RunStatus")])
def test_every_public_name_is_documented(name: str) -> None:
    thing: Any = PUBLIC[name]
    text = vars(thing).get("__doc__") if isinstance(thing, type) else thing.__doc__
    assert text, f"{name} has no docstring of its own"
    assert not re.match(rf"{name}\(", text), f"{name} has the docstring dataclasses write"


@pytest.mark.parametrize(("name", "thing"), DOCUMENTED, ids=[name for name, _ in DOCUMENTED])
def test_every_public_method_and_property_is_documented(name: str, thing: Any) -> None:
    owner, _, member = name.partition(".")
    inherited = any(getattr(vars(base).get(member), "__doc__", None) for base in PUBLIC[owner].__mro__)  # type: ignore[union-attr]
    assert inherited, f"{name} has no docstring"


def test_something_was_looked_at() -> None:
    names = {name for name, _ in DOCUMENTED}
    assert {"Task.run", "Task.task_id", "BuildResult.ok", "BuildResult.tasks", "LocalTarget.open"} <= names
    assert {"Run.events", "Run.done", "EventReader.aclose", "Event.to_dict"} <= names
    assert {"Parameter.parse", "MemoryTarget.clear", "Task.get_task_family"} <= names


@pytest.mark.parametrize("name", ["asyncflow", *MODULES])
def test_every_module_is_documented(name: str) -> None:
    for part, library in LIBRARIES.items():
        if re.search(rf"\b_?{part}\b", name) and importlib.util.find_spec(library) is None:
            pytest.skip(f"{library} is not installed")
    module = importlib.import_module(name)
    assert module.__doc__


LIBRARIES = {"s3": "aiobotocore", "ftp": "aioftp", "sql": "sqlalchemy"}  # by the extra that brings them


# Errors --------------------------------------------------------------------------------------------------

RAISES = {
    "build": ["PlanError", "ConfigError", "TypeError"],
    "plan": ["PlanError", "TypeError"],
    "run": ["RuntimeError"],
    "start": ["RuntimeError", "ConfigError", "TypeError"],
    "Run": ["PlanError"],
    "Run.events": ["ConfigError"],
    "EventReader": ["RuntimeError"],
    "task": ["TaskDefinitionError"],
    "param": ["TaskDefinitionError"],
    "gather": ["failure"],
    "namespace": ["TypeError"],
    "get_task_class": ["TaskNotFound", "AmbiguousTask"],
    "Task": ["ParameterError"],
    "Task.__await__": ["TaskFailed", "UpstreamFailed", "TaskCancelled"],
    "Task.input": ["AsyncflowError"],
    "BuildResult": ["KeyError"],
    "BuildResult.raise_for_failure": ["BuildFailed"],
    "LocalTarget": ["TypeError", "ValueError"],
    "LocalTarget.exists": ["TargetStateUnknown"],
    "LocalTarget.open": ["OSError"],
    "LocalTarget.temporary_path": ["FileNotFoundError"],
    "MemoryTarget.put": ["TaskCancelled"],
    "MemoryTarget.get": ["KeyError"],
}


@pytest.mark.parametrize("name", RAISES)
def test_docstrings_name_the_errors(name: str) -> None:
    thing: Any = asyncflow
    for part in name.split("."):
        thing = getattr(thing, part)
    text = inspect.getdoc(thing) or ""
    assert not [error for error in RAISES[name] if error not in text], text


def test_every_error_that_a_docstring_names_exists() -> None:
    """`Raises ``X```: X is an error of ours or a built-in."""
    import builtins

    for name, thing in [*PUBLIC.items(), *DOCUMENTED]:
        for sentence in re.findall(r"Raises ([^.]*)", getattr(thing, "__doc__", None) or ""):
            for error in re.findall(r"``([A-Z]\w+)``", sentence):
                known = getattr(errors, error, None) or getattr(builtins, error, None)
                assert isinstance(known, type), f"{name}: {error}"
                assert issubclass(known, BaseException), f"{name}: {error}"
