"""Days, months and moments. All without a time zone: a task's id must not depend on where it is read."""

from __future__ import annotations

import datetime
from typing import Any

from .base import Parameter

__all__ = [
    "DateHourParameter",
    "DateMinuteParameter",
    "DateParameter",
    "DateSecondParameter",
    "DateTimeParameter",
    "MonthParameter",
]


def _read(parameter: Parameter[Any], text: str, form: str) -> datetime.datetime:
    try:
        return datetime.datetime.strptime(text, form)
    except ValueError:
        raise parameter.mismatch() from None


def _naive(value: datetime.datetime) -> datetime.datetime:
    """``value`` as a plain datetime; one with a time zone is refused."""
    if value.tzinfo is not None:
        raise ValueError(
            "expected a datetime without time zone; convert it first, "
            "e.g. value.astimezone(datetime.timezone.utc).replace(tzinfo=None)"
        )
    # Built anew: a subclass (pandas.Timestamp) may print differently; fold is neither compared nor written.
    return datetime.datetime(
        value.year, value.month, value.day, value.hour, value.minute, value.second, value.microsecond
    )


class DateParameter(Parameter[datetime.date]):
    """A day, ``2026-01-31``. A datetime becomes its day."""

    expected = "a date as YYYY-MM-DD, e.g. 2026-01-31"
    exact: type | None = datetime.date
    date_format = "%Y-%m-%d"

    def parse(self, text: str) -> datetime.date:
        """The day written in ``text``; 2026-1-31 will do.

        Raises:
            ValueError: the text is no such date.
        """
        return self._floor(_read(self, text, self.date_format))

    def serialize(self, value: datetime.date) -> str:
        # Not strftime: it writes the year 999 in three digits, which strptime refuses.
        return value.isoformat()

    def normalize(self, value: object) -> datetime.date:
        """The day of a date or datetime; ValueError for anything else and for a datetime with a time zone."""
        if isinstance(value, datetime.datetime):
            value = _naive(value)
        if isinstance(value, datetime.date):
            return self._floor(value)
        raise self.mismatch()

    def _floor(self, value: datetime.date) -> datetime.date:
        return datetime.date(value.year, value.month, value.day)


class MonthParameter(DateParameter):
    """A month, ``2026-01``, held as its first day; any date becomes the first of its month."""

    expected = "a month as YYYY-MM, e.g. 2026-01"
    exact = None
    date_format = "%Y-%m"

    def serialize(self, value: datetime.date) -> str:
        return value.isoformat()[:7]

    def _floor(self, value: datetime.date) -> datetime.date:
        return datetime.date(value.year, value.month, 1)


class _MomentParameter(Parameter[datetime.datetime]):
    """A datetime floored to a unit of time. A date becomes its midnight."""

    exact = None
    date_format: str

    def parse(self, text: str) -> datetime.datetime:
        """The moment written in ``text``.

        Raises:
            ValueError: the text has another form.
        """
        return self._floor(_read(self, text, self.date_format))

    def normalize(self, value: object) -> datetime.datetime:
        """A date or datetime, floored; ValueError for anything else and for one with a time zone."""
        if isinstance(value, datetime.datetime):
            return self._floor(_naive(value))
        if isinstance(value, datetime.date):
            return datetime.datetime(value.year, value.month, value.day)
        raise self.mismatch()

    def _floor(self, value: datetime.datetime) -> datetime.datetime:
        return value


class DateHourParameter(_MomentParameter):
    """An hour, ``2026-01-31T18``."""

    expected = "an hour as YYYY-MM-DDTHH, e.g. 2026-01-31T18"
    date_format = "%Y-%m-%dT%H"

    def serialize(self, value: datetime.datetime) -> str:
        return value.isoformat(timespec="hours")

    def _floor(self, value: datetime.datetime) -> datetime.datetime:
        return value.replace(minute=0, second=0, microsecond=0)


class DateMinuteParameter(_MomentParameter):
    """A minute, ``2026-01-31T1805``. Luigi's old form ``2026-01-31T18H05`` is still read."""

    expected = "a minute as YYYY-MM-DDTHHMM, e.g. 2026-01-31T1805"
    date_format = "%Y-%m-%dT%H%M"

    def parse(self, text: str) -> datetime.datetime:
        # The old form has an H between hour and minute and nowhere else.
        return super().parse(text.replace("H", "", 1) if text[-3:-2] == "H" else text)

    def serialize(self, value: datetime.datetime) -> str:
        return value.isoformat(timespec="minutes").replace(":", "")

    def _floor(self, value: datetime.datetime) -> datetime.datetime:
        return value.replace(second=0, microsecond=0)


class DateSecondParameter(_MomentParameter):
    """A second, ``2026-01-31T180559``; microseconds are dropped."""

    expected = "a second as YYYY-MM-DDTHHMMSS, e.g. 2026-01-31T180559"
    date_format = "%Y-%m-%dT%H%M%S"

    def serialize(self, value: datetime.datetime) -> str:
        return value.isoformat(timespec="seconds").replace(":", "")

    def _floor(self, value: datetime.datetime) -> datetime.datetime:
        return value.replace(microsecond=0)


class DateTimeParameter(_MomentParameter):
    """A moment to the microsecond in ISO 8601, ``2026-01-31T18:05:59.000001``. Not in Luigi."""

    expected = "a date and time in ISO 8601, e.g. 2026-01-31T18:05:59"

    def parse(self, text: str) -> datetime.datetime:
        """As ``datetime.fromisoformat``, so a date alone is its midnight.

        Raises:
            ValueError: the text is not ISO 8601, or has a time zone.
        """
        try:
            value = datetime.datetime.fromisoformat(text)
        except ValueError:
            raise self.mismatch() from None
        return _naive(value)

    def serialize(self, value: datetime.datetime) -> str:
        return value.isoformat()

    def _floor(self, value: datetime.datetime) -> datetime.datetime:
        return value
