"""Short calls that a loop gives to threads: many at a time, their results told in bunches.

One queue, drained by one thread while it is quick. A thread more is lent for every tick in which the queue
got on slowly, up to a limit, so a slow call holds up only itself; and a queue of fast ones is not handed to and
fro between threads that all want the interpreter.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from .clock import meter
from .threads import lend

__all__ = ["Crew"]

THREADS = 8
TICK = 0.005  # seconds
SLICE = 0.005  # seconds of results passed on in one turn of the loop

Told = Callable[[Any, BaseException | None], object]


class Crew:
    """The calls of one loop. Its methods are called there.

    A tick with fewer than ``slow`` calls is a slow one.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, *, slow: int) -> None:
        self._loop = loop
        self._slow = slow
        self._meter = meter(loop)
        self._context = contextvars.Context()  # none of whoever happens to wake it
        self._lock = threading.Lock()
        self._calls: deque[tuple[Callable[[], Any], Told]] = deque()
        self._results: deque[tuple[Told, Any, BaseException | None]] = deque()
        self._working = 0
        self._posted = False
        self._drained = 0
        self._timer: asyncio.TimerHandle | None = None

    def put(self, call: Callable[[], Any], told: Told) -> None:
        """Queue ``call()`` for a thread; ``told(result, error)`` is called on the loop afterwards.

        Raises ``RuntimeError`` if there is no thread to be had.
        """
        entry = (call, told)
        with self._lock:
            self._calls.append(entry)
            first = not self._working
            self._working += first
        if first:
            try:
                lend(self._work)
            except RuntimeError:
                with self._lock:
                    self._working -= 1
                    self._calls.remove(entry)
                raise
        elif self._timer is None:
            self._timer = self._loop.call_later(TICK, self._tick, context=self._context)

    def _tick(self) -> None:
        self._timer = None
        with self._lock:
            helps = bool(self._calls) and self._working < THREADS and self._drained < self._slow
            self._working += helps
            self._drained = 0
            waiting = bool(self._calls)
        if helps:
            try:
                lend(self._work)
            except RuntimeError:  # no thread to be had: those at work come to it
                with self._lock:
                    self._working -= 1
        if waiting:
            self._timer = self._loop.call_later(TICK, self._tick, context=self._context)

    def close(self) -> None:
        """Stop the clock; called when nobody waits for a result any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._calls:
                    self._working -= 1
                    return
                call, told = self._calls.popleft()
                self._drained += 1
            result: Any = None
            failure: BaseException | None = None
            try:
                result = call()
            except BaseException as error:
                failure = error
            del call  # what it held is the caller's alone by the time it hears of the result
            # In this order, and the other way round in ``_deliver``: nothing is left untold.
            self._results.append((told, result, failure))
            del told, result, failure
            if not self._posted:
                self._posted = True
                with suppress(RuntimeError):  # the loop has been closed: nobody is left to hear it
                    self._loop.call_soon_threadsafe(self._deliver, context=self._context)

    def _deliver(self) -> None:
        self._posted = False
        deadline = self._meter() + SLICE
        try:
            while self._results:
                told, result, error = self._results.popleft()
                told(result, error)
                del told, result, error
                if self._meter() > deadline:
                    break
        finally:
            if self._results and not self._posted:
                self._posted = True
                self._loop.call_soon(self._deliver, context=self._context)

    @property
    def at_rest(self) -> bool:
        """Whether no thread works for it, and nothing is left to tell."""
        return not (self._working or self._results)
