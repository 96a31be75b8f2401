"""What no test may leave behind: asyncio tasks, threads, open files, half-written files.

``no_leaks`` puts all of it around a block; ``Snapshot`` and the checks are what it is made of, for fixtures that
need them one by one.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from .. import clients, journal
from .. import threads as workers
from ..frames import of_threads

__all__ = [
    "PATIENCE",
    "LeakError",
    "Snapshot",
    "check_open_files",
    "check_tasks",
    "check_temp_files",
    "check_threads",
    "no_leaks",
    "other_tasks",
    "settle",
]

PATIENCE = 2.0
"""Seconds a thread or a file gets to go away by itself."""

TICK = 0.002  # seconds between two looks
TEMP_PATTERN = ".af-*"  # how the package names a file that is not published yet

T = TypeVar("T")


class LeakError(AssertionError):
    """A test left something behind; the message lists what."""


@dataclass(frozen=True, slots=True)
class OpenFile:
    """One open descriptor. The inode is part of it: a number closed and used again is another file."""

    fd: int
    device: int
    inode: int

    def __str__(self) -> str:
        try:
            return f"fd {self.fd}: {os.readlink(f'/proc/self/fd/{self.fd}')}"
        except OSError:
            return f"fd {self.fd}: inode {self.inode}"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The threads and open files at one moment, to compare a later one with."""

    threads: frozenset[threading.Thread]
    files: frozenset[OpenFile]

    @classmethod
    def take(cls) -> Snapshot:
        """Those of this moment."""
        return cls(frozenset(threading.enumerate()), open_files())


def open_files() -> frozenset[OpenFile]:
    """Every open descriptor of this process; nothing where the system does not list them (Windows)."""
    folder = "/proc/self/fd" if sys.platform == "linux" else "/dev/fd"
    try:
        names = os.listdir(folder)
    except OSError:
        return frozenset()
    helpers = _descriptors_kept_until_exit()
    found = set()
    for fd in map(int, names):
        try:
            status = os.fstat(fd)
        except OSError:  # the descriptor of the listing itself
            continue
        if fd not in helpers:
            found.add(OpenFile(fd, status.st_dev, status.st_ino))
    return frozenset(found)


def _descriptors_kept_until_exit() -> set[int]:
    """The journal, and the pipes to multiprocessing's helpers: opened at first use, for the life of the process."""
    tracker = sys.modules.get("multiprocessing.resource_tracker")
    forkserver = sys.modules.get("multiprocessing.forkserver")
    return {
        fd
        for owner, name in (
            (getattr(tracker, "_resource_tracker", None), "_fd"),
            (getattr(forkserver, "_forkserver", None), "_forkserver_alive_fd"),
            (journal, "_fd"),
        )
        if isinstance(fd := getattr(owner, name, None), int)
    }


def settle(look: Callable[[], list[T]], allowed: int = 0, patience: float | None = None) -> list[T]:
    """Call ``look`` until it gives at most ``allowed`` things, or for ``patience`` seconds; what it gave last.

    ``patience`` is ``PATIENCE`` by default. Holds up the thread it is called in.
    """
    deadline = time.monotonic() + (PATIENCE if patience is None else patience)
    while len(left := look()) > allowed and time.monotonic() < deadline:
        time.sleep(TICK)
    return left


def check_threads(before: Snapshot, allowed: int = 0) -> list[threading.Thread]:
    """The threads that are new since ``before``. Raises ``LeakError`` if there are more than ``allowed``.

    Those that end within ``PATIENCE`` seconds do not count, nor do idle ones of the engine and of the loop's own pool.
    """
    left = settle(lambda: _new_threads(before), allowed)
    if len(left) > allowed:
        frames = of_threads()
        raise LeakError(
            _message("threads", len(left), allowed)
            + "".join(
                f"\n  {thread.name}{' (daemon)' if thread.daemon else ''}, now at\n"
                + "".join(traceback.format_stack(frames.get(thread.ident or 0))[-3:]).rstrip()
                for thread in left
            )
        )
    return left


def _new_threads(before: Snapshot) -> list[threading.Thread]:
    workers.trim()
    idle = _idle_in_pool()
    return [thread for thread in threading.enumerate() if thread not in before.threads and thread not in idle]


def _idle_in_pool() -> frozenset[threading.Thread]:
    """The threads of the running loop's own pool (``asyncio.to_thread``), if all are idle: they end with the loop."""
    try:
        pool = getattr(asyncio.get_running_loop(), "_default_executor", None)
    except RuntimeError:
        return frozenset()
    threads = frozenset(getattr(pool, "_threads", ()))
    idle = getattr(getattr(pool, "_idle_semaphore", None), "_value", 0)
    return threads if idle >= len(threads) else frozenset()


def check_open_files(before: Snapshot, allowed: int = 0) -> None:
    """Raises ``LeakError`` if more than ``allowed`` open files and sockets are new since ``before``.

    Those that are closed within ``PATIENCE`` seconds do not count.
    """
    left = settle(lambda: _new_files(before), allowed)
    if len(left) > allowed:
        raise LeakError(_message("open files", len(left), allowed) + _lines(left))


def _new_files(before: Snapshot) -> list[OpenFile]:
    return sorted(open_files() - before.files, key=lambda file: file.fd)


def check_temp_files(folder: Path, allowed: int = 0) -> None:
    """Raises ``LeakError`` if more than ``allowed`` files that asyncflow has not published lie below ``folder``."""
    left = settle(lambda: _temp_files(folder), allowed)
    if len(left) > allowed:
        raise LeakError(_message("temporary files", len(left), allowed) + _lines(left))


def _temp_files(folder: Path) -> list[Path]:
    return sorted(folder.rglob(TEMP_PATTERN))


def check_tasks(left: Iterable[asyncio.Task[object]], allowed: int = 0) -> None:
    """Raises ``LeakError`` if more than ``allowed`` tasks are in ``left``.

    No patience here: a task that is left is one that nobody has awaited.
    """
    tasks = sorted(left, key=lambda task: task.get_name())
    if len(tasks) > allowed:
        raise LeakError(_message("asyncio tasks", len(tasks), allowed) + _lines(tasks))


def other_tasks() -> list[asyncio.Task[object]]:
    """The tasks of the running loop that are not done, less the one that asks."""
    return [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]


def _message(kind: str, count: int, allowed: int) -> str:
    declared = f", {allowed} declared" if allowed else ""
    return f"the test left {kind} behind ({count}{declared}):"


def _lines(things: Iterable[object]) -> str:
    return "".join(f"\n  {thing}" for thing in things)


class no_leaks:
    """What the block leaves behind is an error, if it ends well: ``LeakError`` lists it.

    In a plain function threads, open files and (below ``folder``) unpublished files are looked for; in a
    coroutine, as ``async with no_leaks():``, asyncio tasks too. Threads and files have ``PATIENCE`` seconds to go
    away by themselves, and tasks none; clients that targets share, and nobody uses, are closed first. A block that
    raises is not looked at: it says itself what is wrong.

    A fixture can do without the block: what is there is noted when the object is made, and compared in ``check()``.

    Args:
        folder: where temporary files are looked for, anywhere below it; not at all by default.
        threads: how many threads the block may leave, e.g. those of sync bodies it has abandoned.
        fds: how many open files and sockets.
        files: how many unpublished files.
        tasks: how many asyncio tasks.

    Raises ``LeakError`` at its end.
    """

    def __init__(
        self, folder: Path | str | None = None, *, threads: int = 0, fds: int = 0, files: int = 0, tasks: int = 0
    ) -> None:
        self._folder = None if folder is None else Path(folder)
        self._allowed = [threads, fds, files, tasks]
        self._before = Snapshot.take()
        self._tasks: set[asyncio.Task[object]] = set()
        self.left: list[threading.Thread] = []
        """The threads that were left and allowed, once the block has ended."""

    def allow(self, threads: int = 0, *, fds: int = 0, files: int = 0, tasks: int = 0) -> None:
        """So many more may be left: for a block that knows it only when it is under way."""
        self._allowed = [a + b for a, b in zip(self._allowed, (threads, fds, files, tasks), strict=True)]

    def check_tasks(self, left: Iterable[asyncio.Task[object]]) -> None:
        """Raises ``LeakError`` if there are more tasks in ``left`` than were allowed."""
        check_tasks(left, self._allowed[3])

    def check(self) -> None:
        """Raises ``LeakError`` if more threads and files are left than were allowed."""
        threads, fds, files, _ = self._allowed
        self.left = check_threads(self._before, threads)
        check_open_files(self._before, fds)
        if self._folder is not None:
            check_temp_files(self._folder, files)

    def __enter__(self) -> no_leaks:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if kind is None:
            self.check()

    async def __aenter__(self) -> no_leaks:
        self._tasks = set(other_tasks())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        if kind is not None:
            return
        await clients.close_idle()
        self.check_tasks(task for task in other_tasks() if task not in self._tasks)
        # The loop goes on meanwhile: it is the loop that closes transports, and hears of threads that have ended.
        deadline = time.monotonic() + PATIENCE
        while self._anything() and time.monotonic() < deadline:  # noqa: ASYNC110  # nobody tells of an open file
            await asyncio.sleep(TICK)
        self.check()

    def _anything(self) -> bool:
        threads, fds, files, _ = self._allowed
        return (
            len(_new_threads(self._before)) > threads
            or len(_new_files(self._before)) > fds
            or (self._folder is not None and len(_temp_files(self._folder)) > files)
        )
