"""Questions asked many at a time: ``exists_many`` of a target class.

What is asked about targets of one class is gathered until the loop has come round, and for as long as the planner
has more to look at: a store answers ten thousand questions as fast as one, and nobody waits for a timer. One that
is still alone then is put to the target's own ``exists``. What comes while ``CALLS`` calls are out goes into the
next one. A call is made in the context of the build that asks, so those of two builds are two.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextvars import copy_context
from functools import partial
from inspect import isawaitable, iscoroutinefunction
from typing import TYPE_CHECKING, Any, TypeAlias

from .account import Account
from .clock import meter
from .graph import LOCKING, NEW, Node
from .target import Target, check_answer, check_answers
from .threads import Pool

if TYPE_CHECKING:
    from ._task import Task

__all__ = ["Bulk"]

MOST = 10_000  # targets in one call
CALLS = 4  # open at once, for one class and one build
TURNS = 20  # of the loop that a question waits for others at most, 5 ms of planning each
THREADS = 8  # in which sync ones are made
NAMED = 10  # tasks of a call that was given up
SLICE = 0.005  # seconds of answers passed on in one turn of the loop

Answer: TypeAlias = "bool | BaseException"
Kind: TypeAlias = tuple[Account, type[Target]]
Row: TypeAlias = "tuple[Node, Sequence[Target], asyncio.Future[list[Answer]] | None]"


class Bulk:
    """The questions of one executor. ``answered(node, targets, answer)`` is called with a bool or an exception.

    ``more()`` says whether the planner is going to ask more as soon as it is its turn.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        answered: Callable[[Node, Sequence[Target], Any], None],
        wake: Callable[[], None],
        more: Callable[[], bool],
    ) -> None:
        self._loop = loop
        self._meter = meter(loop)
        self._answered = answered
        self._wake = wake
        self._more = more
        self._pool = Pool(THREADS)
        self._waiting: dict[Kind, deque[Row]] = {}
        self._calls: dict[asyncio.Task[None], tuple[Kind, deque[Row]]] = {}
        self._open: Counter[Kind] = Counter()
        self._loose: set[asyncio.Task[None]] = set()  # given up; held strongly, since the loop knows them weakly
        self._turn: asyncio.Handle | None = None
        self._turns = 0

    # Gathering ---------------------------------------------------------------------------------------

    def ask(self, node: Node, targets: Sequence[Target], reply: asyncio.Future[list[Answer]] | None = None) -> None:
        """Queue the question whether ``targets`` of ``node``, all of one class, are there.

        ``reply`` gets an answer for each. Without it ``node`` gets one for all, as if they were asked in order.
        """
        kind = node.build.owner, type(targets[0])
        rows = self._waiting.get(kind)
        if rows is None:
            rows = self._waiting[kind] = deque()
        rows.append((node, targets, reply))
        if len(rows) >= MOST:
            self._send(kind)
        elif self._turn is None:
            self._turns = 0
            self._turn = self._loop.call_soon(self._come_round)

    async def exist(self, node: Node, targets: Sequence[Target]) -> list[Answer]:
        """For each of ``targets``, all of one class, whether it is there, or why that cannot be known."""
        reply: asyncio.Future[list[Answer]] = self._loop.create_future()
        self.ask(node, targets, reply)
        return await reply

    def _come_round(self) -> None:
        self._turn = None
        if self._turns < TURNS and self._more():
            self._turns += 1
            self._turn = self._loop.call_soon(self._come_round)
            return
        for kind in list(self._waiting):
            self._send(kind)

    def _send(self, kind: Kind) -> None:
        """Make the calls that what has gathered is enough for, as far as there is a place for them."""
        rows = self._waiting.get(kind)
        while rows and self._open[kind] < CALLS:
            batch: deque[Row] = deque()
            count = 0
            while rows and (not batch or count + len(rows[0][1]) <= MOST):
                row = rows.popleft()
                if _wanted(row):
                    batch.append(row)
                    count += len(row[1])
            if batch:
                task = asyncio.Task(self._call(kind[1], batch), loop=self._loop, context=kind[0].context.copy())
                self._calls[task] = kind, batch
                self._open[kind] += 1
                task.add_done_callback(self._ended)
        if not rows:
            self._waiting.pop(kind, None)

    # Calls -------------------------------------------------------------------------------------------

    async def _call(self, kind: type[Target], rows: deque[Row]) -> None:
        me = asyncio.current_task()
        assert me is not None
        targets = [target for _, row, _ in rows for target in row]
        answers: list[Answer]
        try:
            answers = []
            for start in range(0, len(targets), MOST):  # one node may have more of them than go into one call
                answers += await self._question(kind, targets[start : start + MOST])
        except BaseException as error:
            if isinstance(error, asyncio.CancelledError) and me.cancelling():
                raise
            answers = [error] * len(targets)  # never passed on to the loop
        deadline = self._meter() + SLICE
        given = 0
        while rows:
            row = rows.popleft()
            self._tell(row, answers[given : given + len(row[1])])
            given += len(row[1])
            if self._meter() > deadline:
                self._wake()
                await asyncio.sleep(0)
                deadline = self._meter() + SLICE
        self._wake()

    async def _question(self, kind: type[Target], targets: list[Target]) -> list[Answer]:
        many = kind._many
        assert many is not None
        if alone := len(targets) == 1:
            answer = await self._made(targets[0]._exists, on_loop=kind._how == "loop")
        else:
            answer = await self._made(partial(many, targets), on_loop=iscoroutinefunction(many))
        return [check_answer(targets[0], "exists", answer)] if alone else check_answers(kind, targets, answer)

    async def _made(self, call: Callable[[], Any], *, on_loop: bool) -> Any:
        answer = call() if on_loop else await self._loop.run_in_executor(self._pool, copy_context().run, call)
        return await answer if isawaitable(answer) else answer

    def _tell(self, row: Row, answers: list[Answer]) -> None:
        node, targets, reply = row
        if reply is None:
            # What they come to if one asks in order, up to the first that is not there.
            self._answered(node, targets, next((answer for answer in answers if answer is not True), True))
        elif not reply.done():
            reply.set_result(answers)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._loose.discard(task)
        kind, rows = self._calls.get(task, (None, ()))
        if kind is None:
            return
        for row in rows:  # it was cancelled, and not by us
            if _wanted(row):
                self._tell(row, [asyncio.CancelledError(f"{kind[1].__name__}.exists_many() was cancelled")])
                self._wake()
        self._make_room(task, kind)

    def _make_room(self, call: asyncio.Task[None], kind: Kind) -> None:
        del self._calls[call]
        self._open[kind] -= 1
        if not self._open[kind]:
            del self._open[kind]
        self._send(kind)

    # Leaving -----------------------------------------------------------------------------------------

    def stop(self) -> list[asyncio.Task[None]]:
        """Cancel the calls nobody wants answered any more, once; those that are on their way out."""
        stopped = [task for task, (_, rows) in self._calls.items() if not any(map(_wanted, rows))]
        for task in stopped:
            if not task.cancelling():
                task.cancel()
        return stopped

    def asks_for(self, call: asyncio.Task[Any]) -> Node | None:
        """The first of those ``call`` is about. Any thread."""
        _, rows = self._calls.get(call, (None, ()))
        return next((node for node, _, _ in list(rows)), None)

    def give_up(self, call: asyncio.Future[Any]) -> list[tuple[Task, str]]:
        """``call`` is not waited for any longer: some of the tasks it was about, and where it is."""
        kind, rows = self._calls.get(call, (None, ()))  # type: ignore[call-overload]
        if kind is None:
            return []
        assert isinstance(call, asyncio.Task)
        self._loose.add(call)
        self._make_room(call, kind)
        tasks = list(dict.fromkeys(node.task for node, _, _ in rows))
        others = f", with {len(tasks) - NAMED:,} tasks more" if len(tasks) > NAMED else ""
        return [(task, f"in {kind[1].__name__}.exists_many(){others}") for task in tasks[:NAMED]]

    def close(self) -> None:
        """The last build has ended: nobody waits for an answer any more."""
        self._waiting.clear()
        if self._turn is not None:
            self._turn.cancel()
            self._turn = None


def _wanted(row: Row) -> bool:
    node, _, reply = row
    return node.state in (NEW, LOCKING) if reply is None else not reply.done()
