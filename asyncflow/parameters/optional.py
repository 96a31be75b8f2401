"""``None`` or a value of another kind."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from ..errors import TaskDefinitionError
from .base import Parameter, ParameterOptions
from .choices import ChoiceParameter
from .containers import DictParameter, ListParameter, TupleParameter
from .dates import DateParameter
from .numeric import BoolParameter, FloatParameter, IntParameter
from .paths import PathParameter
from .text import StrParameter

if TYPE_CHECKING:
    from pathlib import Path  # noqa: F401  # read by type checkers in OptionalParameter["Path"]

__all__ = [
    "OptionalBoolParameter",
    "OptionalChoiceParameter",
    "OptionalDateParameter",
    "OptionalDictParameter",
    "OptionalFloatParameter",
    "OptionalIntParameter",
    "OptionalListParameter",
    "OptionalParameter",
    "OptionalPathParameter",
    "OptionalStrParameter",
    "OptionalTupleParameter",
]

T = TypeVar("T")

_OWN_OPTIONS = frozenset(ParameterOptions.__annotations__)


class OptionalParameter(Parameter[T | None]):
    """``None``, written as the empty string, or a value of the kind ``inner`` (a string, if not given).

    The default is None. The subclasses ``OptionalIntParameter`` and so on are Luigi's names for common kinds.
    """

    exact = None
    native = False
    kind: ClassVar[Callable[..., Parameter[Any]]] = StrParameter
    """Makes ``inner`` where none is given, from the arguments that are no :class:`ParameterOptions`."""

    def __init__(self, inner: Parameter[T] | None = None, *, default: T | None = None, **options: Any) -> None:
        """Declare a value that may be None.

        Args:
            inner: the kind of the value when it is not None.
            default: the value when none is given; ``MISSING`` makes the parameter required.
            options: as for every parameter; others belong to the kind, e.g. ``choices=`` for
                :class:`OptionalChoiceParameter`.

        Raises:
            TaskDefinitionError: ``inner`` is no parameter.
        """
        own = {name: options.pop(name) for name in list(options) if name in _OWN_OPTIONS}
        super().__init__(default, **own)
        if inner is None:
            inner = type(self).kind(**options)
        elif options:
            raise TypeError(f"{type(self).__name__}: unexpected arguments {', '.join(options)}")
        if not isinstance(inner, Parameter):
            raise TaskDefinitionError(
                f"{type(self).__name__}: {inner!r} is no parameter; write OptionalParameter(IntParameter()), "
                "and a default as default=..."
            )
        self.inner: Parameter[T] = inner
        self.expected = f"{inner.expected}, or None (as text: nothing)"
        self.volatile = inner.volatile
        self.by_text = inner.by_text

    def parse(self, text: str) -> T | None:
        """None from the empty string, else what the inner kind reads.

        Raises:
            ValueError: the inner kind refuses the text.
        """
        if not text:
            return None
        return self.inner.parse(text[1:-1] if _is_quotes(text) and len(text) > 1 else text)

    def serialize(self, value: T | None) -> str:
        if value is None:
            return ""
        text = self.inner.serialize(value)
        # The empty string has to differ from None, so it is written as "" in quotes (and text that is
        # itself nothing but quotes gets a pair more). Luigi reads None back.
        return f'"{text}"' if _is_quotes(text) else text

    def normalize(self, value: Any) -> T | None:
        """None, or what the inner kind makes of the value.

        Raises:
            ValueError, TypeError: the inner kind refuses it.
        """
        return None if value is None else self.inner.normalize(value)

    def to_json(self, value: T | None) -> object:
        return None if value is None else self.inner.to_json(value)

    def from_json(self, document: object) -> T | None:
        return None if document is None else self.inner.from_json(document)


def _is_quotes(text: str) -> bool:
    return not text.strip('"')


class OptionalStrParameter(OptionalParameter[str]):
    """A string or None."""


class OptionalIntParameter(OptionalParameter[int]):
    """An integer or None."""

    kind = IntParameter


class OptionalFloatParameter(OptionalParameter[float]):
    """A number or None."""

    kind = FloatParameter


class OptionalBoolParameter(OptionalParameter[bool]):
    """True, False or None; ``parsing=`` as :class:`BoolParameter`."""

    kind = BoolParameter


class OptionalDateParameter(OptionalParameter[datetime.date]):
    """A day or None."""

    kind = DateParameter


class OptionalPathParameter(OptionalParameter["Path"]):
    """A path or None; ``absolute=`` and ``exists=`` as :class:`PathParameter`."""

    kind = PathParameter


class OptionalChoiceParameter(OptionalParameter[T]):
    """A choice or None; ``choices=`` and ``var_type=`` as :class:`ChoiceParameter`."""

    kind = ChoiceParameter


class OptionalListParameter(OptionalParameter[tuple[Any, ...]]):
    """A list or None."""

    kind = ListParameter


class OptionalTupleParameter(OptionalParameter[tuple[Any, ...]]):
    """A tuple or None."""

    kind = TupleParameter


class OptionalDictParameter(OptionalParameter[Mapping[str, Any]]):
    """A dict or None."""

    kind = DictParameter
