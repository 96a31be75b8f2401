"""Where this process may leave something unfinished, written down so that others remove it if it is killed.

Each process has a file of its own in the state directory, locked as long as it lives, and named after its ``token``.
An entry is a place: a directory, say, in which it makes temporaries. Their names begin with the token, so one entry for
each place is enough, and nothing of anybody else's is ever touched. What others have left is looked at in ``healing``.

That takes a lock of the system's, which ends with the process however it goes (``flock``). Where there is none, or no
directory that can be written to, nothing is written down, and leftovers stay.
"""

from __future__ import annotations

import atexit
import logging
import os
import sys
import threading
from collections.abc import Iterable
from contextlib import suppress

if sys.platform != "win32":
    import fcntl

__all__ = ["done", "folder", "leave", "locked", "note", "read", "state_folder", "token", "unfinished"]

log = logging.getLogger("asyncflow")

unfinished: set[str] = set()
"""What is there by now, and neither whole nor removed: while there is any, the journal is kept."""

CROWDED = 64 * 1024
"""Bytes of what is done, from which on the file is written anew without it."""

_lock = threading.Lock()
_token = ""
_noted: set[str] = set()
_fd: int | None = None
_past = 0  # bytes of the file about what is done
_broken = False  # nothing can be written down


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


def folder() -> str:
    """Where the journals of all processes are."""
    return os.path.join(state_folder(), "journal")


def note(kind: str, place: str) -> None:
    """From now on something of this process may be in ``place``. In a thread; once for each place is enough."""
    entry = f"{kind} {place}"
    if entry in _noted or _broken:
        return
    with _lock:
        if entry in _noted:
            return
        try:
            if _fd is None:
                _begin()
            assert _fd is not None
            os.write(_fd, _encoded([f"+{entry}"]))
            _noted.add(entry)
        except OSError as error:
            _give_up(error)


def done(kind: str, place: str) -> None:
    """Nothing is in ``place`` any more, and nothing will be: for what is noted one by one. In a thread."""
    global _past
    entry = f"{kind} {place}"
    with _lock:
        if entry not in _noted or _fd is None:
            return
        _noted.discard(entry)
        line = _encoded([f"-{entry}"])
        try:
            os.write(_fd, line)
            _past += 2 * len(line)
            if _past > CROWDED:
                _write_anew()
        except OSError as error:
            _give_up(error)


def _encoded(lines: Iterable[str]) -> bytes:
    return "".join(f"{line}\0" for line in lines).encode("utf-8", "surrogateescape")


def read(fd: int) -> list[str]:
    """The entries of an open journal that are not done, as ``"KIND PLACE"``, in their order. Raises ``OSError``."""
    with open(fd, encoding="utf-8", errors="surrogateescape", closefd=False) as file:
        *lines, _ = file.read().split("\0")  # the last may have been cut off: nothing was made there yet
    entries: dict[str, None] = {}
    for line in lines:
        if line.startswith("-"):
            entries.pop(line[1:], None)
        else:
            entries[line[1:]] = None
    return list(entries)


def _begin() -> None:
    global _fd
    os.makedirs(folder(), mode=0o700, exist_ok=True)
    _fd = _made(token())
    atexit.register(leave)
    from . import healing  # which reads the journals of others, in the background

    healing.begin()


def _made(name: str) -> int:
    """A new file in the folder, locked."""
    path = os.path.join(folder(), name)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
    if not locked(fd):  # a file that was there is not opened, so nobody can have it
        os.close(fd)
        raise BlockingIOError(f"{folder()} is on a file system whose locks do not work")
    return fd


def _write_anew() -> None:
    """Only what is not done. Whoever is killed in between has left both files, or the old one."""
    global _fd, _past
    fd = _made(f"{_token}~")
    os.write(fd, _encoded(f"+{entry}" for entry in sorted(_noted)))
    os.replace(os.path.join(folder(), f"{_token}~"), os.path.join(folder(), _token))
    if _fd is not None:
        os.close(_fd)
    _fd, _past = fd, 0


def locked(fd: int) -> bool:
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


def leave() -> None:
    """The process ends: the journal goes, unless a thread is still at work on something, which others then remove."""
    if _fd is not None and not unfinished:
        with suppress(OSError):
            os.unlink(os.path.join(folder(), _token))


def _forked() -> None:
    # The parent's file is the parent's; closing this copy leaves its lock alone.
    global _lock, _token, _fd, _past, _broken
    _lock = threading.Lock()
    if _fd is not None:
        with suppress(OSError):
            os.close(_fd)
    _token, _fd, _past, _broken = "", None, 0, False
    _noted.clear()
    unfinished.clear()
    atexit.unregister(leave)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
