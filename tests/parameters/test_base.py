from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncflow.errors import TaskDefinitionError
from asyncflow.parameters import MISSING, IntParameter, Parameter, StrParameter, Visibility

from .standin import Task


def test_missing_is_one_object_everywhere() -> None:
    assert repr(MISSING) == "MISSING"
    assert copy.deepcopy(MISSING) is MISSING
    assert pickle.loads(pickle.dumps(MISSING)) is MISSING


@given(st.text())
def test_strings_are_their_own_text(value: str) -> None:
    for parameter in (Parameter(), StrParameter()):
        assert parameter.serialize(value) == value
        assert parameter.parse(parameter.serialize(value)) == value
        assert parameter.normalize(value) == value


@pytest.mark.parametrize("value", [3, None, b"x", ["x"]])
def test_a_string_parameter_takes_only_strings(value: object) -> None:
    with pytest.raises(ValueError, match=r"^expected a string$"):
        Parameter().normalize(value)


def test_a_str_subclass_becomes_a_plain_string() -> None:
    class Shout(str):
        def __str__(self) -> str:
            return self.upper()

    normal = StrParameter().normalize(Shout("a"))
    assert type(normal) is str
    assert normal == "a"


def test_visibility_has_luigis_numbers_and_refuses_others() -> None:
    assert [v.value for v in (Visibility.PUBLIC, Visibility.HIDDEN, Visibility.PRIVATE)] == [0, 1, 2]
    assert Parameter(visibility=2).visibility is Visibility.PRIVATE
    with pytest.raises(TaskDefinitionError, match=r"visibility=7: expected Visibility\.PUBLIC"):
        Parameter(visibility=7)


@pytest.mark.parametrize("env", ["", "A=B", 3])
def test_env_has_to_be_a_name(env: Any) -> None:
    with pytest.raises(TaskDefinitionError, match=r"name of an environment variable"):
        Parameter(env=env)


def test_description_is_help() -> None:
    assert Parameter(description="d").help == "d"
    assert Parameter(help="h").help == "h"


def test_counters_rise_in_order_of_creation() -> None:
    first, second = Parameter(), IntParameter()
    assert first.counter < second.counter


def test_replace_leaves_the_original_alone() -> None:
    original = IntParameter(default=1)
    changed = original.replace(default=2)
    assert (original.default, changed.default, type(changed)) == (1, 2, IntParameter)


def test_repr_hides_the_default_of_hidden_parameters() -> None:
    assert repr(IntParameter(default=3)) == "IntParameter(default=3)"
    assert repr(IntParameter()) == "IntParameter()"
    assert "s3cret" not in repr(Parameter(default="s3cret", visibility=Visibility.PRIVATE))


def test_the_class_has_the_parameter_and_the_instance_the_value() -> None:
    class T(Task):
        n = IntParameter()

    assert isinstance(T.n, IntParameter)
    assert T.n.name == "n"
    assert T(n=3).n == 3


def test_reading_a_value_before_the_constructor_ran_says_so() -> None:
    class T(Task):
        n = IntParameter()

        def __init__(self) -> None:
            self.n  # noqa: B018

    with pytest.raises(AttributeError, match=r"T\.n has no value yet"):
        T()


class Point:
    def __init__(self, x: int, y: int) -> None:
        self.pair = (x, y)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Point) and self.pair == other.pair

    def __hash__(self) -> int:
        return hash(self.pair)


class PointParameter(Parameter[Point]):
    def parse(self, text: str) -> Point:
        x, y = text.split("/")
        return Point(int(x), int(y))

    def serialize(self, value: Point) -> str:
        return "{}/{}".format(*value.pair)


def test_a_kind_of_ones_own_needs_only_parse_and_serialize() -> None:
    class T(Task):
        at = PointParameter()

    assert T(at=Point(1, 2)).at == Point(1, 2)
    assert T(at=Point(1, 2)) == T(at=Point(1, 2))
    assert PointParameter().from_json(PointParameter().to_json(Point(1, 2))) == Point(1, 2)
    assert PointParameter().to_json(Point(1, 2)) == "1/2"
    assert PointParameter.expected == "a value that PointParameter accepts"


def test_the_check_of_a_subclass_is_not_bypassed() -> None:
    class Positive(IntParameter):
        def normalize(self, value: object) -> int:
            number = super().normalize(value)
            if number <= 0:
                raise ValueError("expected a positive integer")
            return number

    class T(Task):
        n = Positive()

    assert T(n=1).n == 1
    with pytest.raises(ValueError, match=r"T: n=-1 is not valid: expected a positive integer"):
        T(n=-1)


def test_a_subclass_that_writes_its_own_text_is_not_taken_for_json() -> None:
    class Hex(IntParameter):
        def parse(self, text: str) -> int:
            return int(text, 16)

        def serialize(self, value: int) -> str:
            return hex(value)

    assert Hex().to_json(255) == "0xff"
    assert Hex().from_json("0xff") == 255
    with pytest.raises(ValueError, match=r"expected"):
        Hex().from_json(255)
