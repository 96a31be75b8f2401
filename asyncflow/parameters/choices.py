"""One of a fixed set: enum members and choices."""

from __future__ import annotations

import enum as enums
from collections.abc import Callable, Iterable
from typing import Any, TypeVar, Unpack

from ..errors import TaskDefinitionError
from .base import MISSING, Parameter, ParameterOptions
from .numeric import BoolParameter

__all__ = ["ChoiceParameter", "EnumParameter"]

E = TypeVar("E", bound=enums.Enum)
T = TypeVar("T")


class EnumParameter(Parameter[E]):
    """A member of an enum, written by its name (``RED``, upper and lower case differ)."""

    exact = None
    native = False

    def __init__(self, default: E = MISSING, *, enum: type[E], **options: Unpack[ParameterOptions]) -> None:
        """Declare a member of ``enum``, an ``enum.Enum`` class with members; else TaskDefinitionError."""
        super().__init__(default, **options)
        if not (isinstance(enum, type) and issubclass(enum, enums.Enum) and enum.__members__):
            raise TaskDefinitionError(f"EnumParameter(enum={enum!r}): expected an Enum class with members")
        self.enum = enum
        self.expected = f"a member of {enum.__name__}: {', '.join(enum.__members__)}"

    def parse(self, text: str) -> E:
        """The member of that name.

        Raises:
            ValueError: there is none.
        """
        try:
            return self.enum[text]
        except KeyError:
            raise self.mismatch() from None

    def serialize(self, value: E) -> str:
        return value.name

    def normalize(self, value: object) -> E:
        """A member; ValueError for anything else, also for a combination of flags, which has no name."""
        if isinstance(value, self.enum) and value.name in self.enum.__members__:
            return value
        raise self.mismatch()


class ChoiceParameter(Parameter[T]):
    """One of ``choices``, written as ``str`` writes it and read by ``var_type``."""

    exact = None
    native = False

    def __init__(
        self,
        default: T = MISSING,
        *,
        choices: Iterable[T],
        var_type: Callable[[str], T] | type[T] = str,  # type: ignore[assignment]
        **options: Unpack[ParameterOptions],
    ) -> None:
        """Declare the choices.

        Args:
            default: as for every parameter.
            choices: the allowed values, hashable, at least one.
            var_type: makes a choice from its text; ``bool`` reads "true" and "false".
            options: as for every parameter.

        Raises:
            TaskDefinitionError: there is no choice, or one that ``var_type`` does not read back.
        """
        super().__init__(default, **options)
        # Sets come in an order of their own each time Python starts; help texts should not.
        ordered = sorted(choices, key=repr) if isinstance(choices, (set, frozenset)) else list(choices)
        self.choices: tuple[T, ...] = tuple(dict.fromkeys(ordered))
        self.var_type = var_type
        self.expected = f"one of {', '.join(map(repr, self.choices))}"
        if not self.choices:
            raise TaskDefinitionError("ChoiceParameter(choices=...): expected at least one choice")
        for choice in self.choices:
            self._check_readable(choice)

    def _check_readable(self, choice: T) -> None:
        try:
            readable = self.parse(self.serialize(choice)) == choice
        except ValueError:
            readable = False
        if not readable:
            name = getattr(self.var_type, "__name__", self.var_type)
            raise TaskDefinitionError(
                f"ChoiceParameter: var_type={name} does not read the choice {choice!r} back from its text; "
                f"give the type of the choices, e.g. var_type={type(choice).__name__}"
            )

    def parse(self, text: str) -> T:
        """The choice written in ``text``.

        Raises:
            ValueError: it is none of the choices.
        """
        read: Any = BoolParameter().parse if self.var_type is bool else self.var_type
        try:
            return self.normalize(read(text))
        except (TypeError, ValueError, ArithmeticError):
            raise self.mismatch() from None

    def normalize(self, value: object) -> T:
        """The choice equal to ``value``; ValueError if there is none. True and 1 are different choices."""
        for choice in self.choices:
            if choice == value and isinstance(choice, bool) == isinstance(value, bool):
                return choice
        raise self.mismatch()

    def to_json(self, value: T) -> object:
        return value if isinstance(value, (str, int, float)) else self.serialize(value)

    def from_json(self, document: object) -> T:
        try:
            return self.normalize(document)
        except ValueError:
            if not isinstance(document, str):
                raise
            return self.parse(document)
