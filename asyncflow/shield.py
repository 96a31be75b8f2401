"""The one shielded step: something that must come to its end although its caller is cancelled."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Coroutine
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

__all__ = ["finish"]

T = TypeVar("T")

PATIENCE = 30.0
"""Seconds a cancelled caller waits for the step to end, e.g. on a file system that does not answer."""


class _Step(asyncio.Task[T]):
    """Cannot be cancelled until its caller has given it up: ``asyncio.run`` cancels every task at its end."""

    given_up = False

    def cancel(self, msg: Any | None = None) -> bool:
        return self.given_up and super().cancel(msg)


_given_up: set[_Step[Any]] = set()  # held strongly: the loop only knows its tasks weakly


async def finish(step: Coroutine[Any, Any, T]) -> T:
    """Await ``step`` to its end whatever cancels arrive meanwhile, then let the first of them through.

    ``step`` must be short. It runs as a task of its own, since a shield of anyio's is pierced by
    ``task.cancel()`` and by ``asyncio.timeout``, and ``asyncio.shield`` returns before its child has ended.

    Raises ``asyncio.CancelledError`` if the caller was cancelled (the step has ended by then, unless it took
    more than ``PATIENCE`` seconds), else what the step raised.
    """
    loop = asyncio.get_running_loop()
    task = _Step(step, loop=loop)  # itself, not loop.create_task: a task factory of the host's is for the host's
    cancelled: asyncio.CancelledError | None = None
    deadline = None
    with _still():
        while not task.done():
            try:
                await asyncio.wait([task], timeout=None if deadline is None else deadline - loop.time())
            except asyncio.CancelledError as error:
                cancelled = cancelled or error
                deadline = deadline or loop.time() + PATIENCE
            if deadline is not None and loop.time() >= deadline and not task.done():
                task.given_up = True
                _given_up.add(task)
                task.add_done_callback(_given_up.discard)
                break
    try:
        if cancelled is None:
            return task.result()
        if task.done() and not task.cancelled():
            task.exception()  # the cancel stands for it; marked as seen, so nothing is logged
        raise cancelled
    finally:
        del task, cancelled  # their tracebacks hold this frame


def _still() -> AbstractContextManager[object]:
    """Keeps a cancelled anyio scope further out from waking the wait over and over.

    Where nobody has entered one there is none, and anyio has not loaded its backend, which would hold up the loop for
    20 ms, or 100 on a busy machine.
    """
    if "anyio._backends._asyncio" not in sys.modules:
        return nullcontext()
    import anyio

    return anyio.CancelScope(shield=True)
