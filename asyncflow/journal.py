"""Where this process may leave something unfinished, written down so that others remove it if it is killed.

Each process has a file of its own in the state directory, locked as long as it lives, and named after its ``token``.
An entry is a place: a directory, say, in which it makes temporaries. Their names begin with the token, so one entry for
each place is enough, and nothing of anybody else's is ever touched. Whoever writes to the first place of its own life
reads the files of those that are gone, removes what they have left, and then the files.

That takes a lock of the system's, which ends with the process however it goes (``flock``). Where there is none, or no
directory that can be written to, nothing is written down, and leftovers stay.
"""

from __future__ import annotations

import atexit
import logging
import os
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

if sys.platform != "win32":
    import fcntl

__all__ = [
    "TOGETHER",
    "clean",
    "cleaners",
    "finishers",
    "heal",
    "healed",
    "leave",
    "note",
    "state_folder",
    "token",
    "unfinished",
]

log = logging.getLogger("asyncflow")

cleaners: dict[str, Callable[[str, str], int]] = {}
"""By kind of place: removes what the process with a token has left in a place, and says how many things that were.

Called in a thread. Raises ``OSError`` where it could not; the place is looked at again by the next one then."""

finishers: dict[str, Callable[[Mapping[str, Any]], None]] = {}
"""By kind of step: makes visible what a killed process had complete and was about to show. Called as ``cleaners``."""

TOGETHER = "together"
"""The kind of an entry that is no place: steps, in JSON, that a process has decided to take all of."""

unfinished: set[str] = set()
"""What is there by now, and neither whole nor removed: while there is any, the journal is kept."""

_lock = threading.Lock()
_token = ""
_noted: set[tuple[str, str]] = set()
_fd: int | None = None
_broken = False  # nothing can be written down
_healed = False  # what processes that are gone have left has been looked at


def token() -> str:
    """What the names of all temporaries of this process begin with: 8 characters."""
    global _token
    if not _token:
        _token = os.urandom(4).hex()
    return _token


def state_folder() -> str:
    """Where the files are: ``ASYNCFLOW_STATE``, else ``asyncflow`` where the system keeps the state of programs."""
    given = os.environ.get("ASYNCFLOW_STATE")
    if given:
        return os.path.abspath(given)
    base = os.environ.get("XDG_STATE_HOME") or os.path.join(os.path.expanduser("~"), ".local", "state")
    return os.path.join(base, "asyncflow")


def note(kind: str, place: str) -> None:
    """From now on something of this process may be in ``place``. In a thread; once for each place is enough."""
    if (kind, place) in _noted or _broken:
        return
    with _lock:
        if (kind, place) in _noted:
            return
        try:
            if _fd is None:
                _begin()
                _clean_quietly()
            assert _fd is not None
            os.write(_fd, f"{kind} {place}\0".encode("utf-8", "surrogateescape"))
            _noted.add((kind, place))
        except OSError as error:
            _give_up(error)


def _begin() -> None:
    global _fd
    folder = os.path.join(state_folder(), "journal")
    os.makedirs(folder, mode=0o700, exist_ok=True)
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
    fd = os.open(os.path.join(folder, token()), flags, 0o600)
    if not _locked(fd):  # a file that was there is not opened, so nobody can have it
        os.close(fd)
        raise BlockingIOError(f"{folder} is on a file system whose locks do not work")
    _fd = fd
    atexit.register(leave)


def _locked(fd: int) -> bool:
    """Lock the open file, if nobody else has."""
    if sys.platform == "win32":
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _give_up(error: OSError) -> None:
    global _broken
    _broken = True
    log.debug("no journal can be kept (%s): what a kill -9 leaves behind will stay", error)


def _clean_quietly() -> None:
    try:
        clean()
    except OSError as error:
        log.debug("the journals of other processes could not be read: %s", error)


def clean() -> int:
    """Remove what processes that are gone have left; how many things that were. In a thread. Raises ``OSError``."""
    folder = os.path.join(state_folder(), "journal")
    removed = 0
    with suppress(FileNotFoundError):
        for name in sorted(os.listdir(folder)):
            if name != _token:
                removed += _clean_after(name, os.path.join(folder, name))
    return removed


def _clean_after(name: str, path: str) -> int:
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:  # somebody else has been here
        return 0
    removed = 0
    try:
        if not _locked(fd):
            return 0  # it is alive
        with open(fd, encoding="utf-8", errors="surrogateescape", closefd=False) as file:
            *entries, _ = file.read().split("\0")  # the last may have been cut off: nothing was made there yet
        whole = True
        # What was decided first: it needs what would be removed as unfinished.
        for entry in sorted(entries, key=lambda entry: not entry.startswith(TOGETHER)):
            kind, _, place = entry.partition(" ")
            cleaner = cleaners.get(kind)
            if cleaner is None:  # of a part that is not loaded here
                whole = False
                continue
            try:
                removed += cleaner(place, name)
            except OSError as error:
                whole = False
                log.debug("what a process that is gone has left in %s could not be removed: %s", place, error)
                if kind == TOGETHER:
                    break
        if whole:
            os.unlink(path)
    finally:
        os.close(fd)
    if removed:
        log.info("removed %d unfinished files of a process that was killed", removed)
    return removed


def _finish(place: str, token: str) -> int:
    import json  # only after a crash

    steps = json.loads(place)
    kinds = {step["kind"] for step in steps}
    if not kinds <= finishers.keys():
        raise OSError(f"a part that is not loaded here: {', '.join(kinds - finishers.keys())}")
    for step in steps:
        finishers[step["kind"]](step)
    return 0


cleaners[TOGETHER] = _finish


def heal() -> None:
    """What ``clean`` does, once in the life of this process; quick where nobody has left anything. Raises nothing."""
    global _healed
    if not _healed:
        _healed = True
        _clean_quietly()


def healed() -> bool:
    """Whether there is nothing to ``heal``: not a file of another process."""
    global _healed
    if not _healed:
        try:
            _healed = not set(os.listdir(os.path.join(state_folder(), "journal"))) - {_token}
        except OSError:  # there is none, or nobody can be helped
            _healed = True
    return _healed


def leave() -> None:
    """The process ends: the journal goes, unless a thread is still at work on something, which others then remove."""
    if _fd is not None and not unfinished:
        with suppress(OSError):
            os.unlink(os.path.join(state_folder(), "journal", _token))


def _forked() -> None:
    # The parent's file is the parent's; closing this copy leaves its lock alone.
    global _lock, _token, _fd, _broken
    _lock = threading.Lock()
    if _fd is not None:
        with suppress(OSError):
            os.close(_fd)
    _token, _fd, _broken = "", None, False
    _noted.clear()
    unfinished.clear()
    atexit.unregister(leave)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
