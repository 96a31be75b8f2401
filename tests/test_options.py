"""What a class may ask of the engine: read once, checked, and never part of what a task is."""

from __future__ import annotations

import random
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncflow import ConfigError, IncompleteOutput, PlanError, Task, build
from asyncflow._options import DEFAULTS, LONGEST, Options, options_of, per_second
from asyncflow.errors import TaskDefinitionError


def options(**body: Any) -> Options:
    found = options_of(type("Some", (Task,), {"run": lambda self: None, **body}), Task)
    assert found is not None
    return found


def test_a_class_that_asks_for_nothing_shares_the_defaults() -> None:
    assert options() is DEFAULTS
    assert not DEFAULTS.pooled
    assert DEFAULTS.retries is None


def test_options_are_inherited_and_mixed_in() -> None:
    class Base(Task):
        retries = 2

    class Mixin:
        timeout = 5

    class Derived(Mixin, Base):
        async def run(self) -> None: ...

    found = Derived._definition.options
    assert found is not None
    assert (found.retries, found.timeout) == (2, 5)
    assert Derived()._parameters == {}


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        *[("retries", wrong) for wrong in (-1, 1.5, True, "3")],
        *[("priority", wrong) for wrong in ("high", float("nan"), float("inf"), None, True)],
        *[("retry_delay", wrong) for wrong in (-1, "1 s", None)],
        *[("retry_on", wrong) for wrong in (3, (), (OSError, 3), [int], "OSError")],
        *[("timeout", wrong) for wrong in (-1, "1 s", float("nan"))],
        *[("resources", wrong) for wrong in ({"db": 0}, {"db": 1.5}, {"db": True}, {3: 1}, "db", ["db"])],
        *[("rate", wrong) for wrong in ({"api": 0}, ["api"], 3)],
        *[("hold", wrong) for wrong in ("gpu", ["gpu"])],
    ],
)
def test_a_wrong_option_is_told_when_the_class_is_made(name: str, wrong: Any) -> None:
    with pytest.raises(TaskDefinitionError, match=rf"^Some\.{name} is .*; expected "):
        options(**{name: wrong})


@pytest.mark.parametrize("name", ["retry_on", "retry_delay"])
def test_a_function_is_no_method_and_no_coroutine(name: str) -> None:
    async def coroutine(_: Any) -> bool:
        return True

    with pytest.raises(TaskDefinitionError, match=rf"^Some\.{name} takes other arguments; expected a plain function"):
        options(**{name: lambda self, argument: True})
    with pytest.raises(TaskDefinitionError, match=rf"^Some\.{name} is an `async def`; expected a plain function"):
        options(**{name: coroutine})


async def test_options_that_differ_from_task_to_task() -> None:
    seen = []

    class Weighted(Task):
        n: int

        @property
        def priority(self) -> int:  # type: ignore[override]
            return self.n

        async def run(self) -> None:
            seen.append(self.n)

    assert Weighted._definition.options is None
    assert await build([Weighted(n=n) for n in (3, 1, 2)], concurrency=1)
    assert seen == [3, 2, 1]


async def test_an_option_that_is_wrong_for_one_task_is_a_plan_error() -> None:
    class Wrong(Task):
        @property
        def timeout(self) -> Any:  # type: ignore[override]
            return "soon"

        async def run(self) -> None: ...

    class Raises(Wrong):
        @property
        def timeout(self) -> Any:  # type: ignore[override]
            raise OSError("no idea")

    with pytest.raises(PlanError, match=r"Wrong\(\)\.timeout is 'soon'; expected a number of seconds"):
        await build(Wrong())
    with pytest.raises(PlanError, match="OSError: no idea"):
        await build(Raises())


@given(st.floats(0, 1e6), st.integers(1, 2000), st.integers(0, 2**32))
def test_delays_double_up_to_an_hour_and_half_of_them_is_drawn(first: float, failures: int, seed: int) -> None:
    found = Options.__new__(Options)
    found.retry_delay = first
    delay = found.delay(failures, random.Random(seed).uniform)
    whole = min(first * 2.0 ** min(failures - 1, 64), max(LONGEST, first))
    assert whole / 2 <= delay <= whole


def test_delays_are_spread() -> None:
    found = options(retry_delay=1.0)
    draw = random.Random(1).uniform
    delays = [found.delay(1, draw) for _ in range(1000)]
    assert min(delays) < 0.51
    assert max(delays) > 0.99


@pytest.mark.parametrize("written", [lambda n: n * 10, staticmethod(lambda n: n * 10)])
def test_a_delay_of_ones_own(written: Any) -> None:
    assert options(retry_delay=written).delay(3, random.uniform) == 30
    assert options(retry_delay=lambda n: -1).delay(1, random.uniform) == 0


class Flaky(Exception):
    pass


@pytest.mark.parametrize(
    ("retry_on", "error", "again"),
    [
        (None, ValueError(), True),
        (None, TimeoutError(), True),
        (None, IncompleteOutput("no file"), False),
        (None, SystemExit(), False),
        (None, KeyboardInterrupt(), False),
        (Flaky, Flaky(), True),
        (Flaky, ValueError(), False),
        ((Flaky, OSError), FileNotFoundError(), True),
        ([Flaky], Flaky(), True),
        (IncompleteOutput, IncompleteOutput("no file"), True),
        (lambda error: "later" in str(error), Flaky("try later"), True),
        (staticmethod(lambda error: "later" in str(error)), Flaky("never"), False),
    ],
)
def test_what_is_worth_another_attempt(retry_on: Any, error: BaseException, again: bool) -> None:
    assert options(retries=1, retry_on=retry_on).retries_on(error) is again


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("10/s", (10, 1)),
        ("100/min", (100, 60)),
        ("5 / hour", (5, 3600)),
        ("3/10s", (3, 10)),
        ("1/0.5s", (1, 0.5)),
        ("2/days", (2, 86400)),
    ],
)
def test_rates(text: str, rate: tuple[int, float]) -> None:
    assert per_second(text, "here") == rate


@pytest.mark.parametrize("text", ["", "10", "10/", "0/s", "-1/s", "1/0s", "1.5/s", "10/fortnight", 10, None])
def test_what_is_no_rate(text: Any) -> None:
    with pytest.raises(ConfigError, match="^here: .* is not a rate; write"):
        per_second(text, "here")


async def test_options_change_nothing_of_what_a_task_is() -> None:
    class Plain(Task):
        n: int
        other: ClassVar[int] = 3

        async def run(self) -> None: ...

    before = Plain(n=1).task_id

    class Plain(Task):  # type: ignore[no-redef]
        n: int
        retries = 3
        timeout = 5
        priority = 7
        resources = {"db": 1}

        async def run(self) -> None: ...

    assert Plain(n=1).task_id == before
