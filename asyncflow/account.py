"""The executor's record of one build: its options, its context, and those who listen to it."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from . import links
from .clock import clock
from .events import (
    Abandoned,
    BuildFinished,
    BuildStarted,
    BuildStatus,
    Event,
    LoopBlocked,
    TaskFinished,
    TaskLog,
    TaskProgress,
    TaskRetry,
    TaskStarted,
)
from .graph import FINAL, Budget, Demand, Node, final_status
from .parameters.frozen import FrozenDict

if TYPE_CHECKING:
    from ._task import Task

__all__ = ["Account"]


def _none(task: Task) -> bool:
    return False


def _all(task: Task) -> bool:
    return True


log = logging.getLogger("asyncflow")


class Account:
    """What one call of ``build()`` asked for, and where its news go."""

    def __init__(
        self,
        *,
        budget: Budget,
        grace: float,
        timeout: float | None = None,
        on_event: Callable[[Event], object] | None = None,
        retries: int = 0,
        fail_fast: bool = False,
        selects: Callable[[Task], bool] | None = None,
    ) -> None:
        self.budget = budget
        self.grace = grace
        self.timeout = timeout
        self.retries = retries
        self.fail_fast = fail_fast
        self.particular = selects is not None
        """Its plans are not those of others: it decides for itself what runs."""
        self.forces: Callable[[Task], bool] = _none
        self.selects = selects or _all
        self.why: str | None = None  # the build was stopped
        self.status: BuildStatus | None = None  # it is over
        self.context = context = contextvars.copy_context()
        context.run(links.resolve.set, links.remembering())
        self.listeners: list[Callable[[Event], object]] = []
        """Who is told. The executor asks once, as it opens the build; nothing is told after ``BuildFinished``."""
        if on_event is not None:
            self.listeners.append(lambda event: context.run(on_event, event))
        self.run_id = os.urandom(4).hex()
        loop = asyncio.get_running_loop()
        self.started = time.time()
        self._clock = clock(loop)
        self.epoch = self.started - self._clock()  # added to a reading of the clock: seconds since 1970
        self.ended: float | None = None  # as `started`
        self.demand: Demand | None = None  # while the build is open
        self.done: asyncio.Future[None] = loop.create_future()
        self.stopping: set[asyncio.Future[None]] = set()
        self.nodes: Sequence[Node] = ()  # what the build met, known when it has ended
        self._seq = 0

    def force(self, forces: Callable[[Task], bool] | None) -> None:
        """Tasks for which ``forces`` is true are run although they are complete. Not once the build is open."""
        if forces is not None:
            self.forces, self.particular = forces, True

    def settled(self, demand: Demand) -> None:
        """The build has got what it will get."""
        if not self.done.done():
            self.done.set_result(None)

    def now(self) -> float:
        """Seconds since 1970, by the clock of the build's loop: it never goes back while the build lasts."""
        return self.epoch + self._clock()

    def emit(self, kind: type[Event], *values: Any) -> None:
        """Tell the listeners; what one raises is logged."""
        if not self.listeners:
            return
        self._seq += 1
        event = kind(self._seq, self.now(), self.run_id, *values)
        for listener in self.listeners:
            try:
                listener(event)
            except BaseException:  # SystemExit too: a listener's failure is never the engine's
                log.exception("the on_event callback of build %s failed", self.run_id)

    def started_build(self, tasks: Sequence[Task]) -> None:
        """The build begins."""
        self.emit(BuildStarted, tuple(tasks))

    def started_task(self, node: Node) -> None:
        """A body is about to be entered."""
        self.emit(TaskStarted, node.task, node.reason)

    def progressed(self, task: Task, fraction: float, message: str) -> None:
        """A body says how far it is."""
        self.emit(TaskProgress, task, fraction, message)

    def said(self, task: Task, source: str, level: int, message: str) -> None:
        """A body has printed or logged something."""
        self.emit(TaskLog, task, source, level, message)

    def retrying(self, node: Node, wait: float) -> None:
        """An attempt has failed, and there will be another in ``wait`` seconds."""
        failures = node.build.failures[node]
        self.emit(TaskRetry, node.task, len(failures), wait, failures[-1][2])

    def expire(self) -> None:
        """The build's time is up."""
        self.stop(f"the build took more than its timeout of {self.timeout:g} s")

    def stop(self, why: str) -> None:
        """End the build as it is, with the status ``cancelled``; nothing if it has got what it will get."""
        if not self.done.done():
            self.why = why
            self.done.set_result(None)

    def finished_task(self, node: Node) -> None:
        """A node has its final state."""
        started, finished = node.build.times[2 * node.index : 2 * node.index + 2]
        self.emit(TaskFinished, node.task, final_status(node.state), finished - started, node.error)

    def abandoned(self, task: Task, stack: list[str]) -> None:
        """A body did not stop in time."""
        place = f"; last seen at {stack[-1]}" if stack else ""
        log.warning("%r did not stop within %g s and is left behind; it can publish nothing%s", task, self.grace, place)
        self.emit(Abandoned, task, tuple(stack))

    def blocked(self, task: Task | None, seconds: float, place: str) -> None:
        """The loop was held up."""
        self.emit(LoopBlocked, task, seconds, place)

    def finished_build(self, status: BuildStatus) -> None:
        """The build is over. Only the first call counts."""
        if self.status is not None:
            return
        self.status = status
        self.ended = self.now()
        self.demand = None
        if self.listeners:
            counts = Counter(node.state for node in self.nodes if node.state >= FINAL)
            by_status = FrozenDict({final_status(state): count for state, count in sorted(counts.items())})
            self.emit(BuildFinished, status, by_status)
            self.listeners = []  # what goes on for builds of other loops is not told any more
