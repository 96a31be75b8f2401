"""The tree of errors: what its documentation says is what the classes are."""

from __future__ import annotations

import copy
import pickle
import re
from typing import Any

import pytest

import asyncflow
from asyncflow import (
    AsyncflowError,
    BuildFailed,
    CycleError,
    MissingInput,
    ParameterError,
    PlanError,
    TargetStateUnknown,
    Task,
    TaskCancelled,
    TaskFailed,
    UpstreamFailed,
    build,
    errors,
)


class Failing(Task):
    n: int = 0

    async def run(self) -> None:
        raise ValueError(f"row {self.n}")


def _drawn() -> dict[str, tuple[str | None, str, str | None]]:
    """The tree at the top of the module: by class its base, its exit code and a built-in base."""
    assert errors.__doc__ is not None
    found: dict[str, tuple[str | None, str, str | None]] = {}
    above: list[str] = []
    for line in errors.__doc__.splitlines():
        match = re.fullmatch(
            r" {4}(?P<branch>[├└│─ ]*)(?P<name>[A-Z]\w+) +(?P<code>[\d*]) .*?(?:\(an? (?P<also>\w+)\))?", line
        )
        if match is None:
            continue
        depth = len(match["branch"]) // 4
        del above[depth:]
        found[match["name"]] = (above[-1] if above else None, match["code"], match["also"])
        above.append(match["name"])
    return found


DRAWN = _drawn()


def _classes() -> dict[str, Any]:
    return {
        name: item for name, item in vars(errors).items() if isinstance(item, type) and issubclass(item, AsyncflowError)
    }


def test_the_drawing_shows_every_class() -> None:
    assert DRAWN.keys() == _classes().keys() == set(errors.__all__)
    assert set(errors.__all__) <= set(asyncflow.__all__)


@pytest.mark.parametrize("name", DRAWN)
def test_the_drawing_is_true(name: str) -> None:
    base, code, also = DRAWN[name]
    cls = _classes()[name]
    ours = [item.__name__ for item in cls.__bases__ if issubclass(item, AsyncflowError)]
    others = [item.__name__ for item in cls.__bases__ if not issubclass(item, AsyncflowError)]
    assert ours == ([] if base is None else [base])
    assert others == (["Exception"] if base is None else [also] if also else [])
    if code != "*":
        assert cls.exit_code == int(code)
    assert cls.__doc__


def _group(*inner: Exception) -> BuildFailed:
    return BuildFailed("2 tasks failed", inner)


@pytest.mark.parametrize(
    ("inner", "code"),
    [
        ([TaskFailed(Failing(), "x")], 1),
        ([MissingInput("x")], 3),
        ([TargetStateUnknown("x")], 4),
        ([MissingInput("x"), TargetStateUnknown("x")], 4),
        ([MissingInput("x"), TargetStateUnknown("x"), TaskFailed(Failing(), "x")], 1),
        ([ValueError("x")], 1),
    ],
)
def test_the_exit_code_of_a_failed_build_is_the_worst_inside(inner: list[Exception], code: int) -> None:
    assert _group(*inner).exit_code == code


def test_a_failed_build_is_an_exception_group() -> None:
    group = _group(TaskFailed(Failing(), "x"), MissingInput("y"))
    assert isinstance(group, ExceptionGroup)
    failed, rest = group.split(TaskFailed)
    assert isinstance(failed, BuildFailed)
    assert isinstance(rest, BuildFailed)
    assert (failed.exit_code, rest.exit_code) == (1, 3)
    caught = []
    try:
        raise group
    except* MissingInput as part:
        caught += part.exceptions
    except* TaskFailed as part:
        caught += part.exceptions
    assert len(caught) == 2


@pytest.mark.parametrize(
    "error",
    [
        AsyncflowError("x"),
        ParameterError("x"),
        PlanError("x"),
        PlanError("x", [ValueError("y")]),
        CycleError([Failing(n=1), Failing(n=2), Failing(n=1)]),
        TaskFailed(Failing(n=1), "x"),
        UpstreamFailed(Failing(n=1), "x"),
        TaskCancelled(Failing(n=1)),
        _group(TaskFailed(Failing(n=1), "x"), MissingInput("y")),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_travel(error: Any) -> None:
    """Through a process pool, a queue, a log handler: with their attributes."""
    error.add_note("and 3 others")
    for clone in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
        assert clone.__notes__ == error.__notes__
        assert type(clone) is type(error)
        assert str(clone) == str(error)
        for name in ("task", "path", "exit_code"):
            assert getattr(clone, name, None) == getattr(error, name, None)
        for name in ("problems", "exceptions"):
            assert repr(getattr(clone, name, None)) == repr(getattr(error, name, None))


def test_a_plan_error_lists_its_problems() -> None:
    one, two = PlanError("first"), PlanError("second")
    assert PlanError.of([one]) is one
    both = PlanError.of([one, two])
    assert both.problems == (one, two)
    assert str(both) == "2 problems in the graph; nothing was executed\nfirst\nsecond"
    cause = ValueError("why")
    single = PlanError.of([cause])
    assert str(single) == "why"
    assert single.__cause__ is cause
    assert str(PlanError.of([KeyError(), two])).splitlines()[1] == "KeyError"


def test_a_cycle_says_what_to_do() -> None:
    error = CycleError([Failing(n=1), Failing(n=2), Failing(n=1)])
    assert str(error) == (
        "these tasks wait for each other: Failing(n=1) -> Failing(n=2) -> Failing(n=1); remove one of the dependencies"
    )


async def test_a_task_that_failed_has_its_task_and_its_cause() -> None:
    with pytest.raises(TaskFailed, match=r"Failing\(n=3\) failed: ValueError: row 3") as caught:
        await Failing(n=3)
    assert caught.value.task == Failing(n=3)
    assert isinstance(caught.value.__cause__, ValueError)
    with pytest.raises(BuildFailed) as group:
        (await build([Failing(n=1), Failing(n=2)])).raise_for_failure()
    assert [error.task for error in group.value.exceptions] == [Failing(n=1), Failing(n=2)]  # type: ignore[attr-defined]
    assert group.value.exit_code == 1
