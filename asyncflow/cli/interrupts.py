"""SIGINT and SIGTERM: the first cancels the build, the second ends the process at once.

``signal.signal`` rather than ``loop.add_signal_handler``: its handler also runs while a body keeps the loop
busy with Python code, which is when somebody presses Ctrl-C twice. (It works on Windows, too.)
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from collections.abc import Callable, Coroutine
from types import FrameType
from typing import Any, TypeVar

from .terminal import BLOCKED, Line, Terminal

__all__ = ["Interrupts", "run_to_end"]

T = TypeVar("T")

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_PATIENCE = 1.0  # seconds for asyncio tasks that are left when all is over; a tenth of it after a signal


class Interrupts:
    """Inside, the first signal cancels the task given to ``guard``, and the second exits."""

    def __init__(self, terminal: Terminal) -> None:
        self.received: int | None = None
        """The first signal, if there was one."""
        self._cancel: Callable[[], object] | None = None
        word = (BLOCKED, " stopping: what is running has a moment to clean up (again: stop now)")
        self._stopping = _bytes(terminal, word)
        self._leaving = _bytes(terminal, (BLOCKED, " stopped"))
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *exc_info: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        # os.write: the main thread may be in the middle of writing to the same stream.
        if self.received is not None:
            _write(self._leaving)
            os._exit(128 + number)
        self.received = number
        _write(self._stopping)
        if self._cancel is not None:
            self._cancel()

    async def guard(self, work: Coroutine[Any, Any, T]) -> T:
        """``await work``, which the first signal cancels."""
        task, loop = asyncio.current_task(), asyncio.get_running_loop()
        assert task is not None
        if self.received is not None:
            work.close()
            raise asyncio.CancelledError
        self._cancel = lambda: loop.call_soon_threadsafe(task.cancel)
        try:
            return await work
        finally:
            self._cancel = None


def run_to_end(terminal: Terminal, interrupts: Interrupts, work: Coroutine[Any, Any, T]) -> T:
    """``asyncio.run(work)``, cancelled by the first signal, and ended also if something does not stop.

    ``asyncio.run`` waits for tasks that swallow their cancellation, and for the threads of ``to_thread``.
    After a signal we do not: ``terminal.leave_at_once`` is set then.
    """
    runner = asyncio.Runner()
    try:
        return runner.run(interrupts.guard(work))
    finally:
        ended = runner.run(_stop_others(_PATIENCE if interrupts.received is None else _PATIENCE / 10))
        if not ended or (interrupts.received is not None and _other_threads()):
            terminal.leave_at_once = True
        else:
            runner.close()


async def _stop_others(patience: float) -> bool:
    """Cancel what is left on the loop; whether it has ended."""
    others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in others:
        task.cancel()
    return not others or not (await asyncio.wait(others, timeout=patience))[1]


def _other_threads() -> bool:
    return any(not t.daemon and t is not threading.main_thread() for t in threading.enumerate())


def _bytes(terminal: Terminal, line: Line) -> bytes:
    stream = sys.stderr
    if stream is None:
        return b""
    start = "\n" if stream.isatty() else ""  # the terminal has written ^C
    return f"{start}{terminal.render(line)}\n".encode(stream.encoding or "ascii", "backslashreplace")


def _write(message: bytes) -> None:
    try:
        os.write(2, message)
    except OSError:
        pass
