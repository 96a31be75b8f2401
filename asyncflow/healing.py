"""What killed processes have left, as their journals say: what they had decided is done, the rest is removed.

It is looked at once, in a thread in the background, when this process first builds or writes: some of it may be on a
server that does not answer. A build waits for what had been decided (``together``), since it would make that again;
not for long.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
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
"""Seconds that the first build waits for what killed processes had decided."""

PATIENCE_AT_EXIT = 1.0
"""Seconds that the end of the process waits for the rest of it: a short build, too, removes what was left."""

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
            _healed = not {name for name in os.listdir(journal.folder()) if name != journal.token()}
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
    left = _left()
    try:
        for one in left:
            one.finish()
        _decided.set()
        removed = sum([one.remove() for one in left])
    finally:
        for one in left:
            os.close(one.fd)
    if removed:
        log.info("removed %d unfinished files of processes that were killed", removed)
    return removed


def _left() -> list[_Left]:
    """The journals of those that are gone, locked."""
    found = []
    with suppress(FileNotFoundError):
        for name in sorted(os.listdir(journal.folder())):
            if name.rstrip("~") == journal.token():
                continue
            path = os.path.join(journal.folder(), name)
            try:
                fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            except FileNotFoundError:  # somebody else has been here
                continue
            except OSError as error:
                log.debug("%s is no journal that can be read: %s", path, error)
                continue
            if journal.locked(fd):
                found.append(_Left(name.rstrip("~"), path, fd))
            else:
                os.close(fd)  # it is alive
    return found


class _Left:
    """One journal of a process that is gone."""

    def __init__(self, token: str, path: str, fd: int) -> None:
        self.fd = fd
        self._token = token
        self._path = path
        self._whole = True  # all of it has been done
        self._entries: list[tuple[str, str]] = []
        try:
            self._entries = [(kind, place) for kind, _, place in (entry.partition(" ") for entry in journal.read(fd))]
        except OSError as error:
            self._failed("the journal", error)

    def finish(self) -> None:
        """Do what it had decided. It needs what would be removed as unfinished, so it comes first."""
        for kind, place in self._entries:
            if kind == TOGETHER:
                try:
                    _finish(place)
                except Exception as error:
                    self._failed("what it had decided", error)

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


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
