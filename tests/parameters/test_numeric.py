from __future__ import annotations

import enum
import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncflow.errors import TaskDefinitionError
from asyncflow.parameters import MISSING, BoolParameter, FloatParameter, IntParameter


class Level(enum.IntEnum):
    HIGH = 3


@given(st.integers())
def test_integers_round_trip(value: int) -> None:
    parameter = IntParameter()
    assert parameter.serialize(value) == str(value)
    assert parameter.parse(parameter.serialize(value)) == parameter.normalize(value) == value


@pytest.mark.parametrize("value", ["hi", "3", True, 3.0, None, [3]])
def test_an_integer_is_nothing_else(value: object) -> None:
    with pytest.raises(ValueError, match=r"^expected an integer, e\.g\. 3$"):
        IntParameter().normalize(value)


def test_an_int_subclass_becomes_a_plain_int() -> None:
    assert type(IntParameter().normalize(Level.HIGH)) is int


def test_integer_text() -> None:
    assert IntParameter().parse(" -3 ") == -3
    for text in ("", "three", "3.5"):
        with pytest.raises(ValueError, match=r"expected an integer"):
            IntParameter().parse(text)


@given(st.floats(allow_nan=False) | st.integers(min_value=-(10**300), max_value=10**300))
def test_floats_round_trip(value: float) -> None:
    parameter = FloatParameter()
    normal = parameter.normalize(value)
    assert type(normal) is float
    assert parameter.parse(parameter.serialize(normal)) == normal


def test_floats_that_are_equal_have_one_text() -> None:
    parameter = FloatParameter()
    assert parameter.serialize(parameter.normalize(-0.0)) == parameter.serialize(parameter.normalize(0.0)) == "0.0"
    assert parameter.serialize(parameter.parse("-0.0")) == "0.0"
    assert parameter.serialize(parameter.normalize(1)) == "1.0"
    assert parameter.normalize(Fraction(1, 2)) == 0.5


@pytest.mark.parametrize("value", ["0.5", True, None, 1j])
def test_a_float_is_nothing_else(value: object) -> None:
    with pytest.raises(ValueError, match=r"expected a number"):
        FloatParameter().normalize(value)


def test_nan_is_refused_with_the_reason() -> None:
    with pytest.raises(ValueError, match=r"not NaN: it is not equal to itself"):
        FloatParameter().normalize(math.nan)
    with pytest.raises(ValueError, match=r"not NaN: it is not equal to itself"):
        FloatParameter().parse("nan")


def test_an_integer_too_large_for_a_float_is_refused() -> None:
    with pytest.raises(ValueError, match=r"too large for a float"):
        FloatParameter().normalize(10**400)


def test_float_text() -> None:
    assert FloatParameter().parse("inf") == math.inf
    with pytest.raises(ValueError, match=r"expected a number"):
        FloatParameter().parse("a")


@pytest.mark.parametrize(("value", "text"), [(True, "True"), (False, "False")])
def test_booleans_are_written_as_in_luigi(value: bool, text: str) -> None:
    assert BoolParameter().serialize(value) == text
    assert BoolParameter().parse(text) is value
    assert BoolParameter().parse(text.upper()) is value
    assert BoolParameter().normalize(value) is value


@pytest.mark.parametrize("text", ["1", "yes", "", "junk"])
def test_other_text_is_no_boolean(text: str) -> None:
    with pytest.raises(ValueError, match=r"^expected true or false$"):
        BoolParameter().parse(text)


@pytest.mark.parametrize("value", [1, 0, "true", None])
def test_other_values_are_no_boolean(value: object) -> None:
    with pytest.raises(ValueError, match=r"^expected true or false$"):
        BoolParameter().normalize(value)


def test_a_flag_defaults_to_false_unless_parsed_explicitly() -> None:
    assert BoolParameter().default is False
    assert BoolParameter(default=True).default is True
    assert BoolParameter(parsing=BoolParameter.EXPLICIT_PARSING).default is MISSING
    with pytest.raises(TaskDefinitionError, match=r"'implicit' or 'explicit'"):
        BoolParameter(parsing="other")
