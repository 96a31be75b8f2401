"""A task by itself: its identity, its parameters, what it says of its requirements; no build but for ``input()``."""

from __future__ import annotations

import abc
import asyncio
import copy
import datetime
import enum
import gc
import json
import os
import pickle
import subprocess
import sys
import unittest.mock
import weakref
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

import asyncflow
from asyncflow import (
    AsyncflowError,
    BoolParameter,
    ChoiceParameter,
    DateHourParameter,
    DateParameter,
    DictParameter,
    EnumParameter,
    ExternalTask,
    FloatParameter,
    IntParameter,
    ListParameter,
    MemoryTarget,
    MonthParameter,
    OptionalParameter,
    Parameter,
    ParameterError,
    PathParameter,
    Task,
    TaskDefinitionError,
    TaskInstanceParameter,
    TaskParameter,
    TimeDeltaParameter,
    TupleParameter,
    Visibility,
    WrapperTask,
    build,
    namespace,
    param,
    run,
)


@pytest.fixture(autouse=True)
def _empty_memory() -> Iterator[None]:
    MemoryTarget.clear()
    yield
    MemoryTarget.clear()


class MyTask(Task):
    """The task of the document the project was born from."""

    my_param = Parameter()
    task_namespace = "my_namespace"


class R(Task):
    pass


class Colour(enum.Enum):
    RED = 1


class Many(Task):
    """Every kind of Luigi's. The id below was printed by Luigi 3.8.1 for this very class."""

    z = IntParameter(default=3)
    name = Parameter(default="grüße, welt → and more than sixteen")
    flag = BoolParameter(default=True)
    ratio = FloatParameter(default=0.5)
    day = DateParameter(default=datetime.date(2026, 1, 2))
    hour = DateHourParameter(default=datetime.datetime(2026, 1, 2, 3))
    month = MonthParameter(default=datetime.date(2026, 1, 1))
    length = TimeDeltaParameter(default=datetime.timedelta(days=1, hours=2))
    colour = EnumParameter(enum=Colour, default=Colour.RED)
    parts = ListParameter(default=[1, "two", [3]])
    pair = TupleParameter(default=(1, 2))
    options = DictParameter(default={"a": [2], "b": 1})  # sorted: here, unlike there, order is no difference
    folder = PathParameter(default=Path("data/x"))
    region = ChoiceParameter(choices=["eu", "us"], default="eu")
    maybe = OptionalParameter(default=None)
    cls = TaskParameter(default=R)
    quiet = IntParameter(default=7, significant=False)
    secret = Parameter(default="x", visibility=Visibility.HIDDEN)
    private = Parameter(default="x", visibility=Visibility.PRIVATE)


class Day(Task):
    a: int
    b: str
    c: datetime.date
    quiet: bool = param(default=False, significant=False)

    async def run(self) -> int:
        return self.a


# Identity: what people and Luigi see ---------------------------------------------------------------------


def test_the_document_the_project_was_born_from() -> None:
    my_task = MyTask(my_param="hello")
    assert str(my_task) == "my_namespace.MyTask(my_param=hello)"
    assert my_task.get_task_namespace() == MyTask.get_task_namespace() == "my_namespace"
    assert my_task.get_task_family() == MyTask.get_task_family() == "my_namespace.MyTask"
    assert my_task.task_id == "my_namespace.MyTask_hello_890907e7ce"
    with pytest.raises(AttributeError, match=r"task_id belongs to a task, not to its class; construct one first"):
        _ = MyTask.task_id
    assert not hasattr(MyTask, "task_id")


def test_ids_are_luigis_to_the_letter() -> None:
    class A(Task):
        a = IntParameter()
        b = Parameter()
        c = DateParameter()
        d = BoolParameter()

    assert A(a=1, b="x y/z", c=datetime.date(2020, 1, 2)).task_id == "A_1_x_y_z_2020_01_02_859d380412"

    class Long(Task):
        a = Parameter()
        b = IntParameter()

    assert Long(a="a long name, cut here", b=-3).task_id == "Long_a_long_name__cut__3_57e5a04616"
    assert R().task_id == "R__99914b932b"
    assert Many().task_id == "Many_R_RED_2026_01_02_6233e88df0"


def test_insignificant_and_hidden_values_are_not_in_the_id() -> None:
    assert Many(quiet=8, secret="y", private="y").task_id == Many().task_id
    assert Many(z=4).task_id != Many().task_id


def test_an_id_cannot_be_set() -> None:
    with pytest.raises(AttributeError):
        R().task_id = "mine"  # type: ignore[misc]


def test_the_id_of_a_task_does_not_change_when_a_parameter_is_added_with_a_compat_default() -> None:
    def make(**more: Any) -> type[Task]:
        return type("Grows", (Task,), {"__module__": __name__, "n": IntParameter(), **more})

    before = make()
    after = make(extra=IntParameter(default=0, compat_default=0))
    without = make(extra=IntParameter(default=0))
    assert after(n=1).task_id == before(n=1).task_id != without(n=1).task_id
    assert after(n=1, extra=1).task_id == without(n=1, extra=1).task_id
    assert after(n=1) != after(n=1, extra=1)


def test_repr_shows_what_is_significant_and_public() -> None:
    class Shown(Task):
        day: datetime.date
        quiet: int = param(default=7, significant=False)
        secret: str = param(default="s3cret", visibility=Visibility.HIDDEN)
        private: str = param(default="s3cret", visibility=Visibility.PRIVATE)

    assert repr(Shown(day=datetime.date(2026, 1, 2))) == "Shown(day=2026-01-02, secret=***, private=***)"
    assert repr(R()) == "R()"
    assert repr(Day(a=1, b="x", c=datetime.date(2026, 1, 2), quiet=True)) == "Day(a=1, b=x, c=2026-01-02)"


def test_a_parameter_kind_that_cannot_write_its_value_does_not_hide_what_is_said_about_the_task() -> None:
    class Broken(Parameter[Any]):
        def normalize(self, value: Any) -> Any:
            return value

        def serialize(self, value: Any) -> str:
            raise RuntimeError("no text for this")

    class Task1(Task):
        n: int = 3
        odd = Broken(default=0.5)

        async def run(self) -> None:
            raise ValueError("row 17")

    assert repr(Task1()) == "Task1(n=3, odd=<float, and serialize() raised RuntimeError>)"
    [error] = run(Task1()).errors()
    assert "row 17" in str(error)


# Namespaces ----------------------------------------------------------------------------------------------


def _define(module: str, **body: Any) -> type[Task]:
    return type("Report", (Task,), {"__module__": module, **body})


def test_namespace_rules() -> None:
    assert _define("shop.eu").get_task_family() == "Report"
    try:
        namespace("everywhere")
        namespace("shops", scope="shop")
        namespace("europe", scope="shop.eu")
        defined = _define("shop.eu.daily")
        assert defined.get_task_family() == "europe.Report"
        assert _define("shop.us").get_task_family() == "shops.Report"
        assert _define("shopping").get_task_family() == "everywhere.Report"
        assert _define("shop.eu", task_namespace="own").get_task_family() == "own.Report"
        assert _define("shop.eu", task_namespace="").get_task_family() == "Report", "an empty one is one"
        namespace(scope="shop.eu")
        assert _define("shop.eu").get_task_family() == "shops.Report"
        assert defined.get_task_family() == "europe.Report", "fixed when the class is created"
    finally:
        for scope in ("", "shop", "shop.eu"):
            namespace(scope=scope)
    assert _define("shop.eu").get_task_family() == "Report"


def test_a_namespace_is_inherited_and_may_have_dots() -> None:
    class Base(Task):
        task_namespace = "a.b"

    class Child(Base):
        pass

    assert Child.get_task_family() == "a.b.Child"
    assert Child.get_task_namespace() == "a.b"
    assert Child().task_id == "a.b.Child__99914b932b"


@pytest.mark.parametrize("wrong", [3, property(lambda self: "x"), b"x"])
def test_a_namespace_is_a_string(wrong: Any) -> None:
    with pytest.raises(TaskDefinitionError, match=r"Report.task_namespace is .*; write a string"):
        _define("shop", task_namespace=wrong)
    with pytest.raises(TypeError, match=r"namespace\(.*both are strings"):
        namespace(wrong)
    with pytest.raises(TypeError, match=r"both are strings"):
        namespace("x", scope=wrong)


# Equality ------------------------------------------------------------------------------------------------


class Sibling(Task):
    a: int
    b: str
    c: datetime.date
    quiet: bool = param(default=False, significant=False)


class Child(Day):
    pass


_days = st.builds(
    lambda kind, a, b, c, quiet: kind(a=a, b=b, c=c, quiet=quiet),
    st.sampled_from([Day, Sibling, Child]),
    st.integers(0, 2),
    st.sampled_from(["", "x", "1"]),
    st.dates(datetime.date(2026, 1, 1), datetime.date(2026, 1, 2)),
    st.booleans(),
)


@given(_days, _days)
def test_tasks_are_equal_by_class_and_significant_parameters(one: Any, other: Any) -> None:
    same = type(one) is type(other) and (one.a, one.b, one.c) == (other.a, other.b, other.c)
    assert (one == other) is same
    assert (one != other) is not same
    assert (one.task_id == other.task_id) is same
    assert len({one, other}) == (1 if same else 2)
    if same:
        assert hash(one) == hash(other)
        assert repr(one) == repr(other)


@given(_days)
def test_copies_and_pickles_are_equal_and_complete(task: Any) -> None:
    for clone in (copy.copy(task), copy.deepcopy(task), pickle.loads(pickle.dumps(task))):
        assert clone is not task
        assert clone == task
        assert hash(clone) == hash(task)
        assert clone.quiet is task.quiet, "insignificant parameters travel too"


def test_a_task_leaves_comparison_with_other_things_to_them() -> None:
    assert R() == unittest.mock.ANY, "asked first, the task leaves the answer to the other side"
    assert R() != 3
    assert R() != "R()"
    assert R().__eq__(3) is NotImplemented


# Parameters ----------------------------------------------------------------------------------------------


def test_parameters_cannot_be_set_or_deleted() -> None:
    task = Day(a=1, b="x", c=datetime.date(2026, 1, 2))
    for change in (lambda: setattr(task, "a", 2), lambda: delattr(task, "a"), lambda: delattr(task, "quiet")):
        with pytest.raises(AttributeError, match=r"Day\.(a|quiet) is a parameter and part of the task's identity; "):
            change()
    assert task.a == 1
    assert task.quiet is False


def test_other_attributes_can_be_set_and_deleted() -> None:
    task = Day(a=1, b="x", c=datetime.date(2026, 1, 2))
    task.rows = 3
    assert task.rows == 3  # type: ignore[attr-defined]
    del task.rows  # type: ignore[attr-defined]
    assert not hasattr(task, "rows")
    assert task == Day(a=1, b="x", c=datetime.date(2026, 1, 2))


def test_what_a_body_sets_belongs_to_its_attempt() -> None:
    class Sets(Task):
        n: int

        async def run(self) -> int:
            self.rows = self.n
            return self.rows

    task = Sets(n=3)
    assert run(task)[task] == 3
    for clone in (copy.copy(task), copy.deepcopy(task)):
        assert vars(clone).keys() == vars(Sets(n=3)).keys()


def test_a_constructor_of_ones_own() -> None:
    class Own(Task):
        n: int
        m: int = 2

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.both = self.n + self.m

    assert Own(1, m=3).both == 4
    assert Own(1) == Own(n=1, m=2)
    assert copy.copy(Own(1)).both == 3
    with pytest.raises(ParameterError, match=r"Own: missing parameter 'n'"):
        Own()


def test_a_constructor_that_assigns_is_told_how_to_write_it() -> None:
    class Assigns(Task):
        n: int

        def __init__(self, n: int) -> None:
            self.n = n

    with pytest.raises(AttributeError, match=r"Assigns\.n is a parameter: give it to `super\(\).__init__\(n=...\)`"):
        Assigns(1)


async def test_a_constructor_that_does_not_call_tasks_is_told_to() -> None:
    class Forgets(Task):
        def __init__(self) -> None:
            self.extra = 1

    for use in (hash, lambda task: task == Forgets(), lambda task: {task}):
        with pytest.raises(TaskDefinitionError, match=r"Forgets.__init__ has not called Task's: write .*super\(\)"):
            use(Forgets())
    with pytest.raises(TaskDefinitionError, match=r"Forgets.__init__"):
        await build(Forgets())


def test_task_itself_is_no_task() -> None:
    with pytest.raises(TypeError, match=r"write `class MyTask\(Task\)`"):
        Task()
    assert Task.get_task_family() == "Task"


def test_parameters_are_inherited_and_mixed_in() -> None:
    class Dated:
        day: datetime.date
        zone: str = "UTC"

    class Numbered(Task):
        n = IntParameter(default=3)

    class Both(Dated, Numbered):
        n = 4  # another default

    task = Both(day=datetime.date(2026, 1, 2))
    assert repr(task) == "Both(n=4, day=2026-01-02, zone=UTC)"
    assert Numbered().n == 3
    assert repr(Both(5, datetime.date(2026, 1, 2))) == "Both(n=5, day=2026-01-02, zone=UTC)"


def test_an_abstract_class_between() -> None:
    class Base(Task, abc.ABC):
        n: int

        @abc.abstractmethod
        async def run(self) -> int: ...

    class Concrete(Base):
        async def run(self) -> int:
            return self.n

    with pytest.raises(TypeError, match="abstract"):
        Base(n=1)
    assert run(Concrete(n=1))[Concrete(n=1)] == 1


T = TypeVar("T")


def test_a_generic_class_between() -> None:
    class Holds(Task, Generic[T]):
        n: int = 1

    class HoldsInt(Holds[int]):
        pass

    assert HoldsInt() == HoldsInt(n=1)


def test_class_arguments_pass() -> None:
    class Named(Task):
        label: ClassVar[str]

        def __init_subclass__(cls, *, label: str = "", **kwargs: Any) -> None:
            super().__init_subclass__(**kwargs)
            cls.label = label

    class Sub(Named, label="x"):
        n: int = 1

    assert Sub.label == "x"
    with pytest.raises(TypeError):
        type("Wrong", (Task,), {}, colour="red")


def test_a_task_as_a_parameter_of_another() -> None:
    class Holder(Task):
        of: Day
        other = TaskInstanceParameter(task=Day, default=Day(a=1, b="x", c=datetime.date(2026, 1, 2)))

        def requires(self) -> Task:
            return self.of

    inner = Day(a=3, b="y", c=datetime.date(2026, 1, 2))
    task = Holder(of=inner)
    assert task.of is inner
    assert task == Holder(of=copy.deepcopy(inner))
    assert task != Holder(of=Day(a=4, b="y", c=inner.c))
    assert task.task_id == Holder(of=Day(a=3, b="y", c=inner.c)).task_id
    text = repr(task).partition("of=")[2].partition("}}, ")[0] + "}}"
    assert json.loads(text) == {"family": "Day", "params": {"a": "3", "b": "y", "c": "2026-01-02"}}
    assert copy.deepcopy(task) == task
    with pytest.raises(ParameterError, match=r"Holder: of=.*not the class itself: write Day\(...\)"):
        Holder(of=Day)  # type: ignore[arg-type]


# Into another process ------------------------------------------------------------------------------------

MODULE = """
import asyncflow, datetime, enum, pathlib
from asyncflow import *

class Colour(enum.Enum):
    RED = "red"

class Inner(Task):
    n: int

class Outer(Task):
    text: str
    inner: Inner
    parts: dict[str, list[int]]
    colour: Colour
    day: datetime.date = datetime.date(2026, 1, 2)
    folder: pathlib.Path = pathlib.Path("data")
    quiet: int = param(default=0, significant=False)
    secret: str = param(default="", visibility=Visibility.HIDDEN)
    derived = None

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.derived = self.text.upper()

    async def run(self):
        self.rows = object()    # cannot be pickled, and need not
        self.handle = lambda: 3

@task
async def function(n: int) -> int:
    return n

def make():
    outer = Outer("x", Inner(1), {"b": [1], "a": []}, Colour.RED, quiet=7, secret="s")
    asyncflow.run(outer)
    assert outer.rows
    return outer, function(3), [outer.inner]
"""

WRITES = "import pickle, sys, there; pickle.dump(there.make(), open(sys.argv[1], 'wb'))"

READS = """
import pickle, sys, there
outer, function, [inner] = pickle.load(open(sys.argv[1], "rb"))
mine, _, _ = there.make()
assert outer == mine and hash(outer) == hash(mine) and outer in {mine} and mine in {outer}
assert outer.task_id == mine.task_id and repr(outer) == repr(mine)
assert outer.quiet == 7 and outer.secret == "s" and outer.derived == "X"
assert inner is outer.inner and inner in {there.Inner(1)}
assert function in {there.function(3)}
assert not hasattr(outer, "rows") and not hasattr(outer, "handle")
print(outer.task_id)
"""


def test_a_pickle_in_another_process(tmp_path: Path) -> None:
    (tmp_path / "there.py").write_text(MODULE)
    printed = []
    for seed, code in (("1", WRITES), ("2", READS), ("3", READS)):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
        done = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / "tasks.pickle")],
            env=environment,
            capture_output=True,
            text=True,
            timeout=30,
        )
        assert done.returncode == 0, done.stderr
        printed.append(done.stdout)
    assert printed[1] == printed[2] != ""


# input() -------------------------------------------------------------------------------------------------


class Stored(Task):
    n: int

    def output(self) -> MemoryTarget:
        return MemoryTarget(f"stored-{self.n}")

    def run(self) -> None:
        self.output().put(self.n)


class Computed(Task):
    n: int

    async def run(self) -> int:
        return self.n


class Pair(NamedTuple):
    left: Any
    right: Any


SHAPES: Mapping[str, Any] = {
    "none": None,
    "single": Stored(n=1),
    "list": [Stored(n=1), Stored(n=2)],
    "tuple": (Stored(n=1), Stored(n=2)),
    "dict": {"a": Stored(n=1), "b": Stored(n=2)},
    "nested": {"a": [Stored(n=1), (Stored(n=2), Stored(n=1))], "b": Stored(n=3), "c": []},
    "named tuple": Pair(Stored(n=1), [Stored(n=2)]),
    "the same twice": [Stored(n=1), Stored(n=1)],
}


def _outputs(shape: Any) -> Any:
    """What ``input()`` has to give; a way of its own, not the package's."""
    if isinstance(shape, Task):
        return shape.output()
    if isinstance(shape, dict):
        return {key: _outputs(item) for key, item in shape.items()}
    if isinstance(shape, Pair):
        return Pair(*map(_outputs, shape))
    return None if shape is None else type(shape)(map(_outputs, shape))


class Asks(Task):
    shape: str
    lazily: bool = False

    def requires(self) -> Any:
        return (item for item in SHAPES[self.shape]) if self.lazily else SHAPES[self.shape]


class AsksOnLoop(Asks):
    async def run(self) -> Any:
        return self.input()


class AsksInThread(Asks):
    def run(self) -> Any:
        return self.input()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", [AsksOnLoop, AsksInThread])
def test_input_mirrors_requires(kind: type[Asks], shape: str) -> None:
    task = kind(shape=shape)
    expected = _outputs(SHAPES[shape])
    assert task.input() == expected, "outside a build"
    inside = run(task)[task]
    assert inside == expected
    assert type(inside) is type(expected)


@pytest.mark.parametrize("kind", [AsksOnLoop, AsksInThread])
def test_requires_as_a_generator(kind: type[Asks]) -> None:
    task = kind(shape="list", lazily=True)
    expected = _outputs(SHAPES["list"])
    assert task.input() == expected
    assert run(task)[task] == expected


class AsksForValues(Task):
    def requires(self) -> Any:
        return {"value": Computed(n=3), "target": Stored(n=1), "nothing": Group()}

    async def run(self) -> Any:
        return self.input(), AsksForValues().requires()["value"].n


class Group(WrapperTask):
    def requires(self) -> Any:
        return [Stored(n=1), Stored(n=2)]


def test_input_gives_the_values_of_computed_tasks_inside_a_build_only() -> None:
    expected = {"value": 3, "target": MemoryTarget("stored-1"), "nothing": None}
    assert run(AsksForValues())[AsksForValues()] == (expected, 3)
    with pytest.raises(AsyncflowError, match=r"Computed\(n=3\) has no output\(\); its value is only known inside"):
        AsksForValues().input()


def test_input_of_another_task_inside_a_body() -> None:
    class Looks(Task):
        async def run(self) -> Any:
            return AsksInThread(shape="single").input()

    assert run(Looks())[Looks()] == MemoryTarget("stored-1")


def test_a_wrapper_among_the_requirements_gives_nothing() -> None:
    class After(Task):
        def requires(self) -> Any:
            return [Group(), Stored(n=1)]

        async def run(self) -> Any:
            return self.input()

    assert After().input() == [None, MemoryTarget("stored-1")] == run(After())[After()]


def test_input_without_requires() -> None:
    assert R().input() == []


def test_input_where_requires_gives_no_task() -> None:
    class Wrong(Task):
        def requires(self) -> Any:
            return [MemoryTarget("x")]

    with pytest.raises(AsyncflowError, match=r"requires\(\) gave MemoryTarget\('x'\), which is not a task"):
        Wrong().input()


# complete() ----------------------------------------------------------------------------------------------


async def test_complete_is_awaited() -> None:
    assert await Stored(n=1).complete() is False
    MemoryTarget("stored-1").put(1)
    assert await Stored(n=1).complete() is True
    assert await Computed(n=1).complete() is False, "without an output a task is never complete"
    assert await Group().complete() is False
    MemoryTarget("stored-2").put(1)
    assert await Group().complete() is True


async def test_a_forgotten_await_on_complete_is_an_error() -> None:
    for wrong in (
        lambda: bool(Stored(n=1).complete()),
        lambda: all(Stored(n=n).complete() for n in range(3)),
        lambda: not Group().complete(),
    ):
        with pytest.raises(TypeError, match=r"has to be awaited on the event loop: write `await (Stored|Group)\("):
            wrong()


def test_complete_in_sync_code_waits() -> None:
    assert not Stored(n=1).complete()
    MemoryTarget("stored-1").put(1)
    assert Stored(n=1).complete()
    assert not all(Stored(n=n).complete() for n in (1, 2))


class Mixin:
    async def complete(self) -> bool:
        return True


class SyncMixin:
    def complete(self) -> bool:
        return True


class Base(Task):
    async def run(self) -> int:
        return 1

    async def complete(self) -> bool:
        return True


class Never(Task):
    async def complete(self) -> bool:
        return False


def test_complete_from_wherever_python_finds_it() -> None:
    """A class's own, a base's, or that of a mixin which is no task; the first in the order of inheritance."""

    class Mixed(Mixin, Task):
        async def run(self) -> None: ...

    class MixedSync(SyncMixin, Task):
        async def run(self) -> None: ...

    class Inherits(Mixed):
        pass

    class Overrides(Mixin, Never):
        async def run(self) -> None: ...

    class Extends(Never):
        async def run(self) -> None: ...

        async def complete(self) -> bool:
            return not await super().complete()

    for kind in (Mixed, MixedSync, Inherits, Overrides, Extends, Base):
        assert run(kind()).counts == {"complete": 1}, kind
        assert kind().complete()

    class BaseFirst(Never, Mixin):
        async def run(self) -> None: ...

    assert run(BaseFirst()).counts == {"succeeded": 1}


async def test_a_forgotten_await_on_a_complete_of_ones_own() -> None:
    class Mixed(Mixin, Task):
        pass

    for kind in (Base, Mixed):
        with pytest.raises(TypeError, match=rf"{kind.__name__}.complete\(\) has to be awaited"):
            bool(kind().complete())


# Awaiting ------------------------------------------------------------------------------------------------


async def test_a_task_can_be_awaited_twice() -> None:
    task = Computed(n=3)
    assert (await task, await task) == (3, 3)


async def test_awaiting_an_external_task_that_is_there() -> None:
    class Data(ExternalTask):
        def output(self) -> MemoryTarget:
            return MemoryTarget("data")

    MemoryTarget("data").put(1)
    assert (await Data()).get() == 1


def test_progress_outside_a_body_is_nothing() -> None:
    Computed(n=1).progress(0.5, "half")


async def test_progress_inside_a_body_is_an_event() -> None:
    class Steps(Task):
        def run(self) -> None:
            self.progress(0.5, "half")
            Computed(n=1).progress(0.1, "of another task: not heard")

    heard: list[asyncflow.TaskProgress] = []
    await build(Steps(), on_event=lambda event: heard.append(event) if type(event).__name__ == "TaskProgress" else None)
    assert [(event.task, event.fraction, event.message) for event in heard] == [(Steps(), 0.5, "half")]


def test_tasks_are_not_kept_alive() -> None:
    task = Computed(n=12345)
    run(task)
    reference = weakref.ref(task)
    del task
    gc.collect()
    assert reference() is None


async def test_the_loop_of_an_await_is_the_running_one() -> None:
    async def stream() -> AsyncIterator[int]:
        for n in range(3):
            yield await Computed(n=n)

    assert [n async for n in stream()] == [0, 1, 2]
    assert await asyncio.gather(Computed(n=1), Computed(n=2)) == [1, 2]
