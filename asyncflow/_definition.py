"""What a task class is made of, found out once, when the class is created."""

from __future__ import annotations

import inspect
from types import FunctionType
from typing import Any, Literal

from ._options import options_of
from .errors import ConfigError, TaskDefinitionError

__all__ = ["LOOP", "NOTHING", "PROCESS", "THREAD", "Definition", "body_kind", "own_or_mixed_in"]

LOOP, THREAD, PROCESS = 0, 1, 2
"""Lanes: where bodies run."""

NOTHING: Any = object()

Body = Literal["coroutine", "async generator", "function", "generator"]


class Definition:
    """How the engine treats the tasks of one class."""

    __slots__ = ("body", "external", "has_output", "has_requires", "has_run", "lane", "options", "wrapper")

    def __init__(self, cls: Any, base: Any, *, wrapper: bool) -> None:
        for hook in ("requires", "output", "complete", "input", "progress"):
            _check_method(cls, base, hook)
        run = cls.run
        self.external = run is None or run is NotImplemented
        if not self.external:
            _check_method(cls, base, "run")
        self.has_output = cls.output is not base.output
        self.has_requires = cls.requires is not base.requires
        self.has_run = run is not base.run
        self.wrapper = wrapper
        self.body = body_kind(run)
        self.lane = LOOP if self.body in ("coroutine", "async generator") else THREAD
        try:
            self.options = options_of(cls, base)
        except ConfigError as error:
            raise TaskDefinitionError(str(error)) from None
        if self.body == "async generator" and not self.has_output:
            raise TaskDefinitionError(
                f"{cls.__qualname__}.run is an async generator, which cannot return a value: write output(), or "
                "make it a plain `async def` and `await` the tasks it needs"
            )


def own_or_mixed_in(cls: type, base: type, name: str) -> Any:
    """The attribute ``name`` if ``cls`` brings it, by its own body or by a mixin that is no ``base``; else NOTHING.

    What it inherits from another ``base`` has been dealt with when that class was created.
    """
    for owner in cls.__mro__:
        if name in owner.__dict__:
            return owner.__dict__[name] if owner is cls or not issubclass(owner, base) else NOTHING
    return NOTHING


def body_kind(run: Any) -> Body:
    """What ``run`` is. A plain function made by a decorator (``functools.wraps``) is what it wraps."""

    def kind(function: Any) -> Body:
        if inspect.isasyncgenfunction(function):
            return "async generator"
        if inspect.iscoroutinefunction(function):
            return "coroutine"
        return "generator" if inspect.isgeneratorfunction(function) else "function"

    return kind(inspect.unwrap(run, stop=lambda function: kind(function) != "function") if callable(run) else run)


def _check_method(cls: type, base: type, name: str) -> None:
    method = own_or_mixed_in(cls, base, name)
    if method is NOTHING:
        return
    place = f"{cls.__qualname__}.{name}"
    visible = getattr(cls, name)
    if not callable(visible) or isinstance(method, type):
        either = f"`async def {name}(self)` or " if name == "run" else ""
        raise TaskDefinitionError(f"{place} is {visible!r}; write a method: {either}`def {name}(self): ...`")
    if name in ("requires", "output") and body_kind(visible) in ("coroutine", "async generator"):
        raise TaskDefinitionError(
            f"{place} is an `async def`, but the graph is known before anything runs: write `def {name}(self)`. "
            "What is only known at run time is a dynamic dependency: `await Other()` inside run()"
        )
    if name not in ("input", "progress"):
        _check_arguments(place, name, method)


def _check_arguments(place: str, name: str, method: Any) -> None:
    """The engine calls ``name()`` on the task, without arguments."""
    static = isinstance(method, staticmethod)
    function = method.__func__ if isinstance(method, (staticmethod, classmethod)) else method
    if not isinstance(function, FunctionType):
        return  # only a call can tell
    code = function.__code__
    names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    required = code.co_argcount - len(function.__defaults__ or ())
    if not static and code.co_argcount == 0 and not code.co_flags & inspect.CO_VARARGS:
        raise TaskDefinitionError(f"{place} takes no self: write `def {name}(self)`")
    if static and required:
        raise TaskDefinitionError(f"{place} is a staticmethod that asks for {names[0]}: write `def {name}(self)`")
    asked = [*names[1:required]]
    asked += [item for item in names[code.co_argcount :] if item not in (function.__kwdefaults__ or {})]
    if asked:
        raise TaskDefinitionError(
            f"{place} asks for {', '.join(asked)}, but it is called without arguments: write `def {name}(self)`; "
            f"what differs between tasks is a parameter, an attribute of the class such as `{asked[0]}: int`"
        )
