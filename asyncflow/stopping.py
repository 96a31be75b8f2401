"""Bodies that are being stopped: asked once, asked again after half of the grace, given up after all of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from .account import Account
from .attempt import Attempt

__all__ = ["Stopping"]


class Stopping:
    """What one executor is stopping. ``stop(attempt)`` asks a body to; ``give_up(attempt)`` leaves it behind."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        stop: Callable[[Attempt], object],
        give_up: Callable[[Attempt], object],
    ) -> None:
        self._loop = loop
        self._stop = stop
        self._give_up = give_up
        self._attempts: dict[Attempt, tuple[asyncio.Future[None], asyncio.TimerHandle]] = {}

    def begin(self, attempt: Attempt) -> None:
        """Fence ``attempt`` and ask its body to stop; its build can wait for that (``Account.stopping``)."""
        account: Account = attempt.node.build.owner
        if attempt in self._attempts:  # its time was up, say, and now nobody wants it: who was the last waits for it
            self._awaited(account, self._attempts[attempt][0])
            return
        attempt.cancelled = True
        attempt.fence()
        future = self._loop.create_future()
        self._attempts[attempt] = future, self._loop.call_later(account.grace / 2, self._insist, attempt)
        self._awaited(account, future)
        self._stop(attempt)

    def _awaited(self, account: Account, future: asyncio.Future[None]) -> None:
        account.stopping.add(future)
        future.add_done_callback(account.stopping.discard)

    def ended(self, attempt: Attempt) -> None:
        """The body has stopped, or has been given up."""
        future, timer = self._attempts.pop(attempt, (None, None))
        if timer is not None:
            timer.cancel()
        if future is not None and not future.done():
            future.set_result(None)

    def _insist(self, attempt: Attempt) -> None:
        self._stop(attempt)  # it has swallowed the first cancel
        self._again(attempt)

    def _again(self, attempt: Attempt) -> None:
        if attempt in self._attempts:
            future, _ = self._attempts[attempt]
            timer = self._loop.call_later(attempt.node.build.owner.grace / 2, self._time_is_up, attempt)
            self._attempts[attempt] = future, timer

    def _time_is_up(self, attempt: Attempt) -> None:
        if attempt.publishing:
            # What it is making visible will be there: it is not said to be given up before that has ended.
            self._again(attempt)
        else:
            self._give_up(attempt)

    def __len__(self) -> int:
        return len(self._attempts)
