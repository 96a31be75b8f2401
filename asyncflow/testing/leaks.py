"""What no test may leave behind: asyncio tasks, threads, open files, half-written files.

Plain functions, so that `test_leak_checks.py` can prove each; `conftest.py` applies them to every test.
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
from typing import TypeVar

PATIENCE = 2.0  # seconds a thread or a file gets to go away by itself
TICK = 0.002  # seconds between two looks
TEMP_PATTERN = ".af-*"  # how the package names a file that is not published yet

T = TypeVar("T")


class LeakError(AssertionError):
    """A test left something behind; the message lists what."""


@dataclass(slots=True)
class Allowance:
    """What a test says beforehand that it will leave behind (the fixture `abandoned`)."""

    threads: int = 0
    fds: int = 0
    files: int = 0
    tasks: int = 0


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
    """The threads and open files at one moment."""

    threads: frozenset[threading.Thread]
    files: frozenset[OpenFile]

    @classmethod
    def take(cls) -> Snapshot:
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
    """The pipes to multiprocessing's helper processes: opened at first use, for the life of the process."""
    tracker = sys.modules.get("multiprocessing.resource_tracker")
    forkserver = sys.modules.get("multiprocessing.forkserver")
    return {
        fd
        for owner, name in (
            (getattr(tracker, "_resource_tracker", None), "_fd"),
            (getattr(forkserver, "_forkserver", None), "_forkserver_alive_fd"),
        )
        if isinstance(fd := getattr(owner, name, None), int)
    }


def dismiss_idle_workers() -> None:
    """Idle worker threads of the package are a cache, not a leak: tell them to go."""
    trim = getattr(sys.modules.get("asyncflow.threads"), "trim", None)
    if trim is not None:
        trim()


def settle(look: Callable[[], list[T]], allowed: int = 0, patience: float | None = None) -> list[T]:
    """Look again until at most `allowed` things are left or `patience` is over; return what was left last."""
    deadline = time.monotonic() + (PATIENCE if patience is None else patience)
    while len(left := look()) > allowed and time.monotonic() < deadline:
        time.sleep(TICK)
    return left


def check_threads(before: Snapshot, allowed: int = 0) -> list[threading.Thread]:
    """Raise when more than `allowed` threads are new since `before`; return the new ones."""

    def look() -> list[threading.Thread]:
        dismiss_idle_workers()
        return [thread for thread in threading.enumerate() if thread not in before.threads]

    left = settle(look, allowed)
    if len(left) > allowed:
        frames = sys._current_frames()
        raise LeakError(
            _message("threads", len(left), allowed)
            + "".join(
                f"\n  {thread.name}{' (daemon)' if thread.daemon else ''}, now at\n"
                + "".join(traceback.format_stack(frames.get(thread.ident or 0))[-3:]).rstrip()
                for thread in left
            )
        )
    return left


def check_open_files(before: Snapshot, allowed: int = 0) -> None:
    """Raise when more than `allowed` descriptors are new since `before`."""
    left = settle(lambda: sorted(open_files() - before.files, key=lambda file: file.fd), allowed)
    if len(left) > allowed:
        raise LeakError(_message("open files", len(left), allowed) + _lines(left))


def check_temp_files(folder: Path, allowed: int = 0) -> None:
    """Raise when more than `allowed` unpublished files of the package lie anywhere below `folder`."""
    left = settle(lambda: sorted(folder.rglob(TEMP_PATTERN)), allowed)
    if len(left) > allowed:
        raise LeakError(_message("temporary files", len(left), allowed) + _lines(left))


def check_tasks(left: Iterable[asyncio.Task[object]], allowed: int = 0) -> None:
    """Raise when more than `allowed` tasks are in `left`. No patience: a task that is left is not awaited."""
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
