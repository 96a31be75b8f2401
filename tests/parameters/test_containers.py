from __future__ import annotations

import datetime
import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncflow.errors import TaskDefinitionError
from asyncflow.parameters import (
    DateParameter,
    DictParameter,
    FloatParameter,
    IntParameter,
    ListParameter,
    OptionalParameter,
    Parameter,
    StrParameter,
    TimeDeltaParameter,
    TupleParameter,
)

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
documents = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8)


@given(st.lists(documents))
def test_free_lists_round_trip_and_are_hashable(value: list[Any]) -> None:
    for parameter in (ListParameter[Any](), TupleParameter[Any]()):
        normal = parameter.normalize(value)
        hash(normal)
        assert type(normal) is tuple
        assert parameter.normalize(normal) == normal
        assert parameter.parse(parameter.serialize(normal)) == normal


@given(st.dictionaries(st.text(), documents), st.randoms())
def test_free_dicts_round_trip_whatever_their_order(value: dict[str, Any], random: Any) -> None:
    parameter = DictParameter[str, Any]()
    normal = parameter.normalize(value)
    pairs = list(value.items())
    random.shuffle(pairs)
    other = parameter.normalize(dict(pairs))
    assert normal == other
    assert hash(normal) == hash(other)
    assert parameter.serialize(normal) == parameter.serialize(other)
    assert parameter.parse(parameter.serialize(normal)) == normal


@given(st.lists(st.dates()), st.dictionaries(st.dates(), st.timedeltas()), st.tuples(st.integers(), st.dates()))
def test_elements_of_a_kind_round_trip(
    days: list[datetime.date],
    lengths: dict[datetime.date, datetime.timedelta],
    pair: tuple[int, datetime.date],
) -> None:
    cases: list[tuple[Parameter[Any], object]] = [
        (ListParameter(DateParameter()), days),
        (TupleParameter(OptionalParameter(DateParameter())), [None, *days]),
        (DictParameter(TimeDeltaParameter(), key=DateParameter()), lengths),
        (TupleParameter((IntParameter(), DateParameter())), pair),
        (ListParameter(ListParameter(DateParameter())), [days, days]),
        (DictParameter(ListParameter(DateParameter())), {"a": days}),
    ]
    for parameter, value in cases:
        normal = parameter.normalize(value)
        hash(normal)
        assert parameter.parse(parameter.serialize(normal)) == normal


def test_the_text_is_luigis_json() -> None:
    assert ListParameter[Any]().serialize((1, "two", (None,))) == '[1, "two", [null]]'
    assert DictParameter[str, Any]().serialize({"a": 1, "b": [True]}) == '{"a": 1, "b": [true]}'
    assert ListParameter(IntParameter()).serialize((1, 2)) == "[1, 2]"
    assert ListParameter(DateParameter()).serialize((datetime.date(2026, 1, 31),)) == '["2026-01-31"]'


def test_keys_are_sorted_so_that_equal_dicts_have_equal_ids() -> None:
    parameter = DictParameter[str, Any]()
    assert parameter.serialize(parameter.normalize({"b": {"d": 1, "c": 2}, "a": 1})) == (
        '{"a": 1, "b": {"c": 2, "d": 1}}'
    )


def test_python_tuples_are_read_as_in_luigi() -> None:
    assert TupleParameter[Any]().parse("((1, 2), (3, 4))") == ((1, 2), (3, 4))
    assert TupleParameter[Any]().parse("[[1, 2]]") == ((1, 2),)


@pytest.mark.parametrize("text", ["", "3", '"ab"', "'ab'", "{1, 2}", "f(x)", "null"])
def test_other_text_is_no_tuple(text: str) -> None:
    with pytest.raises(ValueError, match=r"^expected a tuple"):
        TupleParameter[Any]().parse(text)


@pytest.mark.parametrize("text", ["", "[1", '"ab"', "null", '{"a": 1}'])
def test_other_text_is_no_list(text: str) -> None:
    with pytest.raises(ValueError, match=r"^expected a list"):
        ListParameter[Any]().parse(text)


@pytest.mark.parametrize("text", ["", "[1]", "null"])
def test_other_text_is_no_dict(text: str) -> None:
    with pytest.raises(ValueError, match=r"^expected a dict"):
        DictParameter[str, Any]().parse(text)


@pytest.mark.parametrize("value", ["ab", b"ab", 3, None, {1}, {"a": 1}, iter([1])])
def test_other_values_are_no_list(value: object) -> None:
    with pytest.raises(ValueError, match=r"^expected a list"):
        ListParameter[Any]().normalize(value)


def test_elements_without_a_form_in_json_are_refused_with_a_way_out() -> None:
    with pytest.raises(ValueError, match=r"^at \[1\]: expected JSON values.* not date; .*ListParameter\(DateP"):
        ListParameter[Any]().normalize([1, datetime.date(2026, 1, 31)])
    with pytest.raises(ValueError, match=r"^at \[0\]: expected a number, not NaN"):
        ListParameter[Any]().normalize([math.nan])
    with pytest.raises(ValueError, match=r"^at \[0\]: .*not NaN"):
        ListParameter[Any]().parse("[NaN]")
    with pytest.raises(ValueError, match=r"^at \[0\]: expected JSON values.*not set"):
        ListParameter[Any]().normalize([{1}])
    with pytest.raises(ValueError, match=r"^at \['a'\]: expected string keys, got 1"):
        DictParameter[str, Any]().normalize({"a": {1: 2}})


def test_errors_name_the_element() -> None:
    with pytest.raises(ValueError, match=r"^at \[1\]: expected an integer, e\.g\. 3$"):
        ListParameter(IntParameter()).normalize([1, "x"])
    with pytest.raises(ValueError, match=r"^at \['a'\]\[2\]: expected an integer"):
        DictParameter(ListParameter(IntParameter())).normalize({"a": [1, 2, True]})
    with pytest.raises(ValueError, match=r"^at \['a'\]\[0\]: expected a date"):
        DictParameter(ListParameter(DateParameter())).parse('{"a": ["2026-13-01"]}')
    with pytest.raises(ValueError, match=r"^at \[3\]: expected a string"):
        DictParameter(IntParameter()).normalize({3: 3})
    with pytest.raises(ValueError, match=r"^at \[0\]: expected an integer"):
        ListParameter(IntParameter()).parse("[true]")


def test_elements_are_normalised() -> None:
    normal = ListParameter(FloatParameter()).normalize([1, 2])
    assert [type(item) for item in normal] == [float, float]


def test_a_shape_fixes_the_number() -> None:
    parameter = TupleParameter[Any]((IntParameter(), StrParameter()))
    assert parameter.normalize([1, "a"]) == (1, "a")
    for value in ([1], [1, "a", 2]):
        with pytest.raises(ValueError, match=r"^expected a tuple of 2"):
            parameter.normalize(value)
    assert TupleParameter(()).normalize([]) == ()


def test_keys_that_become_the_same_are_refused() -> None:
    day = datetime.date(2026, 1, 31)
    moment = datetime.datetime(2026, 1, 31, 12)
    with pytest.raises(ValueError, match=r"expected keys that differ"):
        DictParameter(IntParameter(), key=DateParameter()).normalize({day: 1, moment: 2})


def test_values_equal_in_python_and_different_in_json_are_compared_by_text() -> None:
    assert ListParameter[Any]().by_text
    assert DictParameter[str, Any]().by_text
    assert TupleParameter((IntParameter(), ListParameter[Any]())).by_text
    assert OptionalParameter(ListParameter[Any]()).by_text
    assert not ListParameter(IntParameter()).by_text
    assert not DictParameter(ListParameter(IntParameter())).by_text


@pytest.mark.parametrize(
    "make",
    [lambda: ListParameter([1]), lambda: TupleParameter([1]), lambda: DictParameter({"a": 1})],  # type: ignore
)
def test_a_default_in_the_place_of_the_kind_is_explained(make: Any) -> None:
    with pytest.raises(TaskDefinitionError, match=r"is no parameter.*default=\.\.\."):
        make()


def test_values_stay_usable_as_json() -> None:
    normal = DictParameter[str, Any]().normalize({"a": [1, {"b": 2}]})
    assert json.loads(json.dumps(normal)) == {"a": [1, {"b": 2}]}
