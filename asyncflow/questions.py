"""Questions for the loop: is this node complete, where only a coroutine can tell?

Those of each build wait in a line of its own and are asked in its context. The first checker works through the line,
and each starts the next one before it does, so there are as many as there are questions that have to wait, and one if
none has. A build whose questions are not answered holds up nobody else's.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from ._task import Task
from .account import Account
from .clock import meter
from .graph import FINAL, Node
from .target import ask, check_answer
from .tree import leaves

__all__ = ["Questions"]

CHECKERS = 1000  # questions open at once, of one build
SLICE = 0.005  # seconds a checker works before it lets others in


class _Line:
    """The questions of one build that wait, and how many checkers ask them."""

    __slots__ = ("account", "coming", "open", "waiting")

    def __init__(self, account: Account) -> None:
        self.account = account
        self.waiting: deque[tuple[Node, Awaitable[Any] | None]] = deque()
        self.open = 0
        self.coming: _Checker | None = None  # has been started, and has not begun


class _Checker:
    """Works through a line; what it asks about now."""

    __slots__ = ("line", "node")

    def __init__(self, line: _Line) -> None:
        self.line = line
        self.node: Node | None = None


class Questions:
    """The questions of one executor. ``answered(node, answer)`` is called with a bool or an exception."""

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
        self._lines: dict[Account, _Line] = {}
        self._checkers: dict[asyncio.Task[None], _Checker] = {}
        self._loose: set[asyncio.Task[None]] = set()  # given up; held strongly, since the loop knows them weakly

    def ask(self, node: Node, begun: Awaitable[Any] | None = None) -> None:
        """Queue the question whether ``node`` is complete; ``begun`` is the answer to one asked in a thread."""
        account: Account = node.build.owner
        line = self._lines.get(account)
        if line is None:
            line = self._lines[account] = _Line(account)
        line.waiting.append((node, begun))
        if line.coming is None:
            self._start_checker(line)

    def _start_checker(self, line: _Line) -> None:
        if line.open < CHECKERS:
            checker = line.coming = _Checker(line)
            line.open += 1
            task = asyncio.Task(self._work(checker), loop=self._loop, context=line.account.context.copy())
            self._checkers[task] = checker
            task.add_done_callback(self._checker_ended)

    def _checker_ended(self, task: asyncio.Task[None]) -> None:
        self._loose.discard(task)
        if not task.cancelled():
            task.exception()  # seen: every answer has been given to its node
        checker = self._checkers.get(task)
        if checker is None:
            return
        self._make_room(task)
        node = checker.node
        if node is not None and node.state < FINAL:  # it was cancelled, and not by us
            place = "complete" if node.task._complete else "exists"
            self._answered(node, asyncio.CancelledError(f"{node.task!r}: its {place}() hook was cancelled"))
            self._wake()

    def _make_room(self, task: asyncio.Task[None]) -> None:
        """``task`` asks no more: another one does, if it is needed."""
        checker = self._checkers.pop(task)
        line = checker.line
        line.open -= 1
        if line.coming is checker:  # it was cancelled before it had begun
            line.coming = None
        if line.waiting:
            if line.coming is None:
                self._start_checker(line)
        elif not line.open:
            self._lines.pop(line.account, None)

    async def _work(self, checker: _Checker) -> None:
        me = asyncio.current_task()
        assert me is not None
        line = checker.line
        waiting = line.waiting
        line.coming = None
        if len(waiting) > 1:
            self._start_checker(line)
        deadline = self._meter() + SLICE
        while waiting and me in self._checkers:
            node, begun = waiting.popleft()
            if node.state >= FINAL:
                if isinstance(begun, Coroutine):
                    begun.close()
            elif node.build.owner is not line.account:  # it was handed over while it waited
                self.ask(node, begun)
            else:
                checker.node = node
                try:
                    answer = await (_complete(node) if begun is None else begun)
                except BaseException as error:
                    if isinstance(error, asyncio.CancelledError) and me.cancelling():
                        raise
                    answer = error  # of no interest any more if the node has its end; never passed on to the loop
                checker.node = None
                self._answered(node, answer)
                self._wake()
            if self._meter() > deadline:
                await asyncio.sleep(0)
                deadline = self._meter() + SLICE

    def stop(self) -> list[asyncio.Task[None]]:
        """Cancel the questions nobody wants answered any more, once; the checkers that are on their way out."""
        for line in self._lines.values():
            while line.waiting and line.waiting[0][0].state >= FINAL:
                _, begun = line.waiting.popleft()
                if isinstance(begun, Coroutine):
                    begun.close()
        # Of those that ask nothing, the ones that would find nothing to ask: they would be alive for a moment.
        stopped = [
            task
            for task, checker in self._checkers.items()
            if (not checker.line.waiting if checker.node is None else checker.node.state >= FINAL)
        ]
        for task in stopped:
            if not task.cancelling():
                task.cancel()
        return stopped

    def asks_for(self, checker: asyncio.Task[Any]) -> Node | None:
        """What ``checker`` asks about now. Any thread."""
        found = self._checkers.get(checker)
        return None if found is None else found.node

    def give_up(self, checker: asyncio.Future[Any]) -> list[tuple[Task, str]]:
        """``checker`` is not waited for any longer: the task it still asks about, and where it is."""
        node = self.asks_for(checker)  # type: ignore[arg-type]
        if node is None:
            return []
        assert isinstance(checker, asyncio.Task)
        self._make_room(checker)
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
