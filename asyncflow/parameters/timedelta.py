"""Lengths of time."""

from __future__ import annotations

import datetime
import re

from .base import Parameter

__all__ = ["TimeDeltaParameter"]

_SECONDS = r"(?P<seconds>\d+)(?:\.(?P<fraction>\d{1,6}))?"

# Both forms are Luigi's, with a sign on the weeks (a negative timedelta is a negative number of weeks and
# positive rest) and a fraction on the seconds, without which -1 s and 1.5 s could not be read back. The
# whole text has to fit: Luigi reads "5 m 1 h" as five minutes without a word.
_WORDS = (
    r"(?:(?P<weeks>-?\d+) ?w(?:eek)?s? ?)?"
    r"(?:(?P<days>\d+) ?d(?:ay)?s? ?)?"
    r"(?:(?P<hours>\d+) ?h(?:our)?s? ?)?"
    r"(?:(?P<minutes>\d+) ?m(?:inute)?s? ?)?"
    rf"(?:{_SECONDS} ?s(?:econd)?s? ?)?"
)
_ISO = (
    r"P(?:(?P<weeks>-?\d+)W|"
    rf"(?:(?P<days>\d+)D)?(?:T(?=\d)(?:(?P<hours>\d+)H)?(?:(?P<minutes>\d+)M)?(?:{_SECONDS}S)?)?)"
)


class TimeDeltaParameter(Parameter[datetime.timedelta]):
    """A length of time, written ``0 w 1 d 2 h 3 m 4 s``.

    Read are also plain seconds (``90``), ISO 8601 (``P2W``, ``P1DT2H3M4S``) and words (``1 week 2 days``),
    longest unit first.
    """

    expected = "a length of time, longest unit first, e.g. 1 d 12 h, P1DT12H or seconds as 90"
    exact = datetime.timedelta

    def parse(self, text: str) -> datetime.timedelta:
        """The length written in ``text``, in one of the three forms.

        Raises:
            ValueError: the text has none of them, or the length is out of range (about 2.7 million years).
        """
        try:
            return self._read(text)
        except (ValueError, OverflowError):
            raise self.mismatch() from None

    def _read(self, text: str) -> datetime.timedelta:
        match = re.fullmatch(_ISO, text) or re.fullmatch(_WORDS, text)
        if match is None or not any(match.groups()):
            return datetime.timedelta(seconds=float(text))
        units = match.groupdict(default="0")
        fraction = units.pop("fraction").ljust(6, "0")
        return datetime.timedelta(microseconds=int(fraction), **{unit: int(n) for unit, n in units.items()})

    def serialize(self, value: datetime.timedelta) -> str:
        weeks, days = divmod(value.days, 7)
        hours, rest = divmod(value.seconds, 3600)
        minutes, seconds = divmod(rest, 60)
        # Luigi drops the microseconds; without any its form is kept to the letter, since ids hash it.
        fraction = f".{value.microseconds:06}" if value.microseconds else ""
        return f"{weeks} w {days} d {hours} h {minutes} m {seconds}{fraction} s"

    def normalize(self, value: object) -> datetime.timedelta:
        """A timedelta; ValueError for anything else, numbers included, whose unit one would have to guess."""
        if isinstance(value, datetime.timedelta):
            return datetime.timedelta(value.days, value.seconds, value.microseconds)
        raise self.mismatch()
