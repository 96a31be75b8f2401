from __future__ import annotations

import collections.abc
import datetime
import enum
import pathlib
import typing
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, NewType, Optional

import pytest

from asyncflow.errors import TaskDefinitionError
from asyncflow.parameters import (
    MISSING,
    BoolParameter,
    ChoiceParameter,
    DateParameter,
    DateTimeParameter,
    DictParameter,
    EnumParameter,
    FloatParameter,
    IntParameter,
    ListParameter,
    OptionalParameter,
    Parameter,
    PathParameter,
    StrParameter,
    TaskInstanceParameter,
    TaskParameter,
    TimeDeltaParameter,
    TupleParameter,
    param,
)

from .standin import Task

if TYPE_CHECKING:
    from decimal import Decimal


class Color(enum.Enum):
    RED = 1


class Part(Task):
    n: int


UserId = NewType("UserId", int)

GOOD: list[tuple[Any, type, str, object]] = [
    (str, StrParameter, "a", "a"),
    (int, IntParameter, "3", 3),
    (float, FloatParameter, "0.5", 0.5),
    (bool, BoolParameter, "true", True),
    (datetime.date, DateParameter, "2026-01-31", datetime.date(2026, 1, 31)),
    (datetime.datetime, DateTimeParameter, "2026-01-31T12:00:00", datetime.datetime(2026, 1, 31, 12)),
    (datetime.timedelta, TimeDeltaParameter, "90", datetime.timedelta(seconds=90)),
    (pathlib.Path, PathParameter, "a/b", pathlib.Path("a/b")),
    (Color, EnumParameter, "RED", Color.RED),
    (Literal["eu", "us"], ChoiceParameter, "us", "us"),
    (Literal[1, 2], ChoiceParameter, "2", 2),
    (Literal[True], ChoiceParameter, "true", True),
    (Literal["a", None], OptionalParameter, "", None),
    (list, ListParameter, '[1, "a"]', (1, "a")),
    (list[int], ListParameter, "[1, 2]", (1, 2)),
    (typing.List[int], ListParameter, "[1, 2]", (1, 2)),  # noqa: UP006
    (Sequence[datetime.date], ListParameter, '["2026-01-31"]', (datetime.date(2026, 1, 31),)),
    (collections.abc.Sequence, ListParameter, "[1]", (1,)),
    (tuple, TupleParameter, '[1, "a"]', (1, "a")),
    (tuple[int, ...], TupleParameter, "[1, 2, 3]", (1, 2, 3)),
    (tuple[int, str], TupleParameter, '[1, "a"]', (1, "a")),
    (tuple[()], TupleParameter, "[]", ()),
    (dict, DictParameter, '{"a": [1]}', {"a": (1,)}),
    (dict[str, int], DictParameter, '{"a": 1}', {"a": 1}),
    (dict[int, float], DictParameter, '{"1": 1}', {1: 1.0}),
    (Mapping[str, list[int]], DictParameter, '{"a": [1]}', {"a": (1,)}),
    (int | None, OptionalParameter, "", None),
    (int | None, OptionalParameter, "3", 3),
    (Optional[datetime.date], OptionalParameter, "2026-01-31", datetime.date(2026, 1, 31)),  # noqa: UP045
    (list[int | None], ListParameter, "[1, null]", (1, None)),
    (UserId, IntParameter, "3", 3),
    (Annotated[int, "a note of others"], IntParameter, "3", 3),
    (Annotated[Any, DateParameter()], DateParameter, "2026-01-31", datetime.date(2026, 1, 31)),
    (Annotated[int, param(help="h")] | None, OptionalParameter, "3", 3),
]


def make(annotation: object, **body: object) -> Any:
    return type("T", (Task,), {"__annotations__": {"x": annotation}, "__module__": __name__, **body})


@pytest.mark.parametrize(("annotation", "kind", "text", "value"), GOOD, ids=str)
def test_what_an_annotation_declares(annotation: Any, kind: type, text: str, value: object) -> None:
    parameter = make(annotation).x
    assert type(parameter).__name__ == kind.__name__
    assert parameter.name == "x"
    assert parameter.default is MISSING
    read = parameter.parse(text)
    assert read == value
    assert type(read) is type(value) or isinstance(read, dict)
    assert parameter.normalize(read) == value


def test_task_annotations() -> None:
    assert type(make(Part).x) is TaskInstanceParameter
    assert make(Part)(x=Part(n=1)).x == Part(n=1)
    assert type(make(type[Part]).x) is TaskParameter
    assert make(type[Part]).x.base is Part
    assert type(make(type[Task]).x) is TaskParameter


BAD: list[tuple[Any, str]] = [
    (object, "no parameter for the annotation object; write one of str, int"),
    (Any, r"no parameter for the annotation (typing\.)?Any; write one of"),
    (set[int], r"no parameter for the annotation set\[int\]"),
    (list[object], r"no parameter for the annotation list\[object\] \(object\)"),
    (int | str, r"int \| str \(a union may only be of one kind and None"),
    (None, "no parameter for the annotation NoneType"),
    (Literal[1, "a"], "all str, all int or all bool"),
    (Literal[1, True], "all str, all int or all bool"),
    (Literal[Color.RED], "all str, all int or all bool"),
    (type, r"of classes only tasks can be values: type\[Task\]"),
    (type[int], "of classes only tasks can be values"),
    (IntParameter, r"a parameter is a value, not an annotation: name = IntParameter\(\)"),
    (Annotated[int, IntParameter], r"IntParameter\(\) with parentheses inside Annotated"),
    (enum.Enum, "expected an Enum class with members"),
]


@pytest.mark.parametrize(("annotation", "reason"), BAD, ids=str)
def test_what_no_parameter_stands_for(annotation: Any, reason: str) -> None:
    with pytest.raises(TaskDefinitionError, match=rf"^T\.x: .*{reason}"):
        make(annotation)


def test_annotations_that_are_strings() -> None:
    class T(Task):
        day: datetime.date
        part: Part | None = None
        parts: list["Part"] = []  # noqa: UP037
        region: Literal["eu", "us"] = "eu"

    assert [type(getattr(T, name)) for name in ("day", "part", "parts", "region")] == [
        DateParameter,
        OptionalParameter,
        ListParameter,
        ChoiceParameter,
    ]
    parts: object = T(day=datetime.date(2026, 1, 31), parts=[Part(n=1)]).parts
    assert parts == (Part(n=1),)


def test_strings_inside_of_real_annotations() -> None:
    assert make(list["Part"]).x.normalize([Part(n=1)]) == (Part(n=1),)


def test_a_task_may_mention_itself_and_what_its_body_defines() -> None:
    class T(Task):
        class Side(enum.Enum):
            LEFT = 1

        side: Side
        previous: T | None = None

    assert T(side=T.Side.LEFT, previous=T(side=T.Side.LEFT)).previous == T(side=T.Side.LEFT)


def test_a_parameter_does_not_hide_the_type_of_its_name() -> None:
    assert make("datetime.date", datetime=IntParameter(default=3)).x.parse("2026-01-31")


@pytest.mark.parametrize("annotation", ["Decimal", "list[Decimal]", "int +", "Missing.Name"])
def test_annotations_that_cannot_be_resolved(annotation: str) -> None:
    with pytest.raises(
        TaskDefinitionError, match=r"^T\.x: the annotation .* cannot be resolved in module .*TYPE_CHECK"
    ):
        make(annotation)


def test_class_variables_and_private_names_are_no_parameters() -> None:
    class T(Task):
        shared: ClassVar[object] = 1
        plain: ClassVar = 2
        spelled: typing.ClassVar[Decimal]
        _private: object
        __very: object

    assert T()._key == ()  # type: ignore[attr-defined]
    real = make(ClassVar[int])
    assert real()._key == ()


def test_annotated_options_and_kinds() -> None:
    class T(Task):
        quiet: Annotated[bool, param(significant=False, help="h")] = False
        day: Annotated[datetime.datetime, DateParameter(help="d")] = datetime.datetime(2026, 1, 31, 5)
        both: Annotated[int, param(help="one")] = param(default=3, significant=False)

    assert (T.quiet.significant, T.quiet.help, T.quiet.default) == (False, "h", False)  # type: ignore
    assert type(T.day) is DateParameter  # type: ignore[comparison-overlap]
    assert T().day == datetime.date(2026, 1, 31)
    assert (T.both.help, T.both.significant, T.both.default) == ("one", False, 3)


def test_a_shared_annotation_is_not_shared_state() -> None:
    Shared = Annotated[int, IntParameter(default=1)]

    one, other = make(Shared), type("U", (Task,), {"__annotations__": {"y": Shared}, "y": 2})
    assert (one.x.name, one.x.default) == ("x", 1)
    assert (other.y.name, other.y.default) == ("y", 2)  # type: ignore[attr-defined]


def test_a_parameter_as_value_decides() -> None:
    class T(Task):
        n: object = IntParameter(default=3)

    assert isinstance(T.n, IntParameter)
    assert T().n == 3
    assert isinstance(T.n, Parameter)
