"""The one shielded step: something that must come to its end although its caller is cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

__all__ = ["finish"]

T = TypeVar("T")

PATIENCE = 30.0
"""Seconds a cancelled caller waits for the step to end, e.g. on a file system that does not answer."""


async def finish(step: Coroutine[Any, Any, T]) -> T:
    """Await ``step`` to its end whatever cancels arrive meanwhile, then let the first of them through.

    ``step`` must be short. It runs as a task of its own, since a shield of anyio's is pierced by
    ``task.cancel()`` and by ``asyncio.timeout``, and ``asyncio.shield`` returns before its child has ended.
    The anyio scope around the wait keeps a cancelled anyio scope further out from waking it over and over.

    Raises ``asyncio.CancelledError`` if the caller was cancelled (the step has ended by then, unless it took
    more than ``PATIENCE`` seconds), else what the step raised.
    """
    import anyio  # loaded when first needed: it doubles the cost of `import asyncflow`

    task = asyncio.get_running_loop().create_task(step)
    cancelled: asyncio.CancelledError | None = None
    with anyio.CancelScope(shield=True) as scope:
        while not task.done():
            try:
                await asyncio.wait([task])
            except asyncio.CancelledError as error:
                if cancelled is None:
                    cancelled = error
                    scope.deadline = anyio.current_time() + PATIENCE
                elif scope.cancel_called:
                    break
    if cancelled is not None:
        if task.done() and not task.cancelled():
            task.exception()  # the cancel stands for it; marked as seen, so nothing is logged
        raise cancelled
    return task.result()
