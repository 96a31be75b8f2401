"""Who holds a connection, who waits for one; and nobody waits for ever for one that cannot come."""

from __future__ import annotations

import asyncio
import errno
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from functools import partial
from typing import Literal

from ...attempt import inside

__all__ = ["PLACES", "Purpose", "Turn", "Turns"]

log = logging.getLogger("asyncflow")

Purpose = Literal["ask", "read", "write"]

PLACES: dict[Purpose, int] = {"ask": 2, "read": 3, "write": 5}
"""Connections to one database, 10 in all. Each purpose has its own, so that a question does not wait for loads."""

LOOK = 1.0  # seconds between two looks at who waits for whom
SILENCE = 60.0  # seconds somebody waits before that is logged

_turns: ContextVar[tuple[Turn, ...]] = ContextVar("asyncflow_sql_turns", default=())
"""What the running code is inside of: the blocks it holds connections in, or was begun in."""


class Turn:
    """Somebody's turn with a connection, called ``key`` in messages; from when it is waited for."""

    __slots__ = ("attempt", "come", "ended", "handed_on", "key", "purpose", "since", "step_aside", "within")

    def __init__(self, purpose: Purpose, key: str) -> None:
        loop = asyncio.get_running_loop()
        self.purpose: Purpose = purpose
        self.key = key
        self.attempt = inside()
        self.within = tuple(turn for turn in _turns.get() if not turn.ended)
        self.come: asyncio.Future[None] = loop.create_future()
        self.since = loop.time()
        self.step_aside: Callable[[], Awaitable[None]] | None = None
        self.ended: bool = False
        self.handed_on: bool = False
        """Whether the task that began it has ended, as a child of ``gather()`` that opens it for its caller does."""

    def awaits(self, other: Turn) -> bool:
        """Whether its block cannot end before that of ``other``: that was begun inside of it, or its body awaits it."""
        if self in other.within:
            return True
        if self.attempt is None or other.attempt is None or self.attempt is other.attempt:
            return False
        return self.attempt.engine.awaits(self.attempt, other.attempt)


class Turns:
    """The turns of one database on one loop. ``one_writer``: it is a file.

    Where all who hold connections for a purpose wait themselves for somebody who wants one, or may do so, that one
    would wait for ever. It is given one more; but a file takes one writer at a time, so there it is an error.
    """

    def __init__(self, *, one_writer: bool) -> None:
        self._places = {**PLACES, "write": 1} if one_writer else PLACES
        self._one_writer = one_writer
        self.held: dict[Purpose, list[Turn]] = {purpose: [] for purpose in PLACES}
        self._waiting: list[Turn] = []  # in their order
        self._timer: asyncio.TimerHandle | None = None

    @asynccontextmanager
    async def take(self, purpose: Purpose, key: str) -> AsyncIterator[Turn]:
        """A block that may use a connection. Raises ``OSError`` (``EDEADLK``) where it would wait for ever."""
        turn = Turn(purpose, key)
        task, told = asyncio.current_task(), partial(self._hand_on, turn)
        if task is not None:
            task.add_done_callback(told)
        try:
            if len(self.held[purpose]) < self._places[purpose]:
                self._admit(turn)
            else:
                await self._wait(turn)
            _turns.set((*turn.within, turn))
            yield turn
        finally:
            turn.ended = True
            if task is not None:
                task.remove_done_callback(told)
            _turns.set(tuple(other for other in _turns.get() if other is not turn))
            if turn in self.held[purpose]:
                self.held[purpose].remove(turn)
                if len(self.held[purpose]) < self._places[purpose]:
                    self._next(purpose)
                else:
                    self._untie()  # it was one more than there are places: so may be the next

    def innermost(self) -> Turn:
        """The caller's own."""
        return _turns.get()[-1]

    def writer_around(self) -> Turn | None:
        """Who writes in a block the caller is inside of."""
        return next((turn for turn in self.held["write"] if turn in _turns.get()), None)

    def in_the_way(self) -> list[Turn]:
        """Readers who wait for the writer of the file, or whom it waits for: it could not commit before they end."""
        return [
            reader
            for writer in self.held["write"]
            for reader in self.held["read"]
            if reader.awaits(writer) or writer.awaits(reader)
        ]

    def _hand_on(self, turn: Turn, _: object) -> None:
        turn.handed_on = True
        self._untie()

    def _admit(self, turn: Turn) -> None:
        self.held[turn.purpose].append(turn)
        turn.come.set_result(None)

    def _next(self, purpose: Purpose) -> None:
        for turn in self._waiting:
            if turn.purpose == purpose and not turn.come.done():
                self._admit(turn)
                return

    async def _wait(self, turn: Turn) -> None:
        self._waiting.append(turn)
        try:
            if turn.within:
                self._untie()
            if self._timer is None:
                self._timer = asyncio.get_running_loop().call_later(LOOK, self._look)
            await turn.come
        finally:
            self._waiting.remove(turn)
            if turn.come.done() and not turn.come.cancelled():
                turn.come.exception()  # seen, also where the caller was cancelled meanwhile
            if not self._waiting and self._timer is not None:
                self._timer.cancel()
                self._timer = None

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(LOOK, self._look)
        self._untie()  # bodies may have begun to wait for others since
        for turn in self._waiting:
            if loop.time() - turn.since >= SILENCE:
                turn.since = loop.time()
                log.warning("%s waits for its turn to %s; %s", turn.key, turn.purpose, self._who(turn.purpose))

    def _untie(self) -> None:
        waiting = [turn for turn in self._waiting if not turn.come.done()]
        held = [turn for turns in self.held.values() for turn in turns]
        # Whoever has taken a block over may open several at once, and wait for any of those that wait: nobody knows.
        stuck = {turn for turn in held if turn.handed_on or any(turn.awaits(other) for other in waiting)}
        for turn in waiting:
            holders = self.held[turn.purpose]
            if not stuck.issuperset(holders):
                continue  # one of them will be done
            if not (self._one_writer and turn.purpose == "write"):
                if any(other.awaits(turn) for other in held) or any(other.handed_on for other in holders):
                    self._admit(turn)  # one that waits for nobody: the others of its purpose wait for that
            elif holders[0].awaits(turn):
                turn.come.set_exception(self._deadlock(turn))

    def _deadlock(self, turn: Turn) -> OSError:
        return OSError(
            errno.EDEADLK,
            f"{turn.key} would wait for ever for its turn to write into the file: {self._who(turn.purpose)}, which "
            "waits for this to be done. SQLite takes one writer at a time: await what you need "
            "before the transaction begins",
        )

    def _who(self, purpose: Purpose) -> str:
        names = ", ".join(turn.key for turn in self.held[purpose])
        return f"that is held by {names}"
