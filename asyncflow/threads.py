"""Our own daemon threads, lent out one job at a time.

Why not the ones at hand: anyio's worker threads are not daemons, and ``asyncio.run`` waits for its default
pool at the end, so a build that was cancelled after 0.1 s would return when its slowest thread does. Daemons
die with the interpreter; nothing a cancelled body left behind may be published (``attempt.py`` sees to that).

``lend`` gives a job a thread for as long as it likes (a sync generator keeps one for life). ``Pool`` is a
bounded queue of short calls over lent threads; it is a ``concurrent.futures.Executor``, so both
``loop.run_in_executor`` and aiofiles take it. Idle threads leave after ``IDLE`` seconds or at ``trim()``.
"""

from __future__ import annotations

import os
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from functools import partial
from typing import Any, ParamSpec, Protocol, TypeVar

__all__ = ["IDLE", "LEAVE", "Counter", "Pool", "counted_by", "files", "lend", "parked", "trim", "woken"]

P = ParamSpec("P")
R = TypeVar("R")

IDLE = 10.0
"""Seconds an idle thread waits for another job before it ends."""

LEAVE: Any = object()

_lock = threading.Lock()
_idle: list[_Worker] = []


class _Worker(threading.Thread):
    def __init__(self) -> None:
        super().__init__(name="asyncflow", daemon=True)
        self.jobs: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()

    def run(self) -> None:
        while True:
            try:
                job = self.jobs.get(timeout=IDLE)
            except queue.Empty:
                with _lock:
                    if self in _idle:
                        _idle.remove(self)
                        return
                continue  # lent out in this very moment: the job is on its way
            if job is None:
                return
            if job() is LEAVE:
                return
            del job  # what the job held must not live on in an idle thread
            with _lock:
                _idle.append(self)


def lend(job: Callable[[], object]) -> None:
    """Run ``job()``, which must not raise, in a daemon thread of its own; idle threads are used first.

    A job that gives ``LEAVE`` sends its thread home: it ends after the last build, when idle ones have gone.
    """
    with _lock:
        worker = _idle.pop() if _idle else None
    if worker is None:
        worker = _Worker()
        worker.start()
    counter = _loop.counter
    worker.jobs.put(job if counter is None else counter.lent(job))


def trim() -> None:
    """Send every idle thread home now. Called when the last build of a loop has ended."""
    with _lock:
        workers = _idle[:]
        _idle.clear()
    for worker in workers:
        worker.jobs.put(None)


def _forked() -> None:
    # The child has none of the parent's threads, and the lock may have been held by one of them.
    global _lock
    _lock = threading.Lock()
    _idle.clear()
    files._forked()


# Who is at work ------------------------------------------------------------------------------------------
#
# A simulated loop lets time jump when nothing is at work any more, so it has to know how many threads are.
# Nobody else counts: a thread's loop has no counter then, and `lend` costs one look at a thread-local more.


class Counter(Protocol):
    """Counts the threads at work for one loop. Every call is made in that loop's own thread."""

    def lent(self, job: Callable[[], object]) -> Callable[[], object]:
        """One thread more, until what this gives in place of ``job`` has been called and has returned."""
        ...

    def parked(self) -> None:
        """One less: it waits for something that this loop is going to tell it."""

    def woken(self) -> None:
        """One more: it is told in this very step."""


class _Loop(threading.local):
    counter: Counter | None = None  # of the loop that runs in this thread


_loop = _Loop()


@contextmanager
def counted_by(counter: Counter) -> Iterator[None]:
    """The threads that this thread lends out are counted by ``counter`` while the block lasts."""
    before, _loop.counter = _loop.counter, counter
    try:
        yield
    finally:
        _loop.counter = before


def parked() -> None:
    """A lent thread waits for the loop that runs here. Said by the loop, once it knows what the thread waits for."""
    if _loop.counter is not None:
        _loop.counter.parked()


def woken() -> None:
    """It goes on. Said by the loop as it wakes it: a thread that said so itself would be late by a moment."""
    if _loop.counter is not None:
        _loop.counter.woken()


def _nothing() -> None:
    pass


class Pool(Executor):
    """At most ``limit`` threads working through one queue of calls, in order."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._forked()

    def _forked(self) -> None:
        self._lock = threading.Lock()
        self._working = 0
        self._calls: deque[tuple[Future[Any], Callable[[], Any]]] = deque()

    def submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """Queue ``fn(*args, **kwargs)``; its result or exception arrives in the future."""
        future: Future[R] = Future()
        call = (future, partial(fn, *args, **kwargs))
        with self._lock:
            self._calls.append(call)
            more = self._working < self._limit
            self._working += more
        if more:
            try:
                lend(self._work)
            except RuntimeError:  # no thread to be had
                with self._lock:
                    self._working -= 1
                    if not self._working and call in self._calls:
                        self._calls.remove(call)
                        raise
                # Those who are at work come to it.
        return future

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._calls:
                    self._working -= 1
                    return
                future, call = self._calls.popleft()
            if future.set_running_or_notify_cancel():
                try:
                    result = call()
                except StopIteration as error:  # asyncio's futures take no such thing, and their caller would hang
                    wrong = RuntimeError(f"{call!r} raised StopIteration")
                    wrong.__cause__ = error
                    future.set_exception(wrong)
                    del wrong
                except BaseException as error:
                    future.set_exception(error)
                else:
                    call = _nothing  # what it held is the caller's alone by the time it hears of the result
                    future.set_result(result)
                    del result
            del future, call


files = Pool(8)
"""Where file operations of the loop's handles run: opening, reading, writing, publishing."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
