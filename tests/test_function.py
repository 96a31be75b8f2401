"""``@task``: functions as tasks."""

from __future__ import annotations

import copy
import datetime
import functools
import pickle
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

import asyncflow
from asyncflow import (
    LocalTarget,
    MemoryTarget,
    ParameterError,
    PlanError,
    Task,
    TaskDefinitionError,
    TaskFailed,
    build,
    get_task_class,
    param,
    task,
)

calls: list[Any] = []


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    MemoryTarget.clear()
    calls.clear()
    yield
    MemoryTarget.clear()


@task
async def add(a: int, b: int = 2) -> int:
    """The sum of two numbers."""
    calls.append((a, b))
    return a + b


@task
def subtract(a: int, b: int = 2) -> int:
    calls.append((a, b))
    return a - b


@task(output=lambda name, text: MemoryTarget(name), requires=lambda name, text: [add(1)])
async def write(name: str, text: str = "x") -> None:
    MemoryTarget(name).put(text)


@task(output=lambda: MemoryTarget("sync"))
def write_in_thread() -> None:
    MemoryTarget("sync").put(1)


def test_a_function_is_a_task_class() -> None:
    kind: Any = add
    assert isinstance(kind, type)
    assert issubclass(kind, Task)
    assert (kind.__name__, kind.__qualname__, kind.__module__) == ("add", "add", __name__)
    assert kind.__doc__ == "The sum of two numbers."
    assert kind.get_task_family() == "add"
    assert repr(add(1)) == "add(a=1, b=2)"
    assert add(1) == add(a=1, b=2) != add(1, 3)
    assert add(1) != subtract(1)
    assert add(1).task_id.startswith("add_1_2_")
    assert not calls, "calling it makes a task, and does not call the function"


def test_a_function_in_a_function() -> None:
    @task
    async def inner(a: int) -> None: ...

    kind: Any = inner
    assert kind.__qualname__ == "test_a_function_in_a_function.<locals>.inner"
    assert kind.get_task_family() == "inner"


async def test_await_and_build() -> None:
    assert await add(1) == 3
    assert await subtract(5, b=3) == 2
    result = await build([add(2), subtract(2)])
    assert (result[add(2)], result[subtract(2)]) == (4, 0)
    assert calls == [(1, 2), (5, 3), (2, 2), (2, 2)]


async def test_where_it_runs() -> None:
    import threading

    @task
    async def on_loop() -> int:
        return threading.get_ident()

    @task
    def in_thread() -> int:
        return threading.get_ident()

    assert await on_loop() == threading.get_ident() != await in_thread()


def passed_on(function: Any) -> Any:
    """A decorator that knows nothing of coroutines, as many do."""

    @functools.wraps(function)
    def inner(**values: Any) -> Any:
        return function(**values)

    return inner


async def test_a_decorated_function() -> None:
    @task
    @passed_on
    async def parent(n: int) -> int:
        """Its own."""
        return n + await add(1)

    assert parent.__doc__ == "Its own."
    result = await build(parent(3))
    assert result[parent(3)] == 6
    assert result.counts == {"succeeded": 2}, "the task it waits for is one of this build"
    with pytest.raises(TaskDefinitionError, match="generates is a generator"):
        task(passed_on(generates))


async def test_output_and_requires() -> None:
    assert (await write("place")).get() == "x"
    assert calls == [(1, 2)]
    assert (await write_in_thread()).get() == 1
    result = await build([write("place"), write("other", "y")])
    assert result.counts == {"complete": 1, "succeeded": 2}
    assert result[write("other", "y")].get() == "y"


async def test_requires_may_be_a_generator_and_reaches_what_it_gives() -> None:
    @task(requires=lambda n: (add(i) for i in range(n)))
    async def several(n: int) -> int:
        return len(calls)

    assert await several(3) == 3


async def test_a_function_may_wait_for_others() -> None:
    @task
    async def parent() -> int:
        return await add(1) + await subtract(5)

    assert await parent() == 6


async def test_what_the_function_raises() -> None:
    @task
    def fails(n: int) -> None:
        raise ValueError(f"row {n}")

    with pytest.raises(TaskFailed, match=r"fails\(n=3\) failed: ValueError: row 3") as caught:
        await fails(3)
    assert isinstance(caught.value.__cause__, ValueError)


def test_parameters_are_checked() -> None:
    with pytest.raises(ParameterError, match=r"add: a='x' is not valid: expected"):
        add("x")  # type: ignore[arg-type]
    with pytest.raises(ParameterError, match=r"add: missing parameter 'a'"):
        add()  # type: ignore[call-arg]
    with pytest.raises(ParameterError, match=r"add: no parameter 'bb' \(did you mean 'b'\?\)"):
        add(1, bb=3)  # type: ignore[call-arg]
    with pytest.raises(ParameterError, match=r"add: takes at most 2 values"):
        add(1, 2, 3)  # type: ignore[call-arg]


async def test_options_of_parameters() -> None:
    @task
    async def shop(day: datetime.date, *, quiet: bool = param(default=False, significant=False)) -> Any:
        return day, quiet

    day = datetime.date(2026, 1, 2)
    assert shop(day, quiet=True) == shop(day)
    assert repr(shop(day, quiet=True)) == "shop(day=2026-01-02)"
    assert await shop(day, quiet=True) == (day, True)


async def test_names_of_arguments_that_the_package_uses() -> None:
    @task
    async def odd(function: int, values: str, given: int = 1, self_: int = 2) -> Any:
        return function, values, given, self_

    assert await odd(3, "x") == (3, "x", 1, 2)


def test_pickles_and_copies() -> None:
    for made in (add(1), subtract(1), write("x")):
        for clone in (pickle.loads(pickle.dumps(made)), copy.copy(made), copy.deepcopy(made)):
            assert clone == made
            assert type(clone) is type(made)


def test_it_is_found_by_name() -> None:
    assert get_task_class("add") is add
    with pytest.raises(asyncflow.TaskNotFound, match=r"did you mean 'subtract'"):
        get_task_class("substract")


def test_the_classes_it_builds_on_are_nobodys_tasks() -> None:
    for name in ("AsyncTask", "SyncTask", "OutputTask", "ExternalTask", "WrapperTask", "Task"):
        with pytest.raises(asyncflow.TaskNotFound):
            get_task_class(name)


# Wrong uses ----------------------------------------------------------------------------------------------


async def generates() -> AsyncIterator[int]:
    yield 1


def untyped(a, b: int) -> None: ...  # type: ignore[no-untyped-def]


def many(*names: str) -> None: ...


def keywords(**names: str) -> None: ...


def positional(a: int, /) -> None: ...


def unresolved(a: Nowhere) -> None: ...  # type: ignore[name-defined]  # noqa: F821


def unsupported(a: object) -> None: ...


def reserved(run: int) -> None: ...


def option(retries: int = 3) -> None: ...


def bad_default(a: int = "x") -> None: ...  # type: ignore[assignment]


def fine(a: int, b: int = 2) -> None: ...


class Holder:
    def method(self, a: int) -> None: ...

    @classmethod
    def on_class(cls, a: int) -> None: ...

    @staticmethod
    def static(a: int) -> None: ...


@pytest.mark.parametrize(
    ("function", "text"),
    [
        (lambda: 3, r"@task needs a function with a name.*write it with `def`"),
        (Holder.method, r"@task Holder\.method\(self\) is a method: move it out of its class, or derive a class"),
        (Holder().method, r"@task needs a function, not <bound method"),
        (vars(Holder)["on_class"], r"move Holder\.on_class out of its class"),
        (vars(Holder)["static"], r"move Holder\.static out of its class"),
        (Holder, r"@task needs a function, not <class .*; a class derives from Task"),
        (functools.partial(fine, 1), r"@task needs a function, not functools.partial"),
        (3, r"@task needs a function, not 3"),
        (generates, r"@task generates is a generator: `await` the tasks it needs, or derive a class"),
        (untyped, r"@task untyped\(a\): a parameter needs a type, e.g. `a: int`"),
        (many, r"@task many\(names\): a task's parameters are named one by one; write them out"),
        (keywords, r"@task keywords\(names\): a task's parameters are named one by one"),
        (positional, r"@task positional\(a\): a task's parameters have names; drop the `/`"),
        (unresolved, r"unresolved\.a: the annotation 'Nowhere' cannot be resolved"),
        (unsupported, r"unsupported\.a: no parameter for the annotation object"),
        (reserved, r"reserved\.run: 'run' is a name the Task class uses itself"),
        (option, r"option\.retries: 'retries' is an option of the engine"),
        (bad_default, r"bad_default\.a: default='x' is not valid: expected"),
    ],
)
def test_what_cannot_be_a_task(function: Any, text: str) -> None:
    with pytest.raises(TaskDefinitionError, match=text):
        task(function)


async def _async_hook(a: int, b: int) -> Any: ...


@pytest.mark.parametrize("hook", ["output", "requires"])
@pytest.mark.parametrize(
    ("given", "text"),
    [
        (LocalTarget("/x"), r"is LocalTarget\('/x'\); write a function of the same arguments: NAME=lambda a, b: ..."),
        (_async_hook, r"is an `async def`, but the graph is known before anything runs"),
        (lambda a: 1, r"does not take the same arguments \(.*'b'\): write NAME=lambda a, b: ..."),
        (lambda a, b, c: 1, r"does not take the same arguments \(.*'c'\)"),
        (lambda: 1, r"does not take the same arguments"),
        (LocalTarget, r"does not take the same arguments"),
    ],
)
def test_output_and_requires_are_functions_of_the_same_arguments(hook: str, given: Any, text: str) -> None:
    with pytest.raises(TaskDefinitionError, match=rf"@task\({hook}=...\) of fine {text.replace('NAME', hook)}"):
        task(**{hook: given})(fine)


@pytest.mark.parametrize(
    "given", [lambda a, b: MemoryTarget("x"), lambda **given: MemoryTarget("x"), lambda b, a, c=1: MemoryTarget("x")]
)
def test_functions_that_can_be_called_with_them(given: Any) -> None:
    made = task(output=given)(fine)(1)
    assert made.output() == MemoryTarget("x")


async def test_what_output_raises_is_a_plan_error() -> None:
    @task(output=lambda name: LocalTarget(name))  # noqa: PLW0108
    async def empty(name: str) -> None: ...

    with pytest.raises(PlanError, match=r"empty\(name=\)\.output\(\) raised ValueError"):
        await build(empty(""))


async def test_options_of_the_engine() -> None:
    @task(
        retries=2, retry_delay=0, retry_on=OSError, timeout=30, priority=5, resources={"db": 1}, hold="db", rate="api"
    )
    async def flaky(n: int) -> int:
        calls.append(n)
        if len(calls) < 3:
            raise ConnectionError
        return len(calls)

    kind: Any = flaky
    options = kind._definition.options
    assert (options.retries, options.timeout, options.priority) == (2, 30, 5)
    assert (options.resources, options.hold, options.rate) == ({"db": 1}, {"db"}, {"api": 1})
    assert flaky(n=1).task_id == "flaky_1_" + flaky(n=1).task_id[-10:], "they are no part of what it is"
    assert (await build(flaky(n=1), rate={"api": "100/s"}))[flaky(n=1)] == 3


async def test_functions_among_the_options_take_no_self() -> None:
    def later(failures: int) -> float:
        calls.append(failures)
        return 0

    def again(error: BaseException) -> bool:
        return isinstance(error, ConnectionError)

    @task(output=lambda: MemoryTarget("it"), retries=5, retry_delay=later, retry_on=again)
    def in_thread() -> None:
        if len(calls) == 2:
            raise ValueError("another")
        raise ConnectionError

    with pytest.raises(TaskFailed, match="another"):
        await in_thread()
    assert calls == [1, 2]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"retries": -1}, r"inner\.retries is -1; expected a whole number, 0 or more"),
        ({"timeout": "1 s"}, r"inner\.timeout is '1 s'; expected a number of seconds"),
        ({"hold": "gpu"}, r"inner\.hold is 'gpu'; expected names out of its resources"),
        ({"retrys": 3}, r"@task of .*inner has no option 'retrys'; did you mean retries\?"),
        ({"colour": 3}, r"@task of .*inner has no option 'colour'; there are hold, priority, rate, "),
    ],
)
def test_a_wrong_option_is_told_with_the_name_of_the_function(options: Any, message: str) -> None:
    with pytest.raises(TaskDefinitionError, match=message):

        @task(**options)
        def inner() -> None: ...
