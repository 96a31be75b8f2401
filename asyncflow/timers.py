"""What an executor does by the clock: the next attempt, the time limit of one, units of rates."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

from .attempt import Attempt
from .graph import RUNNING, Node
from .scheduler import Scheduler

__all__ = ["Timers"]


class Timers:
    """The timers of one executor. ``time_out(attempt)`` is called when an attempt has been at work too long."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        scheduler: Scheduler,
        wake: Callable[[], None],
        time_out: Callable[[Attempt], None],
    ) -> None:
        self._loop = loop
        self._scheduler = scheduler
        self._wake = wake
        self._time_out = time_out
        # A simulated loop brings the chance that its seed decides.
        self._random: random.Random = getattr(loop, "random", None) or random.Random()
        self._resting: dict[Node, asyncio.TimerHandle] = {}
        self._rates: asyncio.TimerHandle | None = None

    def rest(self, node: Node) -> float:
        """Another attempt at ``node`` after its delay, which is returned, in seconds."""
        failures = len(node.build.failures[node])
        delay = node.options.delay(failures, self._random.uniform)
        self._resting[node] = self._loop.call_later(delay, self._rested, node)
        return delay

    def _rested(self, node: Node) -> None:
        del self._resting[node]
        self._scheduler.again(node)
        self._wake()

    def dismiss(self, node: Node) -> None:
        """There will be no other attempt at ``node``."""
        timer = self._resting.pop(node, None)
        if timer is not None:
            timer.cancel()

    def limit(self, attempt: Attempt) -> None:
        """Go on counting the time of ``attempt`` if it is at work, else stop."""
        running = attempt.node.state == RUNNING and not attempt.cancelled
        if running and attempt.timer is None:
            attempt.timer = self._loop.call_later(attempt.time_left, self._time_out, attempt)
        elif not running and attempt.timer is not None:
            attempt.time_left = max(0.0, attempt.timer.when() - self._loop.time())
            attempt.timer.cancel()
            attempt.timer = None

    def tick(self) -> None:
        """Tell the scheduler what time it is."""
        self._scheduler.tick(self._loop.time())

    def arm(self) -> None:
        """Come back when a rate has units again that somebody waits for."""
        due = self._scheduler.due()
        if self._rates is not None:
            self._rates.cancel()
            self._rates = None
        if due is not None:
            self._rates = self._loop.call_at(due, self._wake)

    def close(self) -> None:
        """The last build has ended."""
        if self._rates is not None:
            self._rates.cancel()
            self._rates = None
