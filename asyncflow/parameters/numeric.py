"""Numbers and booleans."""

from __future__ import annotations

import operator
from typing import ClassVar, Unpack

from ..errors import TaskDefinitionError
from .base import MISSING, Parameter, ParameterOptions
from .frozen import freeze_float

__all__ = ["BoolParameter", "FloatParameter", "IntParameter"]


class IntParameter(Parameter[int]):
    """A whole number, ``3``. Booleans and floats are refused."""

    expected = "an integer, e.g. 3"
    exact = int
    native = True

    def parse(self, text: str) -> int:
        """As ``int(text)``.

        Raises:
            ValueError: the text is no integer.
        """
        try:
            return int(text)
        except ValueError:
            raise self.mismatch() from None

    def normalize(self, value: object) -> int:
        """A plain int from an int, an ``IntEnum`` member or a numpy integer; otherwise ValueError."""
        if not isinstance(value, bool):
            try:
                return int(operator.index(value))  # type: ignore[arg-type]
            except TypeError:
                pass
        raise self.mismatch()


class FloatParameter(Parameter[float]):
    """A number, ``0.5``; an int becomes a float. NaN is refused, since it is not even equal to itself."""

    expected = "a number, e.g. 0.5"
    exact = None  # a float may still be NaN or -0.0
    native = True

    def parse(self, text: str) -> float:
        """As ``float(text)``.

        Raises:
            ValueError: the text is no number, or NaN.
        """
        try:
            value = float(text)
        except ValueError:
            raise self.mismatch() from None
        return freeze_float(value)

    def normalize(self, value: object) -> float:
        """A plain float from any real number but a bool; otherwise ValueError."""
        if type(value) is float:
            return freeze_float(value)
        from numbers import Real

        if type(value) is bool or not isinstance(value, Real):
            raise self.mismatch()
        try:
            return freeze_float(float(value))
        except OverflowError:
            raise ValueError(f"expected {self.expected}; this one is too large for a float") from None


class BoolParameter(Parameter[bool]):
    """``True`` or ``False``; as text ``true`` or ``false`` in any case.

    ``parsing`` says how the command line reads it: "implicit" is a plain flag ``--quiet``, "explicit" takes
    a word, ``--quiet true``. A class attribute ``parsing`` sets it for all, as in Luigi. With implicit
    parsing a declaration without a default has the default False.
    """

    expected = "true or false"
    exact = bool
    native = True

    IMPLICIT_PARSING: ClassVar[str] = "implicit"
    EXPLICIT_PARSING: ClassVar[str] = "explicit"
    parsing: str = IMPLICIT_PARSING

    def __init__(
        self, default: bool = MISSING, *, parsing: str | None = None, **options: Unpack[ParameterOptions]
    ) -> None:
        """Declare a boolean; ``parsing`` is "implicit" or "explicit", else TaskDefinitionError."""
        if parsing is not None:
            self.parsing = parsing
        if self.parsing not in (self.IMPLICIT_PARSING, self.EXPLICIT_PARSING):
            raise TaskDefinitionError(f"parsing={self.parsing!r}: expected 'implicit' or 'explicit'")
        if default is MISSING and self.parsing == self.IMPLICIT_PARSING:
            default = False
        super().__init__(default, **options)

    def parse(self, text: str) -> bool:
        """True from "true", False from "false", in any case.

        Raises:
            ValueError: any other text.
        """
        match text.lower():
            case "true":
                return True
            case "false":
                return False
        raise self.mismatch()

    def normalize(self, value: object) -> bool:
        """Only a bool passes; otherwise ValueError. (Luigi turns what it does not understand into None.)"""
        if isinstance(value, bool):
            return value
        raise self.mismatch()
