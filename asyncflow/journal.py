"""Where this process may leave something unfinished, written down so that others remove it if it is killed.

Each process has a file of its own in the state directory, locked as long as it lives, and named after its ``token``.
An entry is a place: a directory, say, in which it makes temporaries. Their names begin with the token, so one entry for
each place is enough, and nothing of anybody else's is ever touched. What others have left is looked at in ``healing``.

What is called by the token alone is locked, for itself alone, by its owner and by nobody else, from before it has that
name until it is removed or the owner is gone. So whoever finds such a file that is not locked knows that its owner is
gone, provided that it still has that name then: what was opened may have been replaced since (``is_at``). Names with a
dot are no owner's (``healing``), or not yet.

That takes a lock of the system's, which ends with the process however it goes (``flock``). Where there is none, or no
directory that can be written to, nothing is written down, and leftovers stay.
"""

from __future__ import annotations

import atexit
import errno
import logging
import os
import sys
import threading
from collections.abc import Iterable
from contextlib import suppress

if sys.platform != "win32":
    import fcntl

__all__ = ["NEW", "done", "folder", "is_at", "leave", "locked", "note", "read", "state_folder", "token", "unfinished"]

log = logging.getLogger("asyncflow")

unfinished: set[str] = set()
"""What is there by now, and neither whole nor removed: while there is any, the journal is kept."""

CROWDED = 64 * 1024
"""Bytes of what is done, from which on the file is written anew without it."""

NEW = ".new"
"""What the name of a journal goes on with until it is complete and locked. Nobody needs it before."""

TRIES = 3
"""Files that are begun, one after the other, when somebody takes them for what a killed process has begun."""

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
    os.makedirs(folder(), mode=0o700, exist_ok=True)
    if os.path.lexists(os.path.join(folder(), token())):
        raise FileExistsError(f"{folder()} has a journal of another process with the same token")
    _write_anew()
    atexit.register(leave)
    from . import healing  # which reads the journals of others, in the background

    healing.begin()


def _write_anew() -> None:
    """Only what is not done. Whoever is killed in between has left the old file, if there was one.

    The new one is locked before it gets its name, and the old one until it has lost it: whoever finds one by that name
    finds it locked. Raises ``OSError``.
    """
    global _fd, _past
    content = _encoded(f"+{entry}" for entry in sorted(_noted))
    for n in range(TRIES):
        fd = _made(f"{_token}{NEW}{n}", content)
        if fd is not None:
            break
    else:
        raise BlockingIOError(f"{folder()} is on a file system whose locks do not work")
    if _fd is not None:
        os.close(_fd)
    _fd, _past = fd, 0


def _made(name: str, content: bytes) -> int | None:
    """The journal, with that content and locked, made as ``name``; None where another process took it for a leftover.

    That happens before it is locked: nobody can tell it from one whose owner was killed there.
    """
    path = os.path.join(folder(), name)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
    made = False
    try:
        if locked(fd):
            if os.write(fd, content) < len(content):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
            made = True  # it is not closed any more, not even by a KeyboardInterrupt: it may have its name by then
            os.replace(path, os.path.join(folder(), _token))
    except FileNotFoundError:
        made = False
    except OSError:
        made = False
        raise
    finally:
        if not made:
            os.close(fd)
            with suppress(OSError):
                os.unlink(path)
    return fd if made else None


def locked(fd: int, *, shared: bool = False) -> bool:
    """Lock the open file, if nobody else has; ``shared`` if nobody has for itself alone. Raises ``OSError``."""
    if sys.platform == "win32":
        return False
    try:
        fcntl.flock(fd, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_at(fd: int, path: str) -> bool:
    """Whether the open file is what ``path`` leads to: it may have been replaced or removed. Raises ``OSError``."""
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except FileNotFoundError:
        return False


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
