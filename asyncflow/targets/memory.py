"""``MemoryTarget``: a value in this process, for small results and for tests."""

from __future__ import annotations

from typing import Any, ClassVar

from ..attempt import current
from ..target import Answer, How, Target

__all__ = ["MemoryTarget"]


class MemoryTarget(Target):
    """A value kept in one dictionary of the process under ``name``; it is gone when the process ends.

    ``put`` publishes at once and is fenced like any other publish: what a cancelled body puts is refused.
    """

    in_process: ClassVar[bool] = True
    _values: ClassVar[dict[str, Any]] = {}
    _how: ClassVar[How] = "inline"

    def __init__(self, name: str) -> None:
        if not isinstance(name, str) or not name:
            raise TypeError(f"MemoryTarget({name!r}): a name is a non-empty string")
        self.name = name

    @property
    def key(self) -> str:  # type: ignore[override]  # read-only here, an attribute in a user's own class
        """``memory:NAME``."""
        return "memory:" + self.name

    def _there(self) -> bool:
        return self.name in self._values

    _exists = _there  # a subclass that overrides exists() replaces this one, and may ask super().exists()

    async def _ask(self) -> bool:
        return self.name in self._values

    def exists(self) -> Answer:
        """Whether a value has been put and not been cleared since."""
        return Answer(f"{self!r}.exists()", self._ask, self._there)

    def put(self, value: Any) -> None:
        """Keep ``value``. Raises ``TaskCancelled`` in a body that has been cancelled."""
        attempt = current.get()
        if attempt is None:
            self._values[self.name] = value
            return
        attempt.publish_at_once(self.key, self._values.__setitem__, self.name, value)

    def get(self) -> Any:
        """The value. Raises ``KeyError`` if there is none."""
        try:
            return self._values[self.name]
        except KeyError:
            raise KeyError(f"nothing has been put into {self!r}") from None

    @classmethod
    def clear(cls) -> None:
        """Forget every value of the process (between tests, say)."""
        cls._values.clear()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, MemoryTarget) and other.name == self.name

    def __hash__(self) -> int:
        return hash((MemoryTarget, self.name))

    def __repr__(self) -> str:
        return f"MemoryTarget({self.name!r})"
