from __future__ import annotations

import contextvars
import datetime
from typing import Any

import pytest

from asyncflow.errors import ParameterError
from asyncflow.parameters import (
    IntParameter,
    OptionalIntParameter,
    Parameter,
    TaskParameter,
    Visibility,
    override,
    param,
    parse_value,
    resolve_default,
)

from .standin import Task, register

VARIABLE = "ASYNCFLOW_N"


class Report(Task):
    n: int = param(default=3, env=VARIABLE)
    name: str = "x"
    day: datetime.date = datetime.date(2026, 1, 1)


class Required(Task):
    n: int


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)


def test_argument_then_override_then_environment_then_default(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Report().n == 3
    monkeypatch.setenv(VARIABLE, "4")
    assert Report().n == 4
    with override({("Report", "n"): "5"}):
        assert Report().n == 5
        assert Report(n=6).n == 6
    assert Report().n == 4


def test_an_override_is_read_by_the_kind_and_only_for_its_task() -> None:
    with override({("Report", "day"): "2026-01-31", ("Other", "name"): "y"}):
        assert Report().day == datetime.date(2026, 1, 31)
        assert Report().name == "x"


def test_an_override_supplies_what_is_required() -> None:
    with override({("Required", "n"): "5"}):
        assert Required().n == 5
    with pytest.raises(ParameterError, match=r"Required: missing parameter 'n'"):
        Required()


def test_an_empty_override_is_a_value() -> None:
    with override({("Report", "name"): ""}):
        assert Report().name == ""


def test_overrides_nest_and_the_inner_one_wins() -> None:
    with override({("Report", "n"): "5", ("Report", "name"): "a"}):
        with override({("Report", "n"): "6"}):
            assert (Report().n, Report().name) == (6, "a")
        assert Report().n == 5
    assert Report().n == 3


def test_overrides_belong_to_their_context() -> None:
    outside = contextvars.copy_context()
    with override({("Report", "n"): "5"}):
        assert outside.run(lambda: Report().n) == 3
        assert contextvars.copy_context().run(lambda: Report().n) == 5


def test_an_override_ends_with_its_block_even_by_an_error() -> None:
    with pytest.raises(KeyError), override({("Report", "n"): "5"}):
        raise KeyError
    assert Report().n == 3


def test_a_bad_override_names_task_and_parameter() -> None:
    with (
        override({("Report", "day"): "2026-13-01"}),
        pytest.raises(ParameterError, match=r"^Report: day='2026-13-01' is not valid: expected a date as YYYY-MM-DD"),
    ):
        Report()


def test_a_bad_environment_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "four")
    with pytest.raises(
        ParameterError,
        match=rf"^Report: n='four' \(from the environment variable {VARIABLE}\) is not valid: expected",
    ):
        Report()


def test_a_bad_hidden_text_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    class T(Task):
        token = IntParameter(env=VARIABLE, visibility=Visibility.PRIVATE)

    monkeypatch.setenv(VARIABLE, "s3cret")
    with pytest.raises(ParameterError, match=r"token=\*\*\* \(from the environment") as caught:
        T()
    assert "s3cret" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


def test_resolve_default_alone() -> None:
    assert resolve_default(Report, Report.n) == 3  # type: ignore[arg-type]
    with pytest.raises(ParameterError, match=r"Required: missing parameter 'n'"):
        resolve_default(Required, Required.n)  # type: ignore[arg-type]


def test_parse_value_reads_and_checks() -> None:
    class Even(IntParameter):
        def normalize(self, value: object) -> int:
            number = super().normalize(value)
            if number % 2:
                raise ValueError("expected an even integer")
            return number

    even = Even()
    even.name = "n"
    assert parse_value(Report, even, "4") == 4
    with pytest.raises(ParameterError, match=r"Report: n='3' \(here\) is not valid: expected an even integer"):
        parse_value(Report, even, "3", "here")


def test_a_task_that_is_not_found_is_a_wrong_value(monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch, Report)

    class T(Task):
        kind = TaskParameter[Any]()

    with override({("T", "kind"): "Report"}):
        assert T().kind is Report
    with (
        override({("T", "kind"): "Reprt"}),
        pytest.raises(ParameterError, match=r"T: kind='Reprt' is not valid: no task named 'Reprt'"),
    ):
        T()


def test_empty_text_for_an_optional_is_none() -> None:
    class T(Task):
        n = OptionalIntParameter(default=3)
        name = Parameter(default="x")

    with override({("T", "n"): ""}):
        assert T().n is None
