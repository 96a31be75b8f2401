"""How sync code gets what only coroutines can do: in a body, on its build's loop; elsewhere, on a loop of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
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
        """What ``work`` gives; raises what it raises."""
        if self._own is not None:
            return self._own.run(work)
        assert self._loop is not None
        return asyncio.run_coroutine_threadsafe(_counted(work), self._loop).result()

    def close(self) -> None:
        """End the loop, if it is its own."""
        if self._own is not None:
            self._own.close()


async def _counted(work: Coroutine[Any, Any, T]) -> T:
    parked()  # the thread that waits
    try:
        return await work
    finally:
        woken()
