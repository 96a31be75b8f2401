"""Work of a database that really ends when whoever waits for it is cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import aiosqlite

from ...shield import finish

__all__ = ["InterruptibleConnection", "stoppable"]

T = TypeVar("T")

TICK = 0.001
"""Seconds between two interrupts of a statement: one that comes between two steps of SQLite's has no effect."""


async def stoppable(work: Coroutine[Any, Any, T], stop: Callable[[], object] | None = None) -> T:
    """Await ``work``; when the caller is cancelled, stop it, and raise the cancel when it has ended.

    It is stopped by one cancel, or by ``stop()``, again and again. A database driver has much to do when it is
    cancelled (tell the server, wait for its answer, close the connection), and a second cancel, as callers send them,
    would break that off: so the work is a task of its own, which hears of the first one only.

    Raises what the work raises, ``asyncio.CancelledError`` if the caller is cancelled.
    """
    task = asyncio.Task(work, loop=asyncio.get_running_loop())
    try:
        await asyncio.wait([task])
    except asyncio.CancelledError:
        if stop is None:
            task.cancel()
        await finish(_end(task, stop))
        raise
    try:
        return task.result()
    finally:
        del task  # its traceback holds this frame


async def _end(task: asyncio.Task[Any], stop: Callable[[], object] | None) -> None:
    while not task.done():
        if stop is not None:
            stop()
        await asyncio.wait([task], timeout=None if stop is None else TICK)
    if not task.cancelled():
        task.exception()  # the cancel stands for it; marked as seen, so nothing is logged


class InterruptibleConnection(aiosqlite.Connection):
    """A connection to SQLite whose statements are interrupted when they are cancelled.

    By itself a cancelled call goes on in its thread, and whatever comes next waits behind it.
    """

    async def _execute(self, fn: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        call: Coroutine[Any, Any, T] = super()._execute(fn, *args, **kwargs)  # type: ignore[no-untyped-call]
        if getattr(fn, "__name__", "") in ("commit", "rollback", "close"):  # they are short, and have to be whole
            return await finish(call)
        return await stoppable(call, self._interrupt)

    def _interrupt(self) -> None:
        if self._connection is not None:
            self._connection.interrupt()
