"""What is found out when a task class is created: mistakes, and where its body runs."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import AsyncGenerator, Callable, Generator, Iterator
from typing import Any, ClassVar

import pytest

from asyncflow import (
    ExternalTask,
    IntParameter,
    LocalTarget,
    MemoryTarget,
    Task,
    TaskDefinitionError,
    WrapperTask,
    build,
    run,
)
from asyncflow._definition import LOOP, THREAD
from asyncflow._options import ENGINE_OPTIONS


@pytest.fixture(autouse=True)
def _empty_memory() -> Iterator[None]:
    MemoryTarget.clear()
    yield
    MemoryTarget.clear()


async def coroutine(self: Any) -> int:
    return 3


async def async_generator(self: Any) -> AsyncGenerator[Any, Any]:
    yield []


def function(self: Any) -> int:
    return 3


def generator(self: Any) -> Generator[Any, Any, int]:
    yield []
    return 3


def target(self: Any) -> MemoryTarget:
    return MemoryTarget("x")


def passed_on(function: Any) -> Any:
    """A decorator that knows nothing of coroutines, as many do."""

    @functools.wraps(function)
    def inner(*args: Any) -> Any:
        return function(*args)

    return inner


class Other(Task):
    async def run(self) -> int:
        return 1


def make(bases: tuple[type, ...] = (Task,), **body: Any) -> Any:
    return type("Wrong", bases, {"__module__": __name__, **body})


# Names ---------------------------------------------------------------------------------------------------

METHODS = ("run", "output", "input", "complete", "requires", "progress", "get_task_family", "get_task_namespace")


@pytest.mark.parametrize("name", [*METHODS, "task_id"])
@pytest.mark.parametrize("luigis", [False, True])
def test_a_parameter_named_like_what_task_uses_itself(name: str, luigis: bool) -> None:
    body = {name: IntParameter()} if luigis else {"__annotations__": {name: int}, name: 3}
    with pytest.raises(TaskDefinitionError, match=rf"Wrong\.{name}: '{name}' is a name the Task class uses itself: "):
        make(**body)


@pytest.mark.parametrize("name", ENGINE_OPTIONS)
@pytest.mark.parametrize("luigis", [False, True])
def test_an_engine_option_is_no_parameter(name: str, luigis: bool) -> None:
    body = {name: IntParameter()} if luigis else {"__annotations__": {name: "int"}, name: 3}
    with pytest.raises(TaskDefinitionError, match=rf"Wrong\.{name}: .* an option of the engine.*drop the annotation"):
        make(**body)
    with pytest.raises(TaskDefinitionError, match=rf"Wrong\.{name}: "):
        make((type("Mixin", (), body), Task))
    fitting = {"hold": (), "rate": "api", "resources": {"db": 3}, "retry_on": OSError, "runner": "process"}
    right: Any = fitting.get(name, 3)
    assert getattr(make(**{name: right}), name) == right, "without an annotation it is an attribute"
    assert not make(__annotations__={name: ClassVar[Any]}, **{name: right})._parameters


def test_an_annotated_namespace() -> None:
    with pytest.raises(TaskDefinitionError, match=r"Wrong.task_namespace: .* belongs to the class .* drop the annotat"):
        make(__annotations__={"task_namespace": str}, task_namespace="x")


def test_every_public_name_of_task_is_reserved() -> None:
    for name in dir(Task):
        if not name.startswith("_"):
            with pytest.raises(TaskDefinitionError, match=rf"Wrong\.{name}(:| is )"):
                make(**{name: IntParameter()})


# Methods -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hook", ["requires", "output"])
@pytest.mark.parametrize("body", [coroutine, async_generator, passed_on(coroutine)])
def test_the_graph_is_known_before_anything_runs(hook: str, body: Any) -> None:
    text = rf"Wrong\.{hook} is an `async def`.* write `def {hook}\(self\)`.*dynamic dependency: `await Other\(\)`"
    with pytest.raises(TaskDefinitionError, match=text):
        make(**{hook: body})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("output", LocalTarget("/x")),
        ("output", LocalTarget),
        ("output", "x.txt"),
        ("output", None),
        ("output", property(target)),
        ("requires", [Other()]),
        ("requires", Other()),
        ("requires", Other),
        ("requires", property(function)),
        ("run", 3),
        ("run", Other),
        ("run", property(function)),
        ("complete", True),
        ("complete", None),
        ("complete", property(function)),
        ("input", [1]),
        ("progress", 0.5),
    ],
)
def test_what_is_no_method(name: str, value: Any) -> None:
    with pytest.raises(TaskDefinitionError, match=rf"Wrong\.{name} is .*; write a method: .*`def {name}\(self\): ...`"):
        make(**{name: value})
    with pytest.raises(TaskDefinitionError, match=rf"Wrong\.{name} is "):
        make((type("Mixin", (), {name: value}), Task))


@pytest.mark.parametrize("name", ["run", "output", "requires", "complete"])
@pytest.mark.parametrize(
    ("body", "text"),
    [
        (lambda self, x: 1, r"asks for x, but it is called without arguments: write `def NAME\(self\)`.*`x: int`"),
        (lambda self, x, y, z=1: 1, r"asks for x, y, but"),
        (lambda self, *, x, y=1: 1, r"asks for x, but"),
        (lambda: 1, r"takes no self: write `def NAME\(self\)`"),
        (lambda *, x: 1, r"takes no self"),
        (staticmethod(function), r"is a staticmethod that asks for self: write `def NAME\(self\)`"),
        (staticmethod(lambda *, x: 1), r"asks for x, but"),
        (classmethod(lambda cls, x: 1), r"asks for x, but"),
    ],
)
def test_a_method_the_engine_cannot_call(name: str, body: Any, text: str) -> None:
    with pytest.raises(TaskDefinitionError, match=rf"Wrong\.{name} {text.replace('NAME', name)}"):
        make(**{name: body})


async def _async_with_argument(self: Any, x: int) -> None: ...


def test_an_async_method_the_engine_cannot_call() -> None:
    with pytest.raises(TaskDefinitionError, match=r"Wrong.run asks for x, but"):
        make(run=_async_with_argument)


def with_connection(function: Callable[[Any, str], Any]) -> Callable[[Any], Any]:
    @functools.wraps(function)
    def inner(self: Any) -> Any:
        return function(self, "connection")

    return inner


@pytest.mark.parametrize(
    "body",
    [
        lambda self: 3,
        lambda self, x=3: x,
        lambda self, *args, **kwargs: 3,
        lambda *args: 3,
        lambda self, *, x=3: x,
        staticmethod(lambda: 3),
        staticmethod(lambda x=3: x),
        classmethod(lambda cls: 3),
        with_connection(lambda self, connection: 3),
        functools.partialmethod(lambda self, x: x, 3),
        staticmethod(functools.partial(lambda x: x, 3)),
    ],
)
def test_methods_of_every_other_kind_can_be_called(body: Any) -> None:
    kind = make(run=body)
    assert kind._definition.body == "function"
    assert run(kind())[kind()] == 3


def test_input_and_progress_may_take_what_they_like() -> None:
    make(input=lambda self, key: self, progress=lambda self, fraction, message, more: None)


def test_a_mistake_is_reported_for_the_class_that_has_it_and_once() -> None:
    class Mixin:
        def output(self, x: int) -> None: ...

    with pytest.raises(TaskDefinitionError, match=r"Child.output asks for x"):

        class Child(Mixin, Task):
            pass


def test_an_async_generator_needs_an_output() -> None:
    with pytest.raises(TaskDefinitionError, match=r"Wrong.run is an async generator, which cannot return.*output\(\)"):
        make(run=async_generator)
    assert make(run=async_generator, output=target)._definition.has_output
    with_output = make(output=target)
    assert make((with_output,), run=async_generator)._definition.body == "async generator"


def test_the_error_is_a_type_error_and_leaves_nothing_behind() -> None:
    from asyncflow.registry import task_classes

    with pytest.raises(TypeError):
        make(run=3)
    assert not [kind for kind in task_classes() if kind.__name__ == "Wrong" and kind.run == 3]  # type: ignore[comparison-overlap]


# Where bodies run ----------------------------------------------------------------------------------------


@functools.wraps(generator)
async def async_around(self: Any) -> int:
    return 3


@functools.wraps(coroutine)
def steps_around(self: Any) -> Generator[Any, Any, int]:
    yield []
    return 3


class Block(contextlib.ContextDecorator):
    def __enter__(self) -> None: ...
    def __exit__(self, *_: object) -> None: ...


@pytest.mark.parametrize(
    ("body", "kind", "lane"),
    [
        (coroutine, "coroutine", LOOP),
        (async_generator, "async generator", LOOP),
        (function, "function", THREAD),
        (generator, "generator", THREAD),
        (passed_on(coroutine), "coroutine", LOOP),
        (passed_on(async_generator), "async generator", LOOP),
        (passed_on(function), "function", THREAD),
        (passed_on(generator), "generator", THREAD),
        (passed_on(passed_on(coroutine)), "coroutine", LOOP),
        (Block()(coroutine), "coroutine", LOOP),
        (async_around, "coroutine", LOOP),
        (passed_on(async_around), "coroutine", LOOP),
        (steps_around, "generator", THREAD),
        (classmethod(coroutine), "coroutine", LOOP),
        (classmethod(generator), "generator", THREAD),
        (staticmethod(functools.partial(coroutine, None)), "coroutine", LOOP),
        (lambda self: 3, "function", THREAD),
    ],
)
def test_the_kind_of_a_body_says_where_it_runs(body: Any, kind: str, lane: int) -> None:
    made = make(run=body, **({"output": target} if kind == "async generator" else {}))
    assert made._definition.body == kind
    assert made._definition.lane == lane
    if kind != "async generator":
        assert run(made())[made()] == 3


async def test_a_decorated_body_can_wait_for_tasks() -> None:
    class OnLoop(Task):
        @passed_on
        async def run(self) -> int:
            return await Other() + 1

    class InThread(Task):
        @passed_on
        def run(self) -> Any:
            return (yield Other()) + 1

    result = await build([OnLoop(), InThread()], concurrency=1)
    assert (result[OnLoop()], result[InThread()]) == (2, 2)
    assert result.counts == {"succeeded": 3}


# Kinds of tasks ------------------------------------------------------------------------------------------


def test_what_a_class_has() -> None:
    def flags(kind: Any) -> set[str]:
        names = ("external", "has_output", "has_requires", "has_run", "wrapper")
        return {name for name in names if getattr(kind._definition, name)}

    assert flags(make()) == set()
    assert flags(make(run=function)) == {"has_run"}
    assert flags(make(run=function, output=target)) == {"has_run", "has_output"}
    assert flags(make(requires=function)) == {"has_requires"}
    assert flags(make((make(output=target),), run=function)) == {"has_run", "has_output"}
    assert flags(make((type("Mixin", (), {"output": target}), Task))) == {"has_output"}
    assert flags(make((ExternalTask,), output=target)) == {"external", "has_output", "has_run"}
    assert flags(make((WrapperTask,), requires=function)) == {"wrapper", "has_requires"}


@pytest.mark.parametrize("run", [None, NotImplemented])
def test_luigis_signs_of_an_external_task(run: Any) -> None:
    assert make(run=run, output=target)._definition.external
    again = make((make(run=run, output=target),), run=function)
    assert not again._definition.external
