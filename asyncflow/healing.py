"""What killed processes have left, as their journals say: what they had decided is done, the rest is removed.

It is looked at once, in a thread in the background, when this process first builds or writes: some of it may be on a
server that does not answer. A build waits for what had been decided (``together``), since it would make that again;
not for long. It also waits for another process that is doing it.

Several processes may look at once, each of them may be killed, and the owner of a journal may come to its end. So the
name of a journal says what it is, and only ever changes in this order:

* ``TOKEN``: of a process that is alive, if it is locked (see ``journal``). If not, it is renamed by whoever sees it.
* ``TOKEN.decided``: of one that is gone and had decided what is still to be done. Who does it has it locked.
* ``TOKEN.rest``: of one that is gone, and what it has left unfinished may be removed. Who does it has it locked.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from importlib import import_module
from typing import Any

from . import journal
from .threads import lend

__all__ = ["TOGETHER", "again", "begin", "clean", "cleaners", "finishers", "heal", "healed"]

log = logging.getLogger("asyncflow")

cleaners: dict[str, Callable[[str, str], int]] = {}
"""By kind of place: removes what the process with a token has left in a place, and says how many things that were.

Called in a thread. Raises ``OSError`` where it could not; the place is looked at again by the next process then."""

finishers: dict[str, Callable[[Mapping[str, Any]], None]] = {}
"""By kind of step: makes visible what a killed process had complete and was about to show. Called as ``cleaners``."""

TOGETHER = "together"
"""The kind of an entry that is no place: steps, in JSON, that a process has decided to take all of."""

PATIENCE = 5.0
"""Seconds that the first build waits for what killed processes had decided, whether it is done here or by another."""

PATIENCE_AT_EXIT = 1.0
"""Seconds that the end of the process waits for the rest of it: a short build, too, removes what was left."""

DECIDED, REST = ".decided", ".rest"
"""What the name of a journal ends in whose owner is gone."""

_PAUSE = 0.01
"""Seconds between two looks at whether another process is done: a lock that is waited for cannot be given up."""

_MODULES = {"s3": "asyncflow.targets.s3", "ftp": "asyncflow.targets.ftp"}
"""Where a kind is known that this process may not have needed yet."""

_lock = threading.Lock()
_begun = False
_undone = False  # something could not be done here, by now
_decided = threading.Event()  # what had been decided has been done, or cannot be done here
_healed = False


def healed() -> bool:
    """Whether a build need not wait: nobody has left anything, or all that was decided is done."""
    global _healed
    if not _healed and not _begun:
        try:
            _healed = not _names()
        except OSError:  # there is none, or nobody can be helped
            _healed = True
    return _healed


def heal() -> None:
    """Wait until what killed processes had decided is done, some seconds at most. In a thread. Raises nothing."""
    global _healed
    begin()
    _decided.wait(PATIENCE)
    _healed = True


def begin() -> None:
    """Look at what killed processes have left, in the background. A second time does nothing."""
    global _begun
    with _lock:
        if _begun:
            return
        _begun = True
    over = threading.Event()
    lend(partial(_in_background, over))
    atexit.register(over.wait, PATIENCE_AT_EXIT)


def again() -> None:
    """Something is known now that was not: if something could not be done, the next build looks again."""
    global _begun, _healed, _undone
    with _lock:
        if _undone and _decided.is_set():
            _begun = _healed = _undone = False
            _decided.clear()


def _in_background(over: threading.Event) -> None:
    try:
        clean()
    except Exception as error:
        log.debug("the journals of other processes could not be read: %r", error)
    finally:
        _decided.set()
        over.set()


def clean() -> int:
    """Do, and then remove, what processes that are gone have left; how many things were removed. In a thread.

    Raises ``OSError`` where the journals cannot be listed.
    """
    left: list[_Left] = []
    elsewhere: list[_Left] = []
    try:
        _look(left, elsewhere)
        for one in left:
            one.finish()
        for one in _waited_for(elsewhere):
            left.append(one)
            one.finish()
        _decided.set()
        removed = sum([one.remove() for one in left])
    finally:
        for one in left + elsewhere:
            one.close()
    if removed:
        log.info("removed %d unfinished files of processes that were killed", removed)
    return removed


def _look(left: list[_Left], elsewhere: list[_Left]) -> None:
    """Add the journals of those that are gone, locked, and those whose decisions another process is carrying out."""
    for name in _names():
        if "." not in name or journal.NEW in name:
            with _readable(name):
                _mark(name)
    for name in _names():
        if name.endswith((DECIDED, REST)):
            with _readable(name), ExitStack() as opened:
                one = _Left(os.path.join(journal.folder(), name))
                opened.callback(one.close)
                if one.locked():
                    left.append(one)
                elif one.decided and one.is_there():
                    elsewhere.append(one)
                else:
                    continue
                opened.pop_all()


def _names() -> list[str]:
    """The journals of other processes."""
    with suppress(FileNotFoundError):
        return sorted(name for name in os.listdir(journal.folder()) if name.partition(".")[0] != journal.token())
    return []


@contextmanager
def _readable(name: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:  # somebody else has been here
        pass
    except OSError as error:
        log.debug("%s is no journal that can be read: %s", name, error)


def _mark(name: str) -> None:
    """If the owner of the journal is gone, have its name say so. Raises ``OSError``."""
    path = os.path.join(journal.folder(), name)
    entries = _of_the_dead(path)
    if entries is None:
        return
    if journal.NEW in name:  # it was not needed yet; if its owner is alive after all, it makes another
        os.unlink(path)
    else:
        os.rename(path, path + (DECIDED if any(kind == TOGETHER for kind, _ in entries) else REST))


def _of_the_dead(path: str) -> list[tuple[str, str]] | None:
    """What is in the journal, if its owner is gone. Raises ``OSError``."""
    while True:
        fd = _opened(path)
        try:
            gone = journal.locked(fd, shared=True)  # shared: others may look at the same time
            if journal.is_at(fd, path):  # else its owner has written it anew: what was opened says nothing of him
                return _entries(fd) if gone else None
        finally:
            _close(fd)


_fds: set[int] = set()
"""Open journals of others. A lock lasts as long as any process has the file open: the child of a fork closes them."""


def _opened(path: str) -> int:
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    _fds.add(fd)
    return fd


def _close(fd: int) -> None:
    _fds.discard(fd)
    os.close(fd)


def _entries(fd: int) -> list[tuple[str, str]]:
    return [(kind, place) for kind, _, place in (entry.partition(" ") for entry in journal.read(fd))]


def _waited_for(elsewhere: list[_Left]) -> Iterator[_Left]:
    """Wait until other processes have done what had been decided, a while; gives, locked, what they have not."""
    deadline = time.monotonic() + PATIENCE
    while elsewhere:
        for one in elsewhere[:]:
            if one.locked():
                elsewhere.remove(one)
                yield one
            elif not one.is_there():  # it has been done
                elsewhere.remove(one)
                one.close()
        if elsewhere:
            if time.monotonic() > deadline:
                log.warning(
                    "another process has been publishing for %g s what a killed one had decided, and is not waited for "
                    "any longer: it may be made again here",
                    PATIENCE,
                )
                return
            time.sleep(_PAUSE)


class _Left:
    """One journal of a process that is gone."""

    def __init__(self, path: str) -> None:
        self._fd: int | None = _opened(path)
        self._path = path
        self._token = os.path.basename(path).partition(".")[0]
        self.decided = path.endswith(DECIDED)
        self._whole = True  # all of it has been done
        self._entries: list[tuple[str, str]] = []

    def locked(self) -> bool:
        """Lock and read it, if nobody else is at it and its name is still the one it was found by."""
        assert self._fd is not None
        if not journal.locked(self._fd) or not self.is_there():
            return False
        try:
            self._entries = _entries(self._fd)
        except OSError as error:
            self._failed("the journal", error)
        return True

    def is_there(self) -> bool:
        """Whether its name is still the one it was found by."""
        return self._fd is not None and journal.is_at(self._fd, self._path)

    def close(self) -> None:
        """Let others have it."""
        fd, self._fd = self._fd, None
        if fd is not None:
            _close(fd)

    def finish(self) -> None:
        """Do what it had decided. It needs what would be removed as unfinished, so it comes first."""
        if not self.decided:
            return
        for kind, place in self._entries:
            if kind == TOGETHER:
                try:
                    _finish(place)
                except Exception as error:
                    self._failed("what it had decided", error)
        if self._whole:
            self._decisions_are_done()
        else:
            self.close()  # another process may know how

    def _decisions_are_done(self) -> None:
        rest = self._path.removesuffix(DECIDED) + REST
        try:
            os.rename(self._path, rest)  # nobody need wait for what is to be removed
            self._path = rest
        except OSError as error:
            log.debug("%s keeps its name: %s", self._path, error)

    def remove(self) -> int:
        """Remove what it has left unfinished, and the journal, if nothing is left; how many things that were."""
        if not self._whole:
            return 0  # what it had decided may need them
        removed = 0
        for kind, place in self._entries:
            if kind != TOGETHER:
                try:
                    removed += _known(cleaners, kind)(place, self._token)
                except Exception as error:
                    self._failed(f"what it has left in {place}", error)
        if self._whole:
            with suppress(OSError):
                os.unlink(self._path)
        return removed

    def _failed(self, what: str, error: Exception) -> None:
        global _undone
        self._whole, _undone = False, True
        log.debug("of a process that is gone, %s stays: %r", what, error)


def _finish(place: str) -> None:
    import json  # only after a crash

    steps = json.loads(place)
    each = [(_known(finishers, step["kind"]), step) for step in steps]
    for finish, step in each:
        finish(step)


def _known(registry: Mapping[str, Any], kind: str) -> Any:
    """What ``kind`` is registered with. Raises ``LookupError``, ``ImportError``."""
    if kind not in registry and kind in _MODULES:
        import_module(_MODULES[kind])
    return registry[kind]


def _forked() -> None:
    global _lock, _begun, _undone, _decided, _healed
    _lock, _decided = threading.Lock(), threading.Event()
    _begun = _undone = _healed = False
    for fd in list(_fds):
        with suppress(OSError):
            _close(fd)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
