"""Questions for the loop: is this node complete, where only a coroutine can tell?

The first checker works through the queue, and each starts the next one before it does, so there are as many as
there are questions that have to wait, and one if none has.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from ._task import Task
from .clock import meter
from .graph import FINAL, Node
from .target import ask, check_answer
from .tree import leaves

__all__ = ["Questions"]

CHECKERS = 1000  # questions open at once
SLICE = 0.005  # seconds a checker works before it lets others in


class Questions:
    """The queue of one executor. ``answered(node, answer)`` is called with a bool or an exception."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        answered: Callable[[Node, Any], None],
        wake: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._meter = meter(loop)
        self._answered = answered
        self._wake = wake
        self._questions: deque[tuple[Node, Awaitable[Any] | None]] = deque()
        self._checkers: dict[asyncio.Task[None], Node | None] = {}
        self._loose: set[asyncio.Task[None]] = set()  # given up; held strongly, since the loop knows them weakly

    def ask(self, node: Node, begun: Awaitable[Any] | None = None) -> None:
        """Queue the question whether ``node`` is complete; ``begun`` is the answer to one asked in a thread."""
        self._questions.append((node, begun))
        if len(self._questions) == 1:
            self._start_checker()

    def _start_checker(self) -> None:
        if len(self._checkers) < CHECKERS:
            context = self._questions[0][0].build.owner.context
            task = asyncio.Task(self._work(), loop=self._loop, context=context.copy())
            self._checkers[task] = None
            task.add_done_callback(self._checker_ended)

    def _checker_ended(self, task: asyncio.Task[None]) -> None:
        self._checkers.pop(task, None)
        self._loose.discard(task)
        if not task.cancelled():
            task.exception()  # seen: every answer has been given to its node
        if self._questions and not self._checkers:
            self._start_checker()

    async def _work(self) -> None:
        me = asyncio.current_task()
        assert me is not None
        if len(self._questions) > 1:
            self._start_checker()
        deadline = self._meter() + SLICE
        while self._questions and me not in self._loose:
            node, begun = self._questions.popleft()
            if node.state < FINAL:
                self._checkers[me] = node
                try:
                    answer = await (_complete(node) if begun is None else begun)
                except BaseException as error:
                    if isinstance(error, asyncio.CancelledError) and me.cancelling():
                        raise
                    answer = error  # of no interest any more if the node has its end; never passed on to the loop
                if me not in self._loose:
                    self._checkers[me] = None
                self._answered(node, answer)
                self._wake()
            elif isinstance(begun, Coroutine):
                begun.close()
            if self._meter() > deadline:
                await asyncio.sleep(0)
                deadline = self._meter() + SLICE

    def stop(self) -> list[asyncio.Task[None]]:
        """Cancel the questions nobody wants answered any more, once; the checkers that are on their way out."""
        stopped = [task for task, node in self._checkers.items() if node is not None and node.state >= FINAL]
        while self._questions and self._questions[0][0].state >= FINAL:
            _, begun = self._questions.popleft()
            if isinstance(begun, Coroutine):
                begun.close()
        if not self._questions:
            # Those that were just started would find nothing to ask, but they would be alive for a moment.
            stopped += [task for task, node in self._checkers.items() if node is None]
        for task in stopped:
            if not task.cancelling():
                task.cancel()
        return stopped

    def asks_for(self, checker: asyncio.Task[Any]) -> Node | None:
        """What ``checker`` asks about now. Any thread."""
        return self._checkers.get(checker)

    def give_up(self, checker: asyncio.Future[Any]) -> list[tuple[Task, str]]:
        """``checker`` is not waited for any longer: the task it still asks about, and where it is."""
        node = self._checkers.get(checker)  # type: ignore[call-overload]
        if node is None:
            return []
        assert isinstance(checker, asyncio.Task)
        del self._checkers[checker]
        self._loose.add(checker)
        return [(node.task, f"in its {'complete' if node.task._complete else 'exists'}() hook")]


async def _complete(node: Node) -> bool:
    """Its own ``complete()``; or its targets in order, as far as they are there; not those asked in bulk."""
    task = node.task
    if task._complete is not None:
        return check_answer(task, "complete", await task._complete())
    for target in leaves(node.output):
        if type(target)._many is None and not await ask(target):
            return False
    return True
