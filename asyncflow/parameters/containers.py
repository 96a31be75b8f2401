"""Lists, tuples and dicts, written as JSON and held as immutable values."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar, Unpack

from ..errors import TaskDefinitionError
from .base import MISSING, Parameter, ParameterOptions
from .frozen import FrozenDict, at, freeze

__all__ = ["DictParameter", "ListParameter", "TupleParameter"]

T = TypeVar("T")
K = TypeVar("K")
V = TypeVar("V")


def _load(parameter: Parameter[Any], text: str) -> Any:
    import json

    try:
        return json.loads(text)
    except ValueError as error:
        raise ValueError(f"expected {parameter.expected}, as JSON ({error})") from None


def _check_inner(owner: Parameter[Any], inner: object, role: str) -> None:
    if not isinstance(inner, Parameter):
        kind = type(owner).__name__
        raise TaskDefinitionError(
            f"{kind}: {inner!r} is no parameter, so it cannot be the kind of its {role}; "
            f"write for example {kind}(IntParameter()), and a default as {kind}(default=...)"
        )


class _ContainerParameter(Parameter[T]):
    """What containers share: JSON text, and one walk over the elements for Python values and JSON alike."""

    exact = None
    native = False

    @abstractmethod
    def _convert(self, value: Any, from_json: bool) -> T:
        """The checked, immutable form of a Python value or a JSON document; ValueError if it has none."""

    def parse(self, text: str) -> T:
        """Read JSON.

        Raises:
            ValueError: the text is no JSON or has the wrong shape; names the element that is wrong.
        """
        return self._convert(_load(self, text), True)

    def normalize(self, value: object) -> T:
        """The checked, immutable form of a Python value; ValueError names the element that is wrong."""
        return self._convert(value, False)

    def from_json(self, document: object) -> T:
        return self._convert(document, True)

    def serialize(self, value: T) -> str:
        """JSON with Luigi's spacing. Keys are sorted (Luigi keeps the order they were given in): dicts in
        another order are equal, and equal values must give equal ids."""
        import json

        return json.dumps(self.to_json(value), sort_keys=True)


class _SequenceParameter(_ContainerParameter[tuple[T, ...]]):
    """A sequence whose elements are all of one kind, or have one kind for each place, or are free."""

    _shape: tuple[Parameter[Any], ...] | None = None
    _each: Parameter[Any] | None = None

    def _place(self, index: int) -> Parameter[Any]:
        inner = self._each if self._shape is None else self._shape[index]
        assert inner is not None
        return inner

    def _convert(self, value: Any, from_json: bool) -> tuple[T, ...]:
        if not isinstance(value, Sequence) or isinstance(value, (str, bytes, bytearray, memoryview)):
            raise self.mismatch()
        if self._shape is None and self._each is None:
            return freeze(value)  # type: ignore[no-any-return]
        if self._shape is not None and len(value) != len(self._shape):
            raise self.mismatch()
        items: list[T] = []
        for index, item in enumerate(value):
            inner = self._place(index)
            try:
                items.append(inner.from_json(item) if from_json else inner.normalize(item))
            except (TypeError, ValueError) as error:
                raise at(index, error) from error
        return tuple(items)

    def to_json(self, value: tuple[T, ...]) -> object:
        if self._shape is None and self._each is None:
            return value
        return [self._place(index).to_json(item) for index, item in enumerate(value)]


class ListParameter(_SequenceParameter[T]):
    """A list, held as a tuple: of any JSON values, or ``ListParameter(IntParameter())`` of one kind."""

    expected = 'a list, e.g. [1, "two"]'

    def __init__(
        self,
        inner: Parameter[T] | None = None,
        *,
        default: Sequence[T] = MISSING,
        **options: Unpack[ParameterOptions],
    ) -> None:
        """Declare a list; ``inner`` is the kind of its elements (None: any JSON values).

        Raises:
            TaskDefinitionError: ``inner`` is no parameter.
        """
        super().__init__(default, **options)  # type: ignore[arg-type]  # frozen when the class is created
        if inner is not None:
            _check_inner(self, inner, "elements")
            self._each = inner
            self.expected = f"a list, each element {inner.expected}"
        self.by_text = inner is None or inner.by_text


class TupleParameter(_SequenceParameter[T]):
    """A tuple: any, of one kind ``TupleParameter(IntParameter())``, or of a fixed shape
    ``TupleParameter((IntParameter(), StrParameter()))``. Python's own form ``(1, 2)`` is read, too.
    """

    expected = 'a tuple, e.g. [1, "two"]'

    def __init__(
        self,
        inner: Parameter[T] | Sequence[Parameter[Any]] | None = None,
        *,
        default: Sequence[T] = MISSING,
        **options: Unpack[ParameterOptions],
    ) -> None:
        """Declare a tuple; ``inner`` is the kind of all elements, or a sequence with one kind for each.

        Raises:
            TaskDefinitionError: ``inner`` is or holds something that is no parameter.
        """
        super().__init__(default, **options)  # type: ignore[arg-type]  # frozen when the class is created
        self.by_text = inner is None
        if isinstance(inner, (tuple, list)):
            for place in inner:
                _check_inner(self, place, "elements")
            self._shape = tuple(inner)
            self.by_text = any(place.by_text for place in self._shape)
            self.expected = f"a tuple of {len(inner)} ({'; '.join(place.expected for place in self._shape)})"
        elif inner is not None:
            _check_inner(self, inner, "elements")
            assert isinstance(inner, Parameter)
            self._each = inner
            self.by_text = inner.by_text
            self.expected = f"a tuple, each element {inner.expected}"

    def parse(self, text: str) -> tuple[T, ...]:
        """Read JSON, or a Python literal as Luigi does.

        Raises:
            ValueError: the text is neither, or has the wrong shape; names the element that is wrong.
        """
        import json

        try:
            document = json.loads(text)
        except ValueError:
            from ast import literal_eval

            try:
                document = literal_eval(text)
            except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
                raise self.mismatch() from None
        return self._convert(document, True)


class DictParameter(_ContainerParameter[Mapping[K, V]]):
    """A dict, held as an immutable one: ``{"a": 1}``, or with a kind of value
    ``DictParameter(IntParameter())`` and of key ``DictParameter(StrParameter(), key=DateParameter())``.
    """

    expected = 'a dict, e.g. {"a": 1}'

    def __init__(
        self,
        inner: Parameter[V] | None = None,
        *,
        key: Parameter[K] | None = None,
        default: Mapping[K, V] = MISSING,
        **options: Unpack[ParameterOptions],
    ) -> None:
        """Declare a dict; ``inner`` is the kind of its values (None: any JSON values), ``key`` of its keys.

        Raises:
            TaskDefinitionError: ``inner`` or ``key`` is no parameter.
        """
        super().__init__(default, **options)
        for part, role in ((inner, "values"), (key, "keys")):
            if part is not None:
                _check_inner(self, part, role)
        self._value_kind: Parameter[Any] = inner if inner is not None else _AnyJson()
        self._key_kind: Parameter[Any] = key if key is not None else Parameter()
        self.by_text = self._value_kind.by_text
        if inner is not None:
            self.expected = f"a dict, each value {inner.expected}"

    def _convert(self, value: Any, from_json: bool) -> Mapping[K, V]:
        if not isinstance(value, Mapping):
            raise self.mismatch()
        keys, inner = self._key_kind, self._value_kind
        result: dict[K, V] = {}
        for name, item in value.items():
            try:
                # JSON writes keys as strings, so they are read like text.
                key = keys.normalize(keys.parse(name) if from_json and isinstance(name, str) else name)
                if key in result:
                    raise ValueError(f"expected keys that differ; this is a second {key!r}")
                result[key] = inner.from_json(item) if from_json else inner.normalize(item)
            except (TypeError, ValueError) as error:
                raise at(name, error) from error
        return FrozenDict(result)

    def to_json(self, value: Mapping[K, V]) -> object:
        return {self._key_kind.serialize(key): self._value_kind.to_json(item) for key, item in value.items()}


class _AnyJson(Parameter[Any]):
    """The kind of a dict's values where none is given."""

    expected = "a JSON value"
    native = True
    exact = None
    by_text = True

    def normalize(self, value: object) -> Any:
        return freeze(value)
