from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncflow.errors import TaskDefinitionError
from asyncflow.parameters import (
    MISSING,
    BoolParameter,
    IntParameter,
    OptionalBoolParameter,
    OptionalChoiceParameter,
    OptionalDateParameter,
    OptionalDictParameter,
    OptionalFloatParameter,
    OptionalIntParameter,
    OptionalListParameter,
    OptionalParameter,
    OptionalPathParameter,
    OptionalStrParameter,
    OptionalTupleParameter,
    Visibility,
)


@given(st.none() | st.text() | st.text('"'))
def test_optional_strings_round_trip(value: str | None) -> None:
    for parameter in (OptionalParameter[str](), OptionalStrParameter()):
        text = parameter.serialize(value)
        assert (text == "") == (value is None)
        assert parameter.parse(text) == parameter.normalize(value) == value


@pytest.mark.parametrize(
    ("parameter", "value", "text"),
    [
        (OptionalIntParameter(), 3, "3"),
        (OptionalFloatParameter(), 0.5, "0.5"),
        (OptionalBoolParameter(), False, "False"),
        (OptionalDateParameter(), datetime.date(2026, 1, 31), "2026-01-31"),
        (OptionalPathParameter(), Path("a"), "a"),
        (OptionalChoiceParameter(choices=[1, 2], var_type=int), 2, "2"),
        (OptionalListParameter(), (1, 2), "[1, 2]"),
        (OptionalTupleParameter(), (1, 2), "[1, 2]"),
        (OptionalDictParameter(), {"a": 1}, '{"a": 1}'),
        (OptionalParameter(OptionalStrParameter()), "x", "x"),
    ],
    ids=lambda x: type(x).__name__,
)
def test_each_kind_takes_none_and_its_own(parameter: OptionalParameter[Any], value: object, text: str) -> None:
    assert parameter.default is None
    assert parameter.serialize(value) == text
    assert parameter.parse(text) == parameter.normalize(value) == value
    assert parameter.serialize(None) == ""
    assert parameter.parse("") is parameter.normalize(None) is None
    assert parameter.from_json(parameter.to_json(value)) == value
    assert parameter.from_json(parameter.to_json(None)) is None
    with pytest.raises(ValueError, match=r"expected"):
        parameter.normalize(object())


def test_options_go_where_they_belong() -> None:
    parameter = OptionalBoolParameter(parsing="explicit", significant=False, visibility=Visibility.HIDDEN, help="h")
    assert isinstance(parameter.inner, BoolParameter)
    assert parameter.inner.parsing == "explicit"
    assert (parameter.significant, parameter.hidden, parameter.help) == (False, True, "h")
    with pytest.raises(TypeError, match=r"unexpected arguments parsing"):
        OptionalParameter(IntParameter(), parsing="explicit")
    with pytest.raises(TypeError):
        OptionalIntParameter(parsing="explicit")


def test_missing_makes_it_required() -> None:
    assert OptionalParameter(IntParameter(), default=MISSING).default is MISSING


def test_a_default_in_the_place_of_the_kind_is_explained() -> None:
    with pytest.raises(TaskDefinitionError, match=r"3 is no parameter; .*default=\.\.\."):
        OptionalParameter(3)  # type: ignore[arg-type]
