"""What a store over a network has to offer, for handles that read and write it: bytes out, bytes in, one publish."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Protocol

from ..attempt import Attempt
from ..shield import finish

__all__ = ["Sink", "Source", "Turns", "publish"]


class Source(Protocol):
    """Bytes of one stored thing, in order. One call at a time."""

    async def read(self, size: int) -> bytes:
        """At most ``size`` bytes, fewer if that saves waiting; nothing at the end.

        Raises ``OSError`` (``ConnectionError``, ``TimeoutError``) where what comes is not whole.
        """
        ...

    async def close(self) -> None:
        """Let go of the connection. A second time does nothing; raises nothing."""
        ...

    def abandon(self) -> None:
        """The same without waiting: for a handle that was forgotten."""
        ...


class Sink(Protocol):
    """What is going to be one stored thing: nothing is visible before ``commit``. One call at a time."""

    async def write(self, data: bytes) -> None:
        """Store ``data`` after what came before, privately. Raises ``OSError``; cancelled or failed, it is over."""
        ...

    async def prepare(self) -> dict[str, Any] | None:
        """Store all of it, checked as far as the store can: only the publish is left, as ``commit`` does it.

        What that will be is described for the journal, to be done by another process if this one is killed (see
        ``healing.finishers``); None where another process cannot. Raises ``OSError``.
        """
        ...

    async def commit(self) -> None:
        """Make all of it visible in one step, by ``publish``. Raises ``OSError``, ``TaskCancelled``."""
        ...

    async def discard(self) -> None:
        """Remove what was stored privately. A second time, or after ``commit``, does nothing; raises nothing.

        Called after whatever has gone wrong, with its caller shielded from cancels; it takes some seconds at most.
        """
        ...


class Turns:
    """One call of a handle at a time, whichever of its user's tasks it comes from, until the handle is closed.

    ``closed`` is what a call is told that comes too late, or is stopped.
    """

    def __init__(self, closed: str) -> None:
        self.over = False
        self._closed = closed
        self._lock = asyncio.Lock()
        self._stop: asyncio.Timeout | None = None  # of the call that is under way, if it can be stopped

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """A turn that ``last`` stops, by what is a cancel to who is in it. Raises ``ValueError`` if it is too late."""
        async with self._lock:
            if self.over:
                raise ValueError(self._closed)
            stop = self._stop = asyncio.timeout(None)
            try:
                async with stop:
                    yield
            except TimeoutError:
                if stop.expired():
                    raise ValueError(self._closed) from None
                raise
            finally:
                self._stop = None

    @asynccontextmanager
    async def whole_turn(self) -> AsyncIterator[None]:
        """A turn that ``last`` waits for. Who takes it looks whether it is too late."""
        async with self._lock:
            yield

    @asynccontextmanager
    async def last(self) -> AsyncIterator[None]:
        """The turn of who closes: whoever is at work is stopped or waited for, and the others come too late."""
        if self._stop is not None and not self.over:
            self._stop.reschedule(asyncio.get_running_loop().time())
        self.over = True
        async with self._lock:
            yield


async def publish(attempt: Attempt | None, key: str, step: Callable[[], Awaitable[object]]) -> None:
    """Take the one ``step`` that makes something visible, to its end, if the attempt it belongs to still may.

    A step that finds that somebody else was quicker says so to the attempt (``lose``).

    Raises ``TaskCancelled`` if the attempt has been fenced (nothing has been done then), what ``step`` raises (what it
    raises means that nothing is visible), and the cancel of its caller, when the step has ended.
    """

    async def shielded() -> None:
        if attempt is None:
            await step()
            return
        attempt.begin_publish()
        visible = False
        try:
            await step()
            visible = attempt.lost is None or key not in attempt.lost
        finally:
            attempt.end_publish(key, visible=visible)

    await finish(shielded())
