"""``Task``: what it requires, what it leaves behind, and how to make it."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Generator, Mapping
from typing import Any, ClassVar, Protocol, TypeVar, dataclass_transform, overload

from . import registry
from ._definition import NOTHING, Definition, own_or_mixed_in
from ._options import ENGINE_OPTIONS
from .attempt import current, inside
from .errors import AsyncflowError, TaskDefinitionError
from .parameters import Parameter, Visibility, collect_parameters, compile_constructor, param
from .target import Answer, ask, guard_async
from .tree import leaves, map_leaves

__all__ = ["ExternalTask", "Task", "WrapperTask"]

R_co = TypeVar("R_co", covariant=True)
O_co = TypeVar("O_co", covariant=True)

# What `await task` gives, for type checkers. A task whose run() returns nothing gives its output; one that has
# declared no output() gives what run() returns; any other gives its output. "Has declared none" is told by the
# `Any` of Task.output, the only type that can stand for `_NoOutput`.


class _NoOutput:
    pass


class _Makes(Protocol[O_co]):
    def run(self) -> Coroutine[Any, Any, None]: ...
    def output(self) -> O_co: ...


class _MakesInSyncSteps(Protocol[O_co]):
    def run(self) -> Generator[Any, Any, None]: ...
    def output(self) -> O_co: ...


class _MakesInSteps(Protocol[O_co]):
    def run(self) -> AsyncGenerator[Any, Any]: ...
    def output(self) -> O_co: ...


class _MakesInThread(Protocol[O_co]):
    def run(self) -> None: ...
    def output(self) -> O_co: ...


class Waits(Protocol[R_co]):
    """What ``await`` gives an ``R_co`` for: a task, as type checkers see it."""

    def __await__(self) -> Generator[Any, Any, R_co]: ...


class _Gives(Protocol[R_co]):
    def run(self) -> Coroutine[Any, Any, R_co]: ...
    def output(self) -> _NoOutput: ...


class _GivesInSyncSteps(Protocol[R_co]):
    def run(self) -> Generator[Any, Any, R_co]: ...
    def output(self) -> _NoOutput: ...


class _GivesInThread(Protocol[R_co]):
    def run(self) -> R_co: ...
    def output(self) -> _NoOutput: ...


class _HasOutput(Protocol[O_co]):
    def output(self) -> O_co: ...


class _InstanceOnly(property):
    """A property that does not exist on the class: ``MyTask.task_id`` is an AttributeError, as in Luigi."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, instance: Any, owner: type | None = None) -> str:  # type: ignore[override]  # pyright: ignore
        if instance is None:
            raise AttributeError(f"{self.name} belongs to a task, not to its class; construct one first")
        text: str = super().__get__(instance, owner)
        return text


@dataclass_transform(kw_only_default=True, eq_default=False, field_specifiers=(param,))
class Task:
    """A unit of work: ``requires()`` other tasks, makes its ``output()``, by ``run()``.

    A subclass declares its parameters as annotated attributes (``date: datetime.date``) or in Luigi's way
    (``date = DateParameter()``). Two tasks are equal if their class and their significant parameters are.
    ``run`` may be an ``async def`` (runs on the event loop), a ``def`` (runs in a thread) or a generator of
    either kind that yields the tasks it finds it needs. A task without ``output()`` is computed: ``await``
    gives what its ``run`` returned.

    The constructor raises ``ParameterError`` for a parameter that is missing, unknown or wrong.
    """

    task_namespace: ClassVar[str | None] = None
    """Stands before the class name in the family, as in ``my_namespace.MyTask``."""

    # What a class may ask of the engine: attributes of the class, or properties where tasks differ.

    priority: ClassVar[Any] = 0
    """Of what could run, the highest number goes first. What a task requires has at least its priority."""
    retries: ClassVar[Any] = None
    """How many attempts may follow a failed one; None: what ``build(retries=...)`` says, which is 0 by itself."""
    retry_delay: ClassVar[Any] = 1.0
    """Seconds before the second attempt, doubled for each further one, half of them drawn by chance; or a function
    that gives the seconds for the number of failures so far. The place is free meanwhile."""
    retry_on: ClassVar[Any] = None
    """What is worth another attempt: exception types, or a function of the exception. Every ``Exception`` is, but
    for those of asyncflow itself."""
    timeout: ClassVar[Any] = None
    """Seconds one attempt may be at work; waiting for a place or for other tasks does not count."""
    resources: ClassVar[Any] = {}
    """What its body needs of ``build(resources=...)``, such as ``{"db": 1}``, while it is at work."""
    hold: ClassVar[Any] = ()
    """Names of resources its body keeps also while it waits for other tasks."""
    rate: ClassVar[Any] = {}
    """The name of a rate of ``build(rate=...)`` that limits its starts, or ``{"api": 2}`` for several units of it."""

    runner: ClassVar[Any] = None
    """``"process"``: its body runs in a worker process. None: on the loop if it is async, else in a thread."""

    _leaf: ClassVar[bool] = True  # of structures of tasks
    _parameters: ClassVar[Mapping[str, Parameter[Any]]] = {}
    _definition: ClassVar[Definition]
    _construct: ClassVar[Callable[..., None]]
    _complete: ClassVar[Callable[..., Any] | None] = None  # a class's own complete(), without the guard
    _complete_on_loop: ClassVar[bool] = False
    _wrapper: ClassVar[bool] = False
    _family: ClassVar[str] = "Task"
    _key: tuple[Any, ...]
    _hash: int

    def __init__(self, /, *args: Any, **kwargs: Any) -> None:
        self._construct(*args, **kwargs)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls._family = _family(cls)
        cls._parameters = collect_parameters(cls, _RESERVED)
        cls._construct = compile_constructor(cls, cls._parameters)
        cls._definition = Definition(cls, Task, wrapper=cls._wrapper)
        complete = own_or_mixed_in(cls, Task, "complete")
        if complete is not NOTHING and "_complete" not in cls.__dict__:
            raw = guard_async(cls, "complete", complete)
            cls._complete, cls._complete_on_loop = raw or complete, raw is not None
        registry.register(cls)

    # What a task says of itself ----------------------------------------------------------------------

    def requires(self) -> Any:
        """The tasks that have to be complete before this one runs: a task, or any nesting of them.

        May be a generator. Known before anything runs; what only ``run()`` can know, it awaits or yields.
        """
        return []

    def output(self) -> Any:
        """The target, or any nesting of targets, this task makes. Asked once per build and kept."""
        return None

    def run(self) -> Any:
        """How to make the output. A subclass writes it as ``def``, ``async def`` or a generator of either."""

    def complete(self) -> bool | Awaitable[bool]:
        """Whether the task need not run: all its outputs exist. A task without output never is."""
        return Answer(f"{self!r}.complete()", self._outputs_exist)

    async def _outputs_exist(self) -> bool:
        targets = list(leaves(self.output()))
        for target in targets:
            if not await ask(target):
                return False
        return bool(targets)

    # Inside run() ------------------------------------------------------------------------------------

    def input(self) -> Any:
        """What ``requires()`` gave, in the same shape, each task replaced by its output (or its value).

        Outside its own body a task cannot know the value of a computed requirement: ``AsyncflowError``.
        """
        attempt = current.get()
        if attempt is not None and attempt.task is self:
            return attempt.engine.inputs(attempt)
        return map_leaves(self.requires(), _output_of)

    def progress(self, fraction: float, message: str = "") -> None:
        """Tell the build's listeners how far this body is: ``fraction`` from 0 to 1. Cheap; any thread."""
        attempt = current.get()
        if attempt is not None and attempt.task is self:
            attempt.engine.progress(attempt, fraction, message)

    @overload
    def require(self, structure: Waits[R_co], /) -> R_co: ...
    @overload
    def require(self, structure: list[Waits[R_co]], /) -> list[R_co]: ...
    @overload
    def require(self, structure: Any, /) -> Any: ...
    def require(self, structure: Any, /) -> Any:
        """In a sync body: wait for the tasks in ``structure``, and give their outputs or values in its shape.

        The same as ``yield``, for a body that is no generator; an async one writes ``await``.

        Raises ``TaskFailed``, ``UpstreamFailed``, ``TaskCancelled``, ``PlanError``; ``TypeError`` for what is not a
        task; ``RuntimeError`` in an async body, in another thread than the body's, and outside of its body.
        """
        attempt = current.get()
        if attempt is None or attempt.task is not self:
            raise RuntimeError(f"{self!r}.require() is for the task's own run(), while a build runs it")
        if self._definition.body in ("coroutine", "async generator"):
            raise RuntimeError(f"{self!r}.run is async: write `await`, which does not hold up the event loop")
        return attempt.engine.require(attempt, structure)

    @overload
    def __await__(self: _Makes[O_co]) -> Generator[Any, Any, O_co]: ...
    @overload
    def __await__(self: _MakesInSyncSteps[O_co]) -> Generator[Any, Any, O_co]: ...
    @overload
    def __await__(self: _MakesInSteps[O_co]) -> Generator[Any, Any, O_co]: ...
    @overload
    def __await__(self: _MakesInThread[O_co]) -> Generator[Any, Any, O_co]: ...
    @overload
    def __await__(self: _Gives[R_co]) -> Generator[Any, Any, R_co]: ...
    @overload
    def __await__(self: _GivesInSyncSteps[R_co]) -> Generator[Any, Any, R_co]: ...
    @overload
    def __await__(self: _GivesInThread[R_co]) -> Generator[Any, Any, R_co]: ...
    @overload
    def __await__(self: _HasOutput[O_co]) -> Generator[Any, Any, O_co]: ...
    def __await__(self: Any) -> Generator[Any, Any, Any]:
        """Inside a body: wait for this task and give its output, or its value. Elsewhere: build it first.

        Raises ``TaskFailed`` (the original as ``__cause__``), ``UpstreamFailed`` or ``TaskCancelled``.
        """
        return wait_for(self).__await__()

    # Identity ----------------------------------------------------------------------------------------

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if type(self) is not type(other):
            return NotImplemented
        try:
            return self._key == other._key  # pyright: ignore
        except AttributeError:
            raise _not_constructed(self) from None

    def __hash__(self) -> int:
        try:
            return self._hash
        except AttributeError:
            raise _not_constructed(self) from None

    def __repr__(self) -> str:
        shown = [_shown(self, parameter) for parameter in self._parameters.values() if parameter.significant]
        return f"{self._family}({', '.join(shown)})"

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self._parameters:
            raise _frozen(self, name)
        object.__setattr__(self, name, value)

    def __delattr__(self, name: str) -> None:
        if name in self._parameters:
            raise _frozen(self, name)
        object.__delattr__(self, name)

    def __reduce__(self) -> tuple[Any, ...]:
        # Not the instance's attributes: its hash holds for this process only, and whatever run() has set
        # belongs to that attempt.
        return _rebuild, (type(self), {name: getattr(self, name) for name in self._parameters})

    @classmethod
    def get_task_namespace(cls) -> str:
        """The namespace of the class; empty if it has none."""
        return cls._family.rpartition(".")[0]

    @classmethod
    def get_task_family(cls) -> str:
        """The name of the class with its namespace, as in ``my_namespace.MyTask``."""
        return cls._family

    @_InstanceOnly
    def task_id(self) -> str:
        """Luigi's id, for people: family, the first three parameters, ten hex digits of their md5."""
        return _task_id(self)


def _no_instances(*_: Any, **__: Any) -> None:
    raise TypeError("Task is what tasks are derived from: write `class MyTask(Task)` and construct that")


Task._construct = _no_instances

_ADVICE_OPTION = "is an option of the engine, not a parameter: drop the annotation, or choose another name"
_ADVICE_METHOD = "is a name the Task class uses itself: choose another name for the parameter"
_RESERVED: Mapping[str, str] = {
    **{name: f"{name!r} {_ADVICE_METHOD}" for name in dir(Task) if not name.startswith("__")},
    **{name: f"{name!r} {_ADVICE_OPTION}" for name in ENGINE_OPTIONS},
    "task_namespace": "'task_namespace' belongs to the class and is no parameter: drop the annotation",
}


def _family(cls: type[Task]) -> str:
    name = cls.task_namespace
    if name is None:
        name = registry.namespace_of(cls.__module__)
    elif not isinstance(name, str):
        raise TaskDefinitionError(f'{cls.__qualname__}.task_namespace is {name!r}; write a string: "my_namespace"')
    return f"{name}.{cls.__name__}" if name else cls.__name__


def _not_constructed(task: Task) -> TaskDefinitionError:
    name = type(task).__qualname__
    return TaskDefinitionError(
        f"{name}.__init__ has not called Task's: write `def __init__(self, *args, **kwargs)` and in it "
        "`super().__init__(*args, **kwargs)`"
    )


def _frozen(task: Task, name: str) -> AttributeError:
    place = f"{task._family}.{name} is a parameter"
    if "_hash" not in task.__dict__:
        return AttributeError(f"{place}: give it to `super().__init__({name}=...)`, which checks and sets it")
    return AttributeError(
        f"{place} and part of the task's identity; make another task with another {name}, or use another attribute"
    )


def _shown(task: Task, parameter: Parameter[Any]) -> str:
    text = "***"
    if not parameter.hidden:
        value = getattr(task, parameter.name)
        try:
            text = parameter.serialize(value)
        except Exception as error:  # a kind of the user's own; every message about the task shows this
            text = f"<{type(value).__name__}, and serialize() raised {type(error).__name__}>"
    return f"{parameter.name}={text}"


def _output_of(task: Any) -> Any:
    if not isinstance(task, Task):
        raise AsyncflowError(f"requires() gave {task!r}, which is not a task")
    if task._definition.has_output:
        return task.output()
    if task._definition.wrapper:
        return None  # as inside a build: it has nothing of its own
    raise AsyncflowError(f"{task!r} has no output(); its value is only known inside a build")


def _rebuild(cls: type[Task], values: dict[str, Any]) -> Task:
    return cls(**values)


def _task_id(task: Task) -> str:
    import hashlib
    import json

    values = {
        name: parameter.serialize(getattr(task, name))
        for name, parameter in task._parameters.items()
        if parameter.significant
        and parameter.visibility == Visibility.PUBLIC
        and getattr(task, name) != parameter.compat_default
    }
    text = json.dumps(values, separators=(",", ":"), sort_keys=True)
    digest = hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()[:10]
    summary = "_".join(values[name][:16] for name in sorted(values)[:3])
    return f"{task._family}_{re.sub(r'[^A-Za-z0-9_]', '_', summary)}_{digest}"


class ExternalTask(Task):
    """Something that is made elsewhere: it has an ``output()`` and no ``run()``. If it is absent, it is missing."""

    run = None  # type: ignore[assignment]  # Luigi's sign of an external task


class WrapperTask(Task):
    """Stands for the tasks it requires: complete when all of them are, with nothing to do of its own."""

    _wrapper = True

    def complete(self) -> bool | Awaitable[bool]:
        """Whether every required task is complete."""
        return Answer(f"{self!r}.complete()", self._all_complete)

    async def _all_complete(self) -> bool:
        for task in leaves(self.requires()):
            answer = task.complete()
            if not (await answer if isinstance(answer, Awaitable) else answer):
                return False
        return True

    _complete = None  # the engine knows: it has asked every required task itself


def await_outside(structure: Any) -> Awaitable[Any]:
    """How ``await task`` works outside a build: an implicit build. Replaced by the door that knows how to build."""
    raise RuntimeError("import asyncflow before awaiting a task")


async def wait_for(structure: Any) -> Any:
    """The outputs or values of the tasks in ``structure``, in its shape, wherever the caller stands."""
    attempt = inside()
    if attempt is not None:
        return await attempt.engine.request(attempt, structure)
    return await await_outside(structure)
