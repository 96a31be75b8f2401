"""Sync bodies: each in a daemon thread, a generator in one and the same for life.

SQLite handles and thread-locals live as long as the generator does, so it is parked in its thread while it
waits for tasks; a parked thread costs 16 kB. Every step runs in the attempt's one context.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Generator
from functools import partial
from typing import Any

from .. import frames
from ..attempt import Attempt, current
from ..completion import confirmed, look_in_thread
from ..graph import Demand
from ..outcomes import settled
from ..threads import lend, parked, woken
from ..tree import settle
from . import Reports

__all__ = ["PARKED", "Stop", "ThreadRunner"]

PARKED = 2_000
"""Sync generators that may be waiting for tasks at once."""


class Stop(BaseException):
    """Thrown into the waiting driver of a parked generator whose attempt has been cancelled."""


class _Seat:
    """An attempt's place in a thread."""

    __slots__ = ("inbox", "parked", "thread")

    def __init__(self) -> None:
        self.inbox: queue.SimpleQueue[Demand | BaseException] = queue.SimpleQueue()
        self.thread: int | None = None  # its ident, while the body runs
        self.parked = False


class ThreadRunner:
    """Runs ``def run`` and sync generators."""

    def __init__(self, reports: Reports) -> None:
        self._reports = reports
        self._parked = 0
        self._lock = threading.Lock()
        self._messages: deque[tuple[Callable[..., Any], tuple[Any, ...]]] = deque()
        self._posted = False

    def start(self, attempt: Attempt) -> None:
        attempt.handle = _Seat()
        context = attempt.node.build.owner.context.copy()
        lend(lambda: context.run(self._run, attempt))

    def _run(self, attempt: Attempt) -> None:
        current.set(attempt)
        reports = self._reports
        try:
            value = self._body(attempt)
            if confirmed(attempt, value):
                self._post(reports.finished, attempt, value)
            elif (left := look_in_thread(attempt, value)) is None:
                self._post(reports.finished, attempt, None)
            else:
                self._post(reports.returned, attempt, left)
        except Stop:
            self._post(reports.cancelled, attempt)
        except BaseException as error:
            self._post(reports.failed, attempt, error)

    def _body(self, attempt: Attempt) -> Any:
        """From its beginning to its end; what it returns."""
        seat: _Seat = attempt.handle
        seat.thread = threading.get_ident()
        try:
            value = attempt.task.run()
            if isinstance(value, Generator) and attempt.task._definition.body == "generator":
                value = self._steps(attempt, value)
            return value
        finally:
            seat.thread = None

    def _steps(self, attempt: Attempt, body: Generator[Any, Any, Any]) -> Any:
        """Answer each ``yield`` of a generator in place."""
        try:
            structure = next(body)
            while True:
                try:
                    values = self.require(attempt, structure)
                except Exception as error:
                    structure = body.throw(error)
                else:
                    structure = body.send(values)
        except StopIteration as end:
            return end.value
        finally:
            body.close()

    def require(self, attempt: Attempt, structure: Any) -> Any:
        """In the body's thread: what the tasks in ``structure`` give. Raises as ``settled``; ``RuntimeError``."""
        if attempt.handle.thread != threading.get_ident():
            raise RuntimeError(f"{attempt.task!r}: require() was called in a thread that is not its body's own")
        structure = settle(structure)
        if not self._post(self._suspend, attempt, structure):
            raise Stop
        message = attempt.handle.inbox.get()
        if isinstance(message, BaseException):
            raise message
        return settled(message, structure)

    def _suspend(self, attempt: Attempt, structure: Any) -> None:
        if attempt.node.attempt is not attempt or attempt.cancelled:
            attempt.handle.inbox.put(Stop())
        elif self._parked >= PARKED:
            attempt.handle.inbox.put(
                RuntimeError(
                    f"{PARKED:,} sync bodies are waiting for tasks at once, each in a thread of its own; "
                    f"write {type(attempt.task).__name__}.run as an async generator or `async def`"
                )
            )
        else:
            try:
                self._reports.suspended(attempt, structure, partial(self._answer, attempt))
            except BaseException as error:  # not a task, say: the generator's own mistake
                attempt.handle.inbox.put(error)
            else:
                attempt.handle.parked = True
                self._parked += 1
                parked()

    def cancel(self, attempt: Attempt) -> None:
        if attempt.handle is None:  # it could not be started
            return self._reports.cancelled(attempt)
        # A body that is not parked cannot be stopped; a parked one is closed where it stands.
        self._answer(attempt, Stop())
        return None

    def _answer(self, attempt: Attempt, message: Demand | BaseException) -> None:
        if attempt.handle.parked:
            attempt.handle.parked = False
            self._parked -= 1
            woken()
        attempt.handle.inbox.put(message)

    def close(self) -> None:
        pass

    def stack(self, attempt: Attempt) -> list[str]:
        frame = frames.of_threads().get(attempt.handle.thread)
        lines: list[str] = []
        while frame is not None:
            lines.append(f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_qualname}")
            frame = frame.f_back
        return lines[::-1]

    # From a thread to the loop, in order; one wake-up for all that has gathered ---------------------------

    def _post(self, call: Callable[..., Any], *args: Any) -> bool:
        with self._lock:
            self._messages.append((call, args))
            wake = not self._posted
            self._posted = True
        if wake:
            try:
                self._reports.loop.call_soon_threadsafe(self._deliver)
            except RuntimeError:  # the loop has been closed: nobody is left to hear it
                return False
        return True

    def _deliver(self) -> None:
        with self._lock:
            messages, self._messages = self._messages, deque()
            self._posted = False
        for call, args in messages:
            call(*args)
