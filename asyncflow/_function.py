"""``@task``: a function as a task."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine
from typing import Any, Generic, ParamSpec, Protocol, TypeVar, Unpack, overload

from ._definition import body_kind
from ._options import TaskOptions, check_names
from ._task import Task
from .errors import ConfigError, TaskDefinitionError

__all__ = ["task"]

P = ParamSpec("P")
R = TypeVar("R")
O = TypeVar("O")  # noqa: E741


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


class OutputTask(Task, Generic[O]):
    """What a function decorated with ``@task(output=...)`` gives when it is called."""

    def output(self) -> O:
        """Call the function given as ``output=``."""
        raise TypeError("made by @task only")


class Decorator(Protocol):
    """``@task(...)``, waiting for its function."""

    @overload
    def __call__(self, function: Callable[P, Coroutine[Any, Any, R]], /) -> Callable[P, AsyncTask[R]]: ...  # type: ignore[overload-overlap]
    @overload
    def __call__(self, function: Callable[P, R], /) -> Callable[P, SyncTask[R]]: ...


class OutputDecorator(Protocol[O]):
    """``@task(output=...)``, waiting for its function."""

    def __call__(self, function: Callable[P, Any], /) -> Callable[P, OutputTask[O]]: ...


@overload
def task(function: Callable[P, Coroutine[Any, Any, R]], /) -> Callable[P, AsyncTask[R]]: ...  # type: ignore[overload-overlap]
@overload
def task(function: Callable[P, R], /) -> Callable[P, SyncTask[R]]: ...
@overload
def task(
    *, output: None = ..., requires: Callable[..., Any] | None = ..., **options: Unpack[TaskOptions]
) -> Decorator: ...
@overload
def task(
    *, output: Callable[..., O], requires: Callable[..., Any] | None = ..., **options: Unpack[TaskOptions]
) -> OutputDecorator[O]: ...
def task(
    function: Any = None,
    /,
    *,
    output: Callable[..., Any] | None = None,
    requires: Callable[..., Any] | None = None,
    **options: Any,
) -> Any:
    """Make a function a task class: its arguments are the parameters, its result is the value.

    ``output`` and ``requires`` are functions of the same arguments. Calling the decorated function
    constructs a task: ``await`` it, or give it to ``build``. ``options`` are what a class writes as attributes:
    ``retries``, ``retry_delay``, ``retry_on``, ``timeout``, ``priority``, ``resources``, ``hold``, ``rate``.

    Raises ``TaskDefinitionError`` for what is not a plain function with a name (a method, a lambda, a
    generator), for an argument without a type, ``*args`` or ``**kwargs``, and for an ``output`` or
    ``requires`` that does not take the same arguments, and for an option that is unknown or wrong.
    """
    if function is None:
        return lambda function: _make(function, output, requires, options)
    return _make(function, output, requires, options)


def _make(function: Any, output: Any, requires: Any, options: dict[str, Any]) -> type[Task]:
    names = _arguments(function)
    try:
        check_names(options, f"@task of {function.__qualname__}")
    except ConfigError as error:
        raise TaskDefinitionError(str(error)) from None
    values = _reader(names)
    body: dict[str, Any] = {
        "__module__": function.__module__,
        "__qualname__": function.__qualname__,
        "__doc__": function.__doc__,
        "__annotations__": {name: function.__annotations__[name] for name in names},
        "_function": staticmethod(function),
    }
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.default is not parameter.empty:
            body[name] = parameter.default
    body |= options
    body["run"] = _run(function, values)
    for hook, given in (("requires", requires), ("output", output)):
        if given is not None:
            body[hook] = _hook(function, hook, given, names, values)
    base: type[Task] = AsyncTask if body_kind(function) == "coroutine" else SyncTask
    return type(function.__name__, (base if output is None else OutputTask,), body)


def _arguments(function: Any) -> list[str]:
    if isinstance(function, (staticmethod, classmethod)):
        raise TaskDefinitionError(f"@task is for functions: move {function.__qualname__} out of its class")
    if not inspect.isfunction(function):
        raise TaskDefinitionError(f"@task needs a function, not {function!r}; a class derives from Task")
    if function.__name__ == "<lambda>":
        raise TaskDefinitionError("@task needs a function with a name, which names its tasks: write it with `def`")
    names: list[str] = []
    for name, parameter in inspect.signature(function).parameters.items():
        place = f"@task {function.__qualname__}({name})"
        if not names and name in ("self", "cls"):
            raise TaskDefinitionError(f"{place} is a method: move it out of its class, or derive a class from Task")
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise TaskDefinitionError(f"{place}: a task's parameters are named one by one; write them out")
        if parameter.kind is parameter.POSITIONAL_ONLY:
            raise TaskDefinitionError(f"{place}: a task's parameters have names; drop the `/`")
        if name not in function.__annotations__:
            raise TaskDefinitionError(f"{place}: a parameter needs a type, e.g. `{name}: int`")
        names.append(name)
    return names


def _reader(names: list[str]) -> Callable[[Task], dict[str, Any]]:
    return lambda self: {name: getattr(self, name) for name in names}


def _hook(
    function: Any, hook: str, given: Any, names: list[str], values: Callable[[Task], dict[str, Any]]
) -> Callable[[Task], Any]:
    place = f"@task({hook}=...) of {function.__qualname__}"
    example = f"{hook}=lambda {', '.join(names)}: ..." if names else f"{hook}=lambda: ..."
    if not callable(given):
        raise TaskDefinitionError(f"{place} is {given!r}; write a function of the same arguments: {example}")
    if body_kind(given) in ("coroutine", "async generator"):
        raise TaskDefinitionError(
            f"{place} is an `async def`, but the graph is known before anything runs: write it as `def`"
        )
    try:
        inspect.signature(given).bind(**dict.fromkeys(names))
    except TypeError as error:
        raise TaskDefinitionError(f"{place} does not take the same arguments ({error}): write {example}") from None
    except ValueError:
        pass  # a builtin that does not tell
    return lambda self: given(**values(self))


def _run(function: Any, values: Callable[[Task], dict[str, Any]]) -> Any:
    """A method of the same kind as ``function``, since the kind says where it runs."""
    kind = body_kind(function)
    if kind in ("generator", "async generator"):
        raise TaskDefinitionError(
            f"@task {function.__qualname__} is a generator: `await` the tasks it needs, or derive a class from Task"
        )
    if kind == "coroutine":

        async def run_async(self: Task) -> Any:
            return await function(**values(self))

        return run_async

    def run(self: Task) -> Any:
        return function(**values(self))

    return run
