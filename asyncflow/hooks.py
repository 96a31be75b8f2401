"""Sync ``exists()`` and ``complete()``: asked in threads, many at a time, answered in bunches.

One queue, drained by one thread while it is quick. A thread more is lent for every tick in which the queue
got on slowly, up to ``THREADS``, so a slow ``exists`` holds up only itself; and a queue of fast ones is not
handed to and fro between threads that all want the interpreter.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

from .clock import meter
from .graph import FINAL, Node
from .target import Target, ask, check_answer
from .threads import lend
from .tree import leaves

__all__ = ["Hooks"]

THREADS = 8
TICK = 0.005  # seconds
SLICE = 0.005  # seconds of answers passed on in one turn of the loop
SLOW = 64  # answers per tick below which another thread may help


class Hooks:
    """The queue of one executor. ``answered(node, answer)`` is called on its loop, with a bool, an awaitable
    that gives one, or an exception."""

    def __init__(self, loop: asyncio.AbstractEventLoop, answered: Callable[[Node, Any], None]) -> None:
        self._loop = loop
        self._meter = meter(loop)
        self._answered = answered
        self._lock = threading.Lock()
        self._nodes: deque[Node] = deque()
        self._answers: deque[tuple[Node, Any]] = deque()
        self._working = 0
        self._posted = False
        self._drained = 0
        self._timer: asyncio.TimerHandle | None = None

    def ask(self, node: Node) -> None:
        """Queue the question whether ``node`` is complete."""
        with self._lock:
            self._nodes.append(node)
            first = not self._working
            self._working += first
        if first:
            lend(self._work)
        if self._timer is None:
            self._timer = self._loop.call_later(TICK, self._tick)

    def _tick(self) -> None:
        self._timer = None
        with self._lock:
            help_ = bool(self._nodes) and self._working < THREADS and self._drained < SLOW
            self._working += help_
            self._drained = 0
            waiting = bool(self._nodes)
        if help_:
            lend(self._work)
        if waiting:
            self._timer = self._loop.call_later(TICK, self._tick)

    def close(self) -> None:
        """Stop the clock; called when nothing is left to ask."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._nodes:
                    self._working -= 1
                    return
                node = self._nodes.popleft()
                self._drained += 1
            if node.state >= FINAL:
                continue  # nobody wants to know any more
            try:
                answer = node.build.owner.context.copy().run(_ask, node)
            except BaseException as error:
                answer = error
            with self._lock:
                self._answers.append((node, answer))
                post = not self._posted
                self._posted = True
            del node, answer
            if post:
                try:
                    self._loop.call_soon_threadsafe(self._deliver)
                except RuntimeError:
                    return  # the loop has been closed: nobody is left to hear it

    def _deliver(self) -> None:
        deadline = self._meter() + SLICE
        while True:
            with self._lock:
                if not self._answers:
                    self._posted = False
                    return
                node, answer = self._answers.popleft()
            self._answered(node, answer)
            if self._meter() > deadline:
                self._loop.call_soon(self._deliver)
                return


def _ask(node: Node) -> Any:
    """In a thread: whether ``node`` is complete; an awaitable where only the loop can tell."""
    task = node.task
    if task._complete is not None:
        answer = task._complete()
        if hasattr(answer, "__await__"):
            return _promised(task, "complete", answer)
        return check_answer(task, "complete", answer)
    targets = (target for target in leaves(node.output) if type(target)._many is None)  # the others are there
    for target in targets:
        answer = target._exists()
        if hasattr(answer, "__await__"):
            return _rest(target, answer, targets)
        if not check_answer(target, "exists", answer):
            return False
    return True


async def _promised(owner: object, hook: str, answer: Awaitable[Any]) -> bool:
    return check_answer(owner, hook, await answer)


async def _rest(target: Target, answer: Awaitable[Any], others: Iterator[Target]) -> bool:
    """The rest of the question, on the loop: a plain ``def exists`` gave an awaitable. None is asked twice."""
    if not check_answer(target, "exists", await answer):
        return False
    for other in others:
        if not await ask(other):
            return False
    return True
