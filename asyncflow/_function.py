"""``@task``: a function as a task."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine
from typing import Any, Generic, ParamSpec, Protocol, TypeVar, overload

from ._task import Task
from .errors import TaskDefinitionError
from .parameters import MISSING

__all__ = ["task"]

P = ParamSpec("P")
R = TypeVar("R")


class AsyncTask(Task, Generic[R]):
    """What an async function decorated with ``@task`` gives when it is called."""

    async def run(self) -> R:
        """Call the function."""
        raise TypeError("made by @task only")


class SyncTask(Task, Generic[R]):
    """What a plain function decorated with ``@task`` gives when it is called."""

    def run(self) -> R:
        """Call the function."""
        raise TypeError("made by @task only")


class Decorator(Protocol):
    """``@task(...)``, waiting for its function."""

    @overload
    def __call__(self, function: Callable[P, Coroutine[Any, Any, R]], /) -> Callable[P, AsyncTask[R]]: ...  # type: ignore[overload-overlap]
    @overload
    def __call__(self, function: Callable[P, R], /) -> Callable[P, SyncTask[R]]: ...


@overload
def task(function: Callable[P, Coroutine[Any, Any, R]], /) -> Callable[P, AsyncTask[R]]: ...  # type: ignore[overload-overlap]
@overload
def task(function: Callable[P, R], /) -> Callable[P, SyncTask[R]]: ...
@overload
def task(*, output: Callable[..., Any] | None = ..., requires: Callable[..., Any] | None = ...) -> Decorator: ...
def task(
    function: Any = None, /, *, output: Callable[..., Any] | None = None, requires: Callable[..., Any] | None = None
) -> Any:
    """Make a function a task class: its arguments are the parameters, its result is the value.

    ``output`` and ``requires`` are functions of the same arguments. Calling the decorated function
    constructs a task: ``await`` it, or give it to ``build``.

    Raises ``TaskDefinitionError`` for an argument without a type, ``*args`` or ``**kwargs``.
    """
    if function is None:
        return lambda function: _make(function, output, requires)
    return _make(function, output, requires)


def _make(function: Any, output: Any, requires: Any) -> type[Task]:
    names = _arguments(function)
    values = _reader(names)
    body: dict[str, Any] = {
        "__module__": function.__module__,
        "__qualname__": function.__qualname__,
        "__doc__": function.__doc__,
        "__annotations__": {name: function.__annotations__[name] for name in names},
        "function": staticmethod(function),
    }
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.default is not parameter.empty:
            body[name] = parameter.default
    body["run"] = _run(function, values)
    for hook, given in (("output", output), ("requires", requires)):
        if given is not None:
            body[hook] = _hook(given, values)
    base = AsyncTask if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function) else SyncTask
    return type(function.__name__, (base,), body)


def _arguments(function: Any) -> list[str]:
    if not inspect.isfunction(function):
        raise TaskDefinitionError(f"@task needs a function, not {function!r}; a class derives from Task")
    names = []
    for name, parameter in inspect.signature(function).parameters.items():
        place = f"@task {function.__qualname__}({name})"
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise TaskDefinitionError(f"{place}: a task's parameters are named one by one; write them out")
        if name not in function.__annotations__:
            raise TaskDefinitionError(f"{place}: a parameter needs a type, e.g. `{name}: int`")
        names.append(name)
    return names


def _reader(names: list[str]) -> Callable[[Task], dict[str, Any]]:
    return lambda self: {name: getattr(self, name, MISSING) for name in names}


def _hook(given: Callable[..., Any], values: Callable[[Task], dict[str, Any]]) -> Callable[[Task], Any]:
    return lambda self: given(**values(self))


def _run(function: Any, values: Callable[[Task], dict[str, Any]]) -> Any:
    """A method of the same kind as ``function``, since the kind says where it runs."""
    if inspect.isasyncgenfunction(function) or inspect.isgeneratorfunction(function):
        raise TaskDefinitionError(
            f"@task {function.__qualname__} is a generator: `await` the tasks it needs, or derive a class from Task"
        )
    if inspect.iscoroutinefunction(function):

        async def run_async(self: Task) -> Any:
            return await function(**values(self))

        return run_async

    def run(self: Task) -> Any:
        return function(**values(self))

    return run
