"""The least that the package needs of a task class, so that its tests need nothing of the engine."""

from __future__ import annotations

import sys
import types
from typing import Any, ClassVar

import pytest

from asyncflow.parameters import collect_parameters, compile_constructor


class Task:
    reserved: ClassVar[dict[str, str]] = {"retries": "drop the annotation"}
    family: str = "own attributes of Task are no parameters"

    def __init_subclass__(cls) -> None:
        cls._construct = compile_constructor(cls, collect_parameters(cls, Task.reserved))  # type: ignore[attr-defined]

    def __init__(self, /, *args: Any, **kwargs: Any) -> None:
        self._construct(*args, **kwargs)  # type: ignore[attr-defined]

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("frozen")

    @classmethod
    def get_task_family(cls) -> str:
        return cls.__name__

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self._key == other._key  # type: ignore[attr-defined]

    def __hash__(self) -> int:
        return self._hash  # type: ignore[attr-defined, no-any-return]


def register(monkeypatch: pytest.MonkeyPatch, *classes: type) -> None:
    """Let the registry know exactly ``classes``."""
    from asyncflow.errors import TaskNotFound

    def get_task_class(name: str) -> type:
        try:
            return {cls.__name__: cls for cls in classes}[name]
        except KeyError:
            raise TaskNotFound(f"no task named {name!r}") from None

    registry = types.ModuleType("asyncflow.registry")
    registry.get_task_class = get_task_class  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "asyncflow.registry", registry)
