"""What targets of stores over a network have in common: ``open``, and operations for async and sync code."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Literal, TypeVar, overload

from ..bridge import Bridge
from ..target import Target
from ._file import FileTarget, Operation
from ._remote_reading import RemoteReading
from ._remote_writing import RemoteWriting
from ._streams import Sink, Source

__all__ = ["RemoteTarget", "operation"]

T = TypeVar("T")


class RemoteTarget(FileTarget):
    """A file in a store that is read by a ``Source`` and written by a ``Sink``. A subclass has both, and ``exists``."""

    __slots__ = ()

    async def _source(self) -> Source:
        """What reads it, opened. Raises ``OSError``."""
        raise NotImplementedError

    def _sink(self) -> Sink:
        """What writes it, in the name of the body that calls."""
        raise NotImplementedError

    @overload
    def open(
        self, mode: Literal["r"] = "r", *, encoding: str = ..., newline: str | None = ...
    ) -> RemoteReading[str]: ...
    @overload
    def open(self, mode: Literal["rb"]) -> RemoteReading[bytes]: ...
    @overload
    def open(self, mode: Literal["w"], *, encoding: str = ..., newline: str | None = ...) -> RemoteWriting[str]: ...
    @overload
    def open(self, mode: Literal["wb"]) -> RemoteWriting[bytes]: ...
    def open(self, mode: str = "r", *, encoding: str = "utf-8", newline: str | None = None) -> Any:
        """Open for ``async with`` (on the loop) or ``with`` (in sync code); ``r``, ``w``, ``rb`` or ``wb``.

        Leaving the block of a write normally publishes what was written. A connection that breaks is made anew, and the
        transfer goes on where it stood, as far as the store allows. Raises ``OSError`` on entering, reading, writing
        and leaving, ``FileNotFoundError`` for reading what is not there.
        """
        text = None if "b" in mode else encoding
        if mode in ("r", "rb"):
            return RemoteReading(self._source, text, newline)
        if mode in ("w", "wb"):
            return RemoteWriting(self._sink, self.key or repr(self), text, newline)
        raise ValueError(f"{self!r}.open({mode!r}): the mode is 'r', 'w', 'rb' or 'wb'; a target is written whole")


def operation(target: Target, name: str, work: Callable[[], Coroutine[Any, Any, T]]) -> Operation[T]:
    """``work()`` for ``await`` on the loop, and for ``.result()`` in sync code."""

    def at_once() -> T:
        bridge = Bridge(f"{target!r}: on the event loop write `await target.{name}`")
        try:
            return bridge.run(work())
        finally:
            bridge.close()

    return Operation(target, name, work, at_once)
