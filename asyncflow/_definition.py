"""What a task class is made of, found out once, when the class is created."""

from __future__ import annotations

import inspect
from typing import Any, Literal

from .errors import TaskDefinitionError

__all__ = ["ENGINE_OPTIONS", "LOOP", "THREAD", "Definition"]

LOOP, THREAD = 0, 1
"""Lanes: where bodies run."""

Body = Literal["coroutine", "async generator", "function", "generator"]

ENGINE_OPTIONS = ("priority", "processes", "rate", "resources", "retries", "retry_delay", "runner", "timeout")
"""Names that belong to the engine; as a parameter they would become part of the task's id."""


class Definition:
    """How the engine treats the tasks of one class."""

    __slots__ = ("body", "external", "has_output", "has_requires", "has_run", "lane", "wrapper")

    def __init__(self, cls: Any, base: Any, *, wrapper: bool) -> None:
        for hook in ("requires", "output"):
            _check_hook(cls, hook)
        run = cls.run
        self.external = run is None or run is NotImplemented
        self.has_output = cls.output is not base.output
        self.has_requires = cls.requires is not base.requires
        self.has_run = run is not base.run
        self.wrapper = wrapper
        if not self.external and not callable(run):
            raise TaskDefinitionError(
                f"{cls.__qualname__}.run is {run!r}; write `async def run(self)` or `def run(self)`"
            )
        self.body = _body(run)
        self.lane = LOOP if self.body in ("coroutine", "async generator") else THREAD
        if self.body == "async generator" and not self.has_output:
            raise TaskDefinitionError(
                f"{cls.__qualname__}.run is an async generator, which cannot return a value: write output(), or "
                "make it a plain `async def` and `await` the tasks it needs"
            )


def _body(run: Any) -> Body:
    if inspect.isasyncgenfunction(run):
        return "async generator"
    if inspect.iscoroutinefunction(run):
        return "coroutine"
    return "generator" if inspect.isgeneratorfunction(run) else "function"


def _check_hook(cls: Any, name: str) -> None:
    hook = getattr(cls, name)
    place = f"{cls.__qualname__}.{name}"
    if isinstance(hook, property) or not callable(hook):
        raise TaskDefinitionError(f"{place} is {hook!r}; write a method: `def {name}(self): return ...`")
    if inspect.iscoroutinefunction(hook) or inspect.isasyncgenfunction(hook):
        raise TaskDefinitionError(
            f"{place} is an `async def`, but the graph is known before anything runs: write `def {name}(self)`. "
            "What is only known at run time is a dynamic dependency: `await Other()` inside run()"
        )
