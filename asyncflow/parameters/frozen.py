"""Immutable, hashable forms of JSON-like values."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

__all__ = ["FrozenDict", "InvalidElement", "at", "freeze"]

K = TypeVar("K")
V = TypeVar("V")


class FrozenDict(dict[K, V]):
    """A dict that cannot be changed and can be hashed; equality and hash ignore the order of keys.

    It *is* a dict, so ``json.dumps``, ``**`` and ``isinstance(x, dict)`` work; ``copy()`` and ``dict(x)``
    give a plain one that may be changed.
    """

    __slots__ = ("_hash",)
    _hash: int

    def __hash__(self) -> int:  # type: ignore[override]
        try:
            return self._hash
        except AttributeError:
            self._hash = hash(frozenset(self.items()))
            return self._hash

    def __repr__(self) -> str:
        return f"FrozenDict({dict.__repr__(self)})"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (dict(self),)

    if not TYPE_CHECKING:

        def _refuse(self, *args: object, **kwargs: object) -> NoReturn:
            raise TypeError("what a FrozenDict holds cannot be changed; change a copy: dict(value)")

        __setitem__ = __delitem__ = __ior__ = _refuse
        clear = pop = popitem = setdefault = update = _refuse


class InvalidElement(ValueError):
    """A value inside a container is wrong; ``path`` says where, e.g. ``[2]['name']``."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"at {path}: {reason}")
        self.path = path
        self.reason = reason


def at(step: object, error: Exception) -> InvalidElement:
    """``error``, which is about the element at index or key ``step``, as seen from the container."""
    if isinstance(error, InvalidElement):
        return InvalidElement(f"[{step!r}]{error.path}", error.reason)
    return InvalidElement(f"[{step!r}]", str(error))


def freeze(value: object) -> Any:
    """``value`` with every list a tuple and every mapping a :class:`FrozenDict`, all the way down.

    Raises:
        ValueError: something in it has no form of its own in JSON (a date, a set, a key that is no
            string, NaN), so it could not be read back from a task's id or command line.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return freeze_float(value)
    if isinstance(value, Mapping):
        return FrozenDict({_freeze_key(key): _freeze_element(key, item) for key, item in value.items()})
    if isinstance(value, Sequence) and not isinstance(value, (bytes, bytearray, memoryview)):
        return tuple([_freeze_element(index, item) for index, item in enumerate(value)])
    raise ValueError(
        f"expected JSON values (str, int, float, bool, None, lists, dicts), not {type(value).__name__}; "
        "for other elements name their kind, e.g. ListParameter(DateParameter()) or list[datetime.date]"
    )


def freeze_float(value: float) -> float:
    """A plain float; NaN is refused, because it is not equal to itself, and -0.0 becomes its equal 0.0."""
    if math.isnan(value):
        raise ValueError(
            "expected a number, not NaN: it is not equal to itself, so its task could never be found again"
        )
    return float(value) + 0.0


def _freeze_key(key: object) -> str:
    """A key of a JSON object: strings only."""
    if isinstance(key, str):
        return str.__str__(key)
    raise ValueError(f"expected string keys, got {key!r}; for others name their kind, e.g. dict[int, str]")


def _freeze_element(step: object, value: object) -> Any:
    try:
        return freeze(value)
    except ValueError as error:
        raise at(step, error) from error
