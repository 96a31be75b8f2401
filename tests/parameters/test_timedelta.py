from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncflow.parameters import TimeDeltaParameter


@given(st.timedeltas())
def test_every_length_round_trips(value: timedelta) -> None:
    parameter = TimeDeltaParameter()
    assert parameter.parse(parameter.serialize(value)) == parameter.normalize(value) == value


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (timedelta(weeks=1, days=2, hours=3, minutes=4, seconds=5), "1 w 2 d 3 h 4 m 5 s"),
        (timedelta(0), "0 w 0 d 0 h 0 m 0 s"),
        (timedelta(seconds=1, microseconds=500), "0 w 0 d 0 h 0 m 1.000500 s"),
        (timedelta(seconds=-1), "-1 w 6 d 23 h 59 m 59 s"),
    ],
)
def test_the_form_is_luigis(value: timedelta, text: str) -> None:
    assert TimeDeltaParameter().serialize(value) == text
    assert TimeDeltaParameter().parse(text) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("90", timedelta(seconds=90)),
        ("0.5", timedelta(seconds=0.5)),
        ("-5", timedelta(seconds=-5)),
        ("P2W", timedelta(weeks=2)),
        ("P1DT2H3M4S", timedelta(days=1, hours=2, minutes=3, seconds=4)),
        ("PT1M", timedelta(minutes=1)),
        ("PT0.25S", timedelta(seconds=0.25)),
        ("1 week 2 days", timedelta(weeks=1, days=2)),
        ("3 hours 1 minute 2 seconds", timedelta(hours=3, minutes=1, seconds=2)),
        ("5h30m", timedelta(hours=5, minutes=30)),
    ],
)
def test_the_forms_that_are_read(text: str, value: timedelta) -> None:
    assert TimeDeltaParameter().parse(text) == value


@pytest.mark.parametrize("text", ["", "P", "PT", "P1DT", "5 m 1 h", "nan", "inf", "soon", "1 fortnight", "9e99"])
def test_other_text_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected a length of time"):
        TimeDeltaParameter().parse(text)


@pytest.mark.parametrize("value", [90, "90", None])
def test_a_number_has_no_unit(value: object) -> None:
    with pytest.raises(ValueError, match=r"expected a length of time"):
        TimeDeltaParameter().normalize(value)


def test_a_subclass_becomes_a_plain_timedelta() -> None:
    class Delta(timedelta):
        pass

    assert type(TimeDeltaParameter().normalize(Delta(3))) is timedelta
