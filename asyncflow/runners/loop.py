"""Async bodies: one ``asyncio.Task`` each, on the executor's own loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import partial
from typing import Any

from ..attempt import Attempt, current
from ..completion import confirm, confirmed
from . import Reports

__all__ = ["LoopRunner"]


class LoopRunner:
    """Runs ``async def run`` and async generators."""

    def __init__(self, reports: Reports) -> None:
        self._reports = reports

    def start(self, attempt: Attempt) -> None:
        # asyncio.Task itself, not loop.create_task: a task factory of the host's is for the host's tasks.
        attempt.handle = asyncio.Task(
            self._run(attempt), loop=self._reports.loop, context=attempt.node.build.owner.context.copy()
        )

    async def _run(self, attempt: Attempt) -> None:
        current.set(attempt)
        try:
            body = attempt.task.run()
            if attempt.task._definition.body == "coroutine":
                value = await body
            else:
                await self._steps(attempt, body)
                value = None
            if not confirmed(attempt, value):
                value = await confirm(attempt, value)
        except BaseException as error:
            # Everything ends here, SystemExit and KeyboardInterrupt too: raised in an asyncio.Task they would
            # stop the host's loop. A cancel is passed on, so that the asyncio.Task ends cancelled.
            if isinstance(error, asyncio.CancelledError) and _asked_to_stop(attempt):
                self._reports.cancelled(attempt)
                raise
            self._reports.failed(attempt, error)
        else:
            self._reports.finished(attempt, value)

    async def _steps(self, attempt: Attempt, body: AsyncGenerator[Any, Any]) -> None:
        """Answer each ``yield`` of an async generator in place."""
        async with aclosing(body):
            try:
                structure = await anext(body)
                while True:
                    try:
                        values = await attempt.engine.request(attempt, structure)
                    except Exception as error:
                        structure = await body.athrow(error)
                    else:
                        structure = await body.asend(values)
            except StopAsyncIteration:
                return

    def cancel(self, attempt: Attempt) -> None:
        handle: asyncio.Task[None] | None = attempt.handle
        if handle is None:  # it could not be started
            return self._reports.cancelled(attempt)
        handle.cancel()
        # One that was never entered reports nothing by itself.
        handle.add_done_callback(partial(self._gone, attempt))
        return None

    def _gone(self, attempt: Attempt, _: asyncio.Task[None]) -> None:
        self._reports.cancelled(attempt)

    def close(self) -> None:
        pass

    def stack(self, attempt: Attempt) -> list[str]:
        # Task.get_stack() ends at the outermost frame of a suspended task: we follow what each one waits for.
        lines = []
        waiting = attempt.handle.get_coro()
        while waiting is not None:
            for kind in ("cr", "ag", "gi"):
                frame = getattr(waiting, f"{kind}_frame", None)
                if frame is not None:
                    lines.append(f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_qualname}")
                    waiting = getattr(waiting, "gi_yieldfrom" if kind == "gi" else f"{kind}_await")
                    break
            else:
                break
        return lines


def _asked_to_stop(attempt: Attempt) -> bool:
    task = asyncio.current_task()
    return attempt.cancelled or (task is not None and task.cancelling() > 0)
