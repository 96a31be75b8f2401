"""How sync code gets what only coroutines can do: in a body, on its build's loop; elsewhere, on a loop of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, TypeVar

from .attempt import current
from .threads import parked, woken

__all__ = ["Bridge", "on_loop"]

T = TypeVar("T")


def on_loop() -> bool:
    """Whether a loop runs in this thread: who waits here holds it up."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


class Bridge:
    """Runs coroutines for one sync caller, one after the other, all of them on the same loop. ``close`` it at the end.

    In a sync body that is the loop of its build. In a plain script, and in a process of its own, it is a new one, which
    has to open its own connections: async code is quicker there. Raises ``TypeError(instead)`` where a loop runs.
    """

    def __init__(self, instead: str) -> None:
        if on_loop():
            raise TypeError(instead)
        attempt = current.get()
        loop: asyncio.AbstractEventLoop | None = getattr(attempt and attempt.engine, "loop", None)
        self._loop = loop if loop is not None and loop.is_running() else None
        self._own = asyncio.Runner() if self._loop is None else None

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """What ``work`` gives; raises what it raises, and ``RuntimeError`` where a loop runs by now."""
        if on_loop():  # the collector has come upon what was left open: waiting here would be for ever
            work.close()
            raise RuntimeError("what sync code has left open is not closed on an event loop")
        if self._own is not None:
            return self._own.run(work)
        assert self._loop is not None
        return asyncio.run_coroutine_threadsafe(_counted(work), self._loop).result()

    def close(self) -> None:
        """End the loop, if it is its own."""
        if self._own is not None:
            self._own.close()

    def abandon(self, last: Callable[[], object]) -> None:
        """Have the loop call ``last()``, and end it if it is its own, without waiting. In any thread."""
        if self._own is None:
            assert self._loop is not None
            with suppress(RuntimeError):  # it has been closed
                self._loop.call_soon_threadsafe(last)
            return
        loop = self._own.get_loop()
        if loop.is_closed() or loop.is_running():
            return
        last()
        if on_loop():  # another one: this one cannot be run any more, to end in an orderly way
            loop.close()
        else:
            self._own.close()


async def _counted(work: Coroutine[Any, Any, T]) -> T:
    parked()  # the thread that waits
    try:
        return await work
    finally:
        woken()
