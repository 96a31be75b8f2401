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

from .events import (
    Abandoned,
    BuildFinished,
    BuildStarted,
    BuildStatus,
    Event,
    LoopBlocked,
    TaskFinished,
    TaskProgress,
    TaskStarted,
)
from .graph import FINAL, Demand, Node, final_status

if TYPE_CHECKING:
    from ._task import Task

__all__ = ["Account"]

log = logging.getLogger("asyncflow")


class Account:
    """What one call of ``build()`` asked for, and where its news go."""

    def __init__(
        self, *, concurrency: int, threads: int, grace: float, on_event: Callable[[Event], object] | None
    ) -> None:
        self.concurrency = concurrency
        self.threads = threads
        self.grace = grace
        self.on_event = on_event
        self.context = contextvars.copy_context()
        self.run_id = os.urandom(4).hex()
        self.started = time.time()
        self.epoch = self.started - time.perf_counter()  # added to a perf_counter reading: seconds since 1970
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.stopping: set[asyncio.Future[None]] = set()
        self.nodes: Sequence[Node] = ()  # what the build met, known when it has ended
        self._seq = 0

    def settled(self, demand: Demand) -> None:
        """The build has got what it will get."""
        if not self.done.done():
            self.done.set_result(None)

    def emit(self, kind: type[Event], *values: Any) -> None:
        """Tell the listener; what it raises is logged."""
        if self.on_event is None:
            return
        self._seq += 1
        try:
            self.context.run(self.on_event, kind(self._seq, time.time(), self.run_id, *values))
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
        """The build is over."""
        if self.on_event is not None:
            counts = Counter(node.state for node in self.nodes if node.state >= FINAL)
            self.emit(BuildFinished, status, {final_status(state): n for state, n in sorted(counts.items())})
