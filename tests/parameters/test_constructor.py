from __future__ import annotations

import datetime
import enum
from typing import Any

import pytest

from asyncflow.errors import ParameterError
from asyncflow.parameters import (
    MISSING,
    BoolParameter,
    ChoiceParameter,
    DictParameter,
    FloatParameter,
    IntParameter,
    ListParameter,
    Parameter,
    Visibility,
    param,
)

from .standin import Task


class Report(Task):
    date: datetime.date
    n: int = 3
    region: str = "eu"
    quiet: bool = param(default=False, significant=False)


DAY = datetime.date(2026, 1, 31)


def test_by_name_by_position_and_by_default() -> None:
    assert Report(date=DAY, n=4).n == 4
    task = Report(DAY, 4, region="us")
    assert (task.date, task.n, task.region, task.quiet) == (DAY, 4, "us", False)
    assert Report(DAY) == Report(date=DAY, n=3, region="eu")
    assert Report(date=DAY, n=MISSING).n == 3


def test_values_are_normalised() -> None:
    class T(Task):
        f = FloatParameter()
        l = ListParameter[Any]()  # noqa: E741
        d = DictParameter[str, Any]()

    task = T(f=1, l=[1, [2]], d={"a": [1]})
    assert (task.f, task.l, task.d) == (1.0, (1, (2,)), {"a": (1,)})
    assert type(task.f) is float


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"date": DAY, "n": "hi"}, r"^Report: n='hi' is not valid: expected an integer, e\.g\. 3$"),
        ({"date": DAY, "n": True}, r"^Report: n=True is not valid: expected an integer"),
        ({"date": "2026-01-31"}, r"^Report: date='2026-01-31' is not valid: expected a date as YYYY-MM-DD"),
        ({"date": DAY, "region": None}, r"^Report: region=None is not valid: expected a string$"),
        ({}, r"^Report: missing parameter 'date'; its parameters: date, n=3, region='eu', quiet=False$"),
        ({"dat": DAY}, r"^Report: no parameter 'dat' \(did you mean 'date'\?\); its parameters: date, n=3"),
        ({"date": DAY, "zzz": 1, "nn": 2}, r"^Report: no parameter 'zzz', 'nn' \(did you mean 'n'\?\); "),
    ],
)
def test_errors_say_what_where_and_what_instead(arguments: dict[str, Any], text: str) -> None:
    with pytest.raises(ParameterError, match=text):
        Report(**arguments)


def test_too_many_and_given_twice() -> None:
    with pytest.raises(
        ParameterError,
        match=r"^Report: takes at most 4 values by position \(date, n, region, quiet\), 5 were given$",
    ):
        Report(DAY, 1, "eu", False, 5)
    with pytest.raises(ParameterError, match=r"^Report: 'date' was given twice, by position and by name$"):
        Report(DAY, date=DAY)


def test_all_that_is_missing_is_named_at_once() -> None:
    class T(Task):
        a: int
        b: int = param(env="ASYNCFLOW_TEST_B")
        c: int = 3
        d: int

    with pytest.raises(
        ParameterError,
        match=r"^T: missing parameters 'b' \(or set the environment variable ASYNCFLOW_TEST_B\), 'd'; "
        r"its parameters: a, b, c=3, d$",
    ):
        T(a=1)


def test_a_task_without_parameters() -> None:
    class T(Task):
        pass

    assert T() == T()
    assert T()._key == ()  # type: ignore[attr-defined]
    with pytest.raises(ParameterError, match=r"^T: takes at most 0 values by position, 1 were given$"):
        T(1)
    with pytest.raises(ParameterError, match=r"^T: no parameter 'x'; it has no parameters$"):
        T(x=1)


def test_parameters_that_are_not_positional() -> None:
    class T(Task):
        a = IntParameter(positional=False)
        b = IntParameter()

    assert (T(1, a=2).b, T(1, a=2).a) == (1, 2)
    with pytest.raises(ParameterError, match=r"^T: takes at most 1 value by position \(b\), 2 were given$"):
        T(1, 2)


def test_names_that_python_uses_itself() -> None:
    class T(Task):
        self = IntParameter()
        cls = IntParameter()
        type = IntParameter(default=1)
        len = IntParameter(default=2)
        hash = IntParameter(default=3)
        construct = IntParameter(default=4)

    task = T(1, cls=2)
    assert (task.self, task.cls, task.type, task.len, task.hash, task.construct) == (1, 2, 1, 2, 3, 4)
    assert T(self=1, cls=2) == task


def test_many_parameters() -> None:
    body = {f"p{index}": IntParameter(default=index) for index in range(300)}
    cls: Any = type("T", (Task,), body)
    task = cls(*range(1, 299))
    assert (task.p0, task.p297, task.p298, task.p299) == (1, 298, 298, 299)


@pytest.mark.parametrize("visibility", [Visibility.HIDDEN, Visibility.PRIVATE])
def test_hidden_values_never_appear(visibility: Visibility) -> None:
    class Loud(Parameter[str]):
        def normalize(self, value: object) -> str:
            if value != "s3cret-default":
                raise ValueError(f"expected another token than {value}")
            return "s3cret-default"

    class T(Task):
        token = Loud(default="s3cret-default", visibility=visibility)
        bag = ListParameter(IntParameter(), default=[], visibility=visibility)
        n: int

    for arguments in ({"token": "s3cret", "n": 1}, {"n": 1, "bag": [1, "s3cret"]}, {}, {"tokn": "s3cret"}):
        with pytest.raises(ParameterError) as caught:
            T(**arguments)
        error: BaseException | None = caught.value
        assert "***" in str(error)
        while error is not None:
            assert "s3cret" not in str(error)
            error = error.__cause__ or error.__context__


def test_long_values_are_cut_and_broken_reprs_survive() -> None:
    class Broken:
        def __repr__(self) -> str:
            raise RuntimeError

    with pytest.raises(ParameterError) as caught:
        Report(date=DAY, n="x" * 1000)
    shown = str(caught.value).removeprefix("Report: n=").partition(" is not valid")[0]
    assert len(shown) == 80
    assert shown.endswith("…")
    with pytest.raises(ParameterError, match=r"n=<Broken object> is not valid"):
        Report(date=DAY, n=Broken())


def test_the_cause_of_a_refusal_is_kept() -> None:
    with pytest.raises(ParameterError) as caught:
        Report(date=DAY, n="hi")
    assert isinstance(caught.value.__cause__, ValueError)


def test_errors_of_a_kind_that_are_no_refusal_pass() -> None:
    class Buggy(IntParameter):
        def normalize(self, value: object) -> int:
            raise ZeroDivisionError

    class T(Task):
        n = Buggy()

    with pytest.raises(ZeroDivisionError):
        T(n=1)


# ------------------------------------------------------------------------------------------------ identity


def test_the_key_holds_the_significant_values_in_order() -> None:
    task: Any = Report(date=DAY, n=4, quiet=True)
    assert task._key == (DAY, 4, "eu")
    assert task._hash == hash((Report, (DAY, 4, "eu")))
    assert Report(date=DAY, quiet=True) == Report(date=DAY)
    assert hash(Report(date=DAY, quiet=True)) == hash(Report(date=DAY))
    assert Report(date=DAY, n=4) != Report(date=DAY)


def test_the_class_is_part_of_the_hash() -> None:
    class Other(Report):
        pass

    assert hash(Other(date=DAY)) != hash(Report(date=DAY))


def test_the_order_of_a_dict_is_not_part_of_the_key() -> None:
    class T(Task):
        d = DictParameter[str, Any]()

    assert T(d={"a": 1, "b": 2}) == T(d={"b": 2, "a": 1})
    assert hash(T(d={"a": 1, "b": 2})) == hash(T(d={"b": 2, "a": 1}))


@pytest.mark.parametrize("others", [([1], [True]), ([1], [1.0]), ([[0]], [[False]])])
def test_values_with_different_ids_are_different_tasks(others: tuple[object, object]) -> None:
    class T(Task):
        items = ListParameter[Any]()

    one, other = (T(items=value) for value in others)
    assert T.items.serialize(one.items) != T.items.serialize(other.items)
    assert one != other


def test_true_and_one_cannot_meet() -> None:
    class T(Task):
        flag = BoolParameter(parsing="explicit")
        level = ChoiceParameter(choices=[1, 2], var_type=int)

    with pytest.raises(ParameterError, match=r"flag=1 is not valid: expected true or false"):
        T(flag=1, level=1)
    with pytest.raises(ParameterError, match=r"level=True is not valid"):
        T(flag=True, level=True)


class Unhashable(Parameter[Any]):
    def parse(self, text: str) -> Any:
        return text.split(",")

    def serialize(self, value: Any) -> str:
        return ",".join(value)


def test_unhashable_values_are_explained() -> None:
    class T(Task):
        n: int
        items = Unhashable()

    with pytest.raises(
        ParameterError,
        match=r"^T: items=\['a'\] is not valid: expected a hashable value; let Unhashable\.normalize",
    ):
        T(n=1, items=["a"])


def test_unhashable_values_that_are_compared_by_text_or_not_at_all() -> None:
    class ByText(Unhashable):
        by_text = True

    class T(Task):
        items = ByText()
        rest = Unhashable(significant=False)

    assert T(items=["a"], rest=["b"]) == T(items=["a"], rest=["c"])
    assert T(items=["a"], rest=[]) != T(items=["b"], rest=[])


def test_members_of_an_enum_are_keys() -> None:
    class Color(enum.Enum):
        RED = 1

    T: Any = type("T", (Task,), {"__annotations__": {"c": Color}})
    assert T(c=Color.RED) == T(Color.RED)
