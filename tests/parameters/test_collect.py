from __future__ import annotations

from typing import Any

import pytest

from asyncflow.errors import TaskDefinitionError
from asyncflow.parameters import (
    MISSING,
    DateParameter,
    DictParameter,
    IntParameter,
    ListParameter,
    Parameter,
    StrParameter,
    param,
    parameters_of,
)

from .standin import Task


def names(cls: type) -> list[str]:
    return list(parameters_of(cls))


class Base(Task):
    a: int
    b: str = "b"


def test_bases_come_first_and_a_redeclared_parameter_keeps_its_place() -> None:
    class Sub(Base):
        c = IntParameter(default=3)
        a: float  # type: ignore[assignment]

    assert names(Sub) == ["a", "b", "c"]
    assert Sub(a=1, b="x").a == 1.0
    assert type(Sub(a=1).a) is float


def test_the_order_of_the_body_in_both_spellings() -> None:
    class T(Task):
        a: int
        b = IntParameter()
        c: int = 3
        d: str
        e = IntParameter()

    assert names(T) == ["a", "b", "c", "d", "e"]

    class U(Task):
        b = IntParameter()
        c: int = 1
        a: str = "x"
        d = Parameter()

    assert names(U) == ["b", "c", "a", "d"]


def test_the_order_stays_when_the_class_is_inherited() -> None:
    class T(Task):
        z: int
        y = IntParameter()
        x: int = 3
        w: int

    class U(T):
        v: int = 0

    assert names(T) == ["z", "y", "x", "w"]
    assert names(U) == ["z", "y", "x", "w", "v"]


def test_a_plain_assignment_gives_another_default() -> None:
    class Sub(Base):
        a = 5
        b = "c"

    class SubSub(Sub):
        a = 6

    assert (Sub().a, Sub().b, SubSub().a, SubSub().b) == (5, "c", 6, "c")
    assert isinstance(Sub.a, IntParameter)
    assert Base.a.default is MISSING  # type: ignore[attr-defined]
    with pytest.raises(TaskDefinitionError, match=r"^Bad\.a: default='x' is not valid: expected an integer"):
        type("Bad", (Base,), {"a": "x"})


def test_an_inherited_parameter_can_be_given_options() -> None:
    class Sub(Base):
        b = param(help="h")

    assert (Sub.b.help, Sub.b.default) == ("h", "b")


def test_a_type_declared_again_keeps_a_default_that_fits() -> None:
    class Sub(Base):
        b: str | None  # type: ignore[assignment]

    assert Sub(a=1).b == "b"
    with pytest.raises(TaskDefinitionError, match=r"^Bad\.b: default='b' is not valid: expected an integer"):
        type("Bad", (Base,), {"__annotations__": {"b": int}})


def test_defaults_are_frozen() -> None:
    shared = [1, [2]]

    class T(Task):
        items = ListParameter[Any](default=shared)
        table: dict[str, int] = {"a": 1}

    shared.append(3)
    assert T().items == (1, (2,))
    assert hash(T()) == hash(T())
    with pytest.raises(TypeError, match=r"cannot be changed"):
        T().table["a"] = 2


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({"n": IntParameter(default="x")}, r"T\.n: default='x' is not valid: expected an integer, e\.g\. 3"),  # type: ignore
        ({"n": Parameter(default=None)}, r"T\.n: default=None .*expected a string; to allow None, .*\| None"),
        ({"n": IntParameter(default=1, compat_default="x")}, r"T\.n: compat_default='x' is not valid"),
        ({"n": ListParameter(IntParameter(), default=[1, "x"])}, r"T\.n: .* at \[1\]: expected an integer"),  # type: ignore
        ({"n": DictParameter(default=3)}, r"T\.n: default=3 is not valid: expected a dict"),  # type: ignore
        ({"n": DateParameter}, r"T\.n: write DateParameter\(\) with parentheses"),
        ({"n": param(default=3)}, r"T\.n: param\(\) needs an annotation, e\.g\. n: int = param"),
        ({"_n": IntParameter()}, r"T\._n: a parameter's name has to be a Python name"),
        ({"not one": IntParameter()}, r"T\.not one: a parameter's name"),
        ({"class": IntParameter()}, r"T\.class: a parameter's name"),
        ({"retries": IntParameter()}, r"T\.retries: drop the annotation"),
        ({"retries": 3, "__annotations__": {"retries": int}}, r"T\.retries: drop the annotation"),
        ({"retries": 3, "__annotations__": {"retries": "Unknown"}}, r"T\.retries: drop the annotation"),
        ({"n": 1, "__annotations__": {"n": str}}, r"T\.n: default=1 is not valid: expected a string"),
        (
            {"n": IntParameter, "__annotations__": {"n": int}},
            r"T\.n: write IntParameter\(\) with parentheses",
        ),
    ],
)
def test_classes_that_cannot_work(body: dict[str, Any], text: str) -> None:
    with pytest.raises(TaskDefinitionError, match=rf"^{text}"):
        type("T", (Task,), body)


def test_a_hidden_default_is_not_shown() -> None:
    class Token(Parameter[str]):
        def normalize(self, value: object) -> str:
            raise ValueError(f"{value} is too short")

    with pytest.raises(TaskDefinitionError, match=r"T\.t: default=\*\*\* is not valid: expected a string") as caught:
        type("T", (Task,), {"t": Token(default="s3cret", visibility=2)})
    assert "s3cret" not in str(caught.value)


def test_class_attributes_that_are_no_parameters() -> None:
    class T(Task):
        retries = 3
        n: int = 1

        class Kind(IntParameter):
            pass

        def method(self) -> None: ...

    assert names(T) == ["n"]
    assert T.retries == 3


def test_mixins_count_and_stay_as_they_are() -> None:
    class Dated:
        day = DateParameter()
        label: str = "x"

    class Defaults:
        n = 7

    class T(Dated, Task):
        n: int = 1

    class U(Defaults, T):
        pass

    assert names(T) == ["day", "label", "n"]
    assert isinstance(T.label, StrParameter)
    assert Dated.label == "x"
    assert U.n.default == 7
    import datetime

    assert U(day=datetime.date(2026, 1, 31)).n == 7


def test_a_mixins_default_is_checked() -> None:
    class Wrong:
        n = IntParameter(default="x")  # type: ignore[arg-type]

    with pytest.raises(TaskDefinitionError, match=r"^T\.n: default='x'"):
        type("T", (Wrong, Task), {})


def test_diamonds_follow_the_mro() -> None:
    class Left(Base):
        pass

    class Right(Base):
        b = "right"

    class Both(Left, Right):
        pass

    assert Both(a=1).b == "right"
    assert names(Both) == ["a", "b"]


def test_one_parameter_under_two_names() -> None:
    class T(Task):
        x = y = IntParameter()

    assert names(T) == ["x", "y"]
    assert (T(x=1, y=2).x, T(x=1, y=2).y) == (1, 2)
    assert (T.x.name, T.y.name) == ("x", "y")
