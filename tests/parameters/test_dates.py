from __future__ import annotations

import datetime
from datetime import date
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncflow.parameters import (
    DateHourParameter,
    DateMinuteParameter,
    DateParameter,
    DateSecondParameter,
    DateTimeParameter,
    MonthParameter,
    Parameter,
)

MOMENT = datetime.datetime(2026, 1, 31, 18, 5, 59, 123456)
KINDS: list[tuple[Parameter[Any], object, str]] = [
    (DateParameter(), date(2026, 1, 31), "2026-01-31"),
    (MonthParameter(), date(2026, 1, 1), "2026-01"),
    (DateHourParameter(), datetime.datetime(2026, 1, 31, 18), "2026-01-31T18"),
    (DateMinuteParameter(), datetime.datetime(2026, 1, 31, 18, 5), "2026-01-31T1805"),
    (DateSecondParameter(), datetime.datetime(2026, 1, 31, 18, 5, 59), "2026-01-31T180559"),
    (DateTimeParameter(), MOMENT, "2026-01-31T18:05:59.123456"),
]
every_kind = pytest.mark.parametrize(("parameter", "floored", "text"), KINDS, ids=lambda x: type(x).__name__)


@every_kind
def test_a_moment_is_floored_to_the_unit_and_written_in_luigis_form(
    parameter: Parameter[object], floored: object, text: str
) -> None:
    normal = parameter.normalize(MOMENT)
    assert (normal, type(normal)) == (floored, type(floored))
    assert parameter.serialize(floored) == text
    assert parameter.parse(text) == floored


@every_kind
def test_every_value_round_trips(parameter: Parameter[object], floored: object, text: str) -> None:
    @given(st.datetimes() | st.dates())
    def check(value: object) -> None:
        normal = parameter.normalize(value)
        assert parameter.normalize(normal) == normal
        assert parameter.parse(parameter.serialize(normal)) == normal

    check()


@every_kind
def test_a_date_is_its_own_start(parameter: Parameter[object], floored: object, text: str) -> None:
    normal = parameter.normalize(date(2026, 1, 1))
    assert normal in (date(2026, 1, 1), datetime.datetime(2026, 1, 1))
    assert type(normal) is type(floored)


@every_kind
def test_time_zones_are_refused_with_a_way_out(parameter: Parameter[object], floored: object, text: str) -> None:
    with pytest.raises(ValueError, match=r"without time zone; convert it first, e\.g\. value\.astimezone"):
        parameter.normalize(MOMENT.replace(tzinfo=datetime.UTC))


@every_kind
@pytest.mark.parametrize("junk", ["2026-13-01", "", "yesterday"])
def test_junk_says_what_was_expected(parameter: Parameter[object], floored: object, text: str, junk: str) -> None:
    with pytest.raises(ValueError, match=r"^expected a.* 2026-01"):
        parameter.parse(junk)


@every_kind
@pytest.mark.parametrize("value", ["2026-01-31", 20260131, None])
def test_constructor_values_are_checked(
    parameter: Parameter[object], floored: object, text: str, value: object
) -> None:
    with pytest.raises(ValueError, match=r"^expected"):
        parameter.normalize(value)


def test_single_digits_are_read() -> None:
    assert DateParameter().parse("2013-7-1") == date(2013, 7, 1)


def test_early_years_keep_four_digits() -> None:
    assert DateParameter().serialize(date(9, 1, 2)) == "0009-01-02"


def test_luigis_old_minutes_are_read() -> None:
    assert DateMinuteParameter().parse("2026-01-31T18H05") == datetime.datetime(2026, 1, 31, 18, 5)


def test_what_does_not_show_in_the_text_does_not_stay_in_the_value() -> None:
    class Stamp(datetime.datetime):
        pass

    normal = DateTimeParameter().normalize(Stamp(2026, 1, 31, fold=1))
    assert (type(normal), normal.fold) == (datetime.datetime, 0)


def test_iso_text_with_a_time_zone_is_refused() -> None:
    with pytest.raises(ValueError, match=r"without time zone"):
        DateTimeParameter().parse("2026-01-31T00:00:00Z")
    assert DateTimeParameter().parse("2026-01-31") == datetime.datetime(2026, 1, 31)
