"""Where bodies run. A runner is told ``start`` and ``cancel``, and reports what became of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

from ..attempt import Attempt
from ..graph import Demand

__all__ = ["Reports", "Runner"]


class Reports(Protocol):
    """What a runner tells; every call is made on the loop. Late reports of an abandoned attempt are ignored."""

    loop: asyncio.AbstractEventLoop

    def suspended(self, attempt: Attempt, structure: Any, reply: Callable[[Demand], object]) -> Demand:
        """The body waits for the tasks in ``structure``; ``reply(demand)`` is called when they have ended."""
        ...

    def left(self, attempt: Attempt, demand: Demand) -> None:
        """The body does not wait for ``demand`` any more."""

    def said(self, attempt: Attempt, source: str, level: int, message: str) -> None:
        """The body has printed a line (level 0), or logged something. Any thread."""

    def returned(self, attempt: Attempt, value: Any) -> None:
        """The body ended with ``value``; whether its outputs are there has not been looked at."""

    def finished(self, attempt: Attempt, value: Any) -> None:
        """The body ended with ``value``, and its outputs are there."""

    def failed(self, attempt: Attempt, error: BaseException) -> None:
        """The body raised ``error``."""

    def cancelled(self, attempt: Attempt) -> None:
        """The body was asked to stop, and has."""


class Runner(Protocol):
    """One way of running bodies. Every call is made on the loop, and returns at once."""

    def start(self, attempt: Attempt) -> None:
        """Enter the body of ``attempt.task``, in a copy of its build's context."""

    def cancel(self, attempt: Attempt) -> None:
        """Ask the body to stop; may be called more than once."""

    def close(self) -> None:
        """No build is left in this loop."""

    def stack(self, attempt: Attempt) -> list[str]:
        """Where the body is now, one line a frame, innermost last; for a body that does not stop."""
        ...
