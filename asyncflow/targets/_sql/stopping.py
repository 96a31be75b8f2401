"""Work of a database that really ends when whoever waits for it is cancelled."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, TypeVar, cast
from weakref import WeakSet

import aiosqlite

from ...shield import finish

__all__ = ["Ending", "FileConnection", "stoppable"]

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
    task = asyncio.Task(_told(work), loop=asyncio.get_running_loop())
    try:
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError:
            if stop is None:
                task.cancel()
            await finish(_end(task, stop))
            raise
        result, left = task.result()
        if left is not None:
            raise left
        return cast("T", result)
    finally:
        del task  # what it raised holds all its frames, and so cursors


async def _told(work: Coroutine[Any, Any, T]) -> tuple[T | None, BaseException | None]:
    """What comes of it; that somebody wants to leave, too: it would leave the loop, from a task of its own."""
    try:
        return await work, None
    except (SystemExit, KeyboardInterrupt) as leaving:
        return None, leaving


async def _end(task: asyncio.Task[Any], stop: Callable[[], object] | None) -> None:
    while not task.done():
        if stop is not None:
            stop()
        await asyncio.wait([task], timeout=None if stop is None else TICK)
    if not task.cancelled():
        task.exception()  # the cancel stands for it; marked as seen, so nothing is logged


class Ending:
    """The end of a driver's connection, which is one, and comes, however often its caller is cancelled in it.

    SQLAlchemy closes a connection whose statement was cancelled, and breaks that off when a second cancel comes.
    """

    def __init__(self) -> None:
        self._task: asyncio.Task[None] | None = None

    @property
    def begun(self) -> bool:
        """Whether it is being closed, by somebody other than the caller."""
        return self._task is not None and self._task is not asyncio.current_task()

    async def come(self, close: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """``close()``, the first time; and wait for it. Raises what it raises."""
        if self._task is None:
            self._task = asyncio.Task(close(), loop=asyncio.get_running_loop())
            self._task.add_done_callback(_seen)
        await asyncio.shield(self._task)

    async def wait(self) -> None:
        """Wait for it, if it has begun. Raises nothing."""
        if self._task is not None:
            await asyncio.wait([self._task])


def _seen(task: asyncio.Task[None]) -> None:
    if not task.cancelled():
        task.exception()  # its callers may all have gone


class FileConnection(aiosqlite.Connection):
    """A connection to SQLite whose statements are interrupted when they are cancelled.

    By itself a cancelled call goes on in its thread, and whatever comes next waits behind it.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.ending = Ending()
        self.used_up = False  # it has something in it that the next one must not meet
        self._cursors: WeakSet[sqlite3.Cursor] = WeakSet()

    async def _connect(self) -> aiosqlite.Connection:
        # A cancel that comes when the file has just been opened would leave it open, and nobody knew of it.
        made: aiosqlite.Connection = await finish(super()._connect())
        return made

    async def _execute(self, fn: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        call: Coroutine[Any, Any, T] = super()._execute(fn, *args, **kwargs)  # type: ignore[no-untyped-call]
        if getattr(fn, "__name__", "") in (
            "commit",
            "rollback",
            "close",
            "_let_go",
        ):  # they are short, and have to be whole
            return await finish(call)
        result: Any = await stoppable(call, self._interrupt)
        if isinstance(result, sqlite3.Cursor):
            self._cursors.add(result)
        return result  # type: ignore[no-any-return]

    def _interrupt(self) -> None:
        if self._connection is not None:
            self._connection.interrupt()

    async def close_cursors(self) -> None:
        """Close what is still open: it holds the file's locks, and the file when the connection has been closed."""
        if self._cursors and self._connection is not None:
            await self._execute(self._let_go)

    def _let_go(self) -> None:
        for cursor in list(self._cursors):
            cursor.close()
        self._cursors.clear()

    async def close(self) -> None:
        """Close it, behind what its thread is at."""
        await self.ending.come(self._close)

    async def _close(self) -> None:
        with suppress(Exception):
            await self.close_cursors()
            await self.rollback()
        await super().close()

    def stop(self) -> asyncio.Future[Any] | None:
        """End its thread, unless it is about to end in an orderly way."""
        return None if self.ending.begun else super().stop()
