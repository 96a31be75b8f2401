"""A private temporary beside its final name, made visible by one rename. Everything here blocks.

The order is: create (O_EXCL, in the same directory) -> write -> fsync -> close, errors checked -> rename ->
fsync of the directory. Without the first fsync a crash can leave an empty file under the final name; an
error of fsync or close (a full disk shows up there) means the temporary is dead, never that it is retried.
"""

from __future__ import annotations

import errno
import logging
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cached_property, partial
from typing import IO, Any, Literal, NoReturn

from .. import healing, journal
from ..attempt import current

__all__ = ["Draft", "Durability"]

Durability = Literal["fsync", "none"]

log = logging.getLogger("asyncflow")

CLOEXEC = getattr(os, "O_CLOEXEC", 0)

TRIES = 100
"""Renames of a directory over one that others replace all the time."""

_TAKEN = (errno.ENOTEMPTY, errno.EEXIST)

_proven: set[str] = set()
PROVEN = 1024
"""Directories remembered as those in which a temporary could be created."""


class Draft:
    """What will become ``final``. The attempt it belongs to is the one it was made in."""

    def __init__(self, final: str, key: str, durability: Durability, *, suffix: str = "") -> None:
        self.final = final
        self.key = key
        self.durable = durability == "fsync"
        self.directory = os.path.dirname(final)
        self._suffix = suffix
        self.attempt = current.get()
        self.pid = os.getpid()
        self.created = False
        self._aside: list[tuple[str, str]] = []  # where directories are that were replaced; what the journal says of it

    @cached_property
    def path(self) -> str:
        """The temporary. Made when first asked for, in a thread: random bytes let go of the interpreter."""
        journal.note("folder", self.directory)
        return self._private() + self._suffix

    def _private(self) -> str:
        # Not derived from the final name: that may be 250 bytes long, and others must not guess it.
        return os.path.join(self.directory, f".af-{journal.token()}{os.urandom(6).hex()}")

    @property
    def expected(self) -> bool:
        """Whether ``create`` can be put off: it succeeded in this directory when it was last called there.

        What keeps a file from being created is hardly ever the file: its directory may not be made or written,
        or there is no room. A body wants to know that before it begins to work; once for a directory will do.
        """
        return self.directory in _proven

    def create(self) -> int:
        """Create the temporary, and missing parents, and give its file descriptor."""
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | CLOEXEC | getattr(os, "O_BINARY", 0)
        journal.unfinished.add(self.path)
        try:
            with self._named():
                try:
                    fd = os.open(self.path, flags, 0o666)
                except FileNotFoundError:
                    self.make_parents()
                    fd = os.open(self.path, flags, 0o666)
        except OSError:
            _proven.discard(self.directory)
            journal.unfinished.discard(self.path)
            raise
        self.created = True
        if len(_proven) >= PROVEN:
            _proven.clear()
        _proven.add(self.directory)
        return fd

    def lend(self) -> str:
        """The path of the temporary, for somebody else to create it, below parents that are there."""
        self.make_parents()
        journal.unfinished.add(self.path)
        return self.path

    def make_parents(self) -> None:
        """Create the missing directories above the final name, durably if the draft is durable."""
        missing = []
        parent = self.directory
        while not os.path.isdir(parent) and parent != os.path.dirname(parent):
            missing.append(parent)
            parent = os.path.dirname(parent)
        for directory in reversed(missing):
            with suppress(FileExistsError):
                os.mkdir(directory)
            if self.durable:
                with Directory(os.path.dirname(directory)) as above:
                    above.sync()

    def complete_file(self, file: IO[Any]) -> None:
        """Store everything written to ``file``, which is closed either way: only ``publish`` is left.

        Raises ``OSError`` if the content could not be written whole; the temporary is gone then.
        """
        try:
            with self._named():
                file.flush()
                if self.durable:
                    os.fsync(file.fileno())
                file.close()
        except BaseException:
            self.discard(file)
            raise

    def publish(self) -> None:
        """Make what is complete visible under the final name.

        Raises ``OSError``, and ``TaskCancelled`` if the attempt has been cancelled; nothing is visible then, and the
        temporary is gone. (One error leaves the whole file visible: that of the last fsync, the directory's. A crash
        may still undo the rename.)
        """
        try:
            with self._named():
                self._rename()
        except BaseException:
            self.discard()
            raise

    def step(self) -> dict[str, Any]:
        """What ``publish`` is going to do, for the journal: a process that finds it undone does it."""
        kind = "file" if self.durable else "file, not durable"
        return {"kind": kind, "from": self.path, "to": self.final, "was": _state(self.final)}

    def publish_path(self) -> None:
        """Make what a program left at ``path``, a file or a directory, visible under the final name.

        A directory that is there is replaced by another one. Raises as ``publish``.
        """
        try:
            with self._named():
                if self.durable:
                    sync_tree(self.path)
        except BaseException:
            self.discard()
            raise
        self.publish()
        for former, _ in self._aside:
            self._remove(former)

    def _rename(self) -> None:
        if not self.durable:
            self._replace()
            return journal.unfinished.discard(self.path)
        with Directory(self.directory) as directory:  # opened first: its errors come before anything is visible
            self._replace()
            journal.unfinished.discard(self.path)
            directory.sync()
        return None

    def _replace(self) -> None:
        if self.attempt is None:
            return self._take_place()
        self.attempt.begin_publish()
        visible = False
        try:
            self._take_place()
            visible = True
        finally:
            self.attempt.end_publish(self.key, visible=visible)
        return None

    def _take_place(self) -> None:
        try:
            os.replace(self.path, self.final)
        except OSError:
            if not (_is_folder(self.path) and _is_folder(self.final)):
                raise
            self._replace_folder()

    def _replace_folder(self) -> None:
        """No rename does that where there is something in it. The one that is there goes aside first.

        For a moment there is none. Who is killed then has left both, and what is to be done in the journal; who is
        stopped, by Ctrl-C say, puts it back.
        """
        try:
            for tries in range(1, TRIES + 1):
                self._put_aside()
                try:
                    os.rename(self.path, self.final)
                    break
                except OSError as error:
                    if error.errno not in _TAKEN or tries == TRIES:
                        raise
                    # Somebody else has replaced it in that moment: the last one stands, as with files.
        except BaseException as error:
            self._put_back(error)
            raise
        for _, decision in self._aside:
            journal.done(healing.TOGETHER, decision)

    def _put_aside(self) -> None:
        import json

        former = self._private()
        kind = "folder" if self.durable else "folder, not durable"
        decision = json.dumps([{"kind": kind, "from": self.path, "to": self.final, "former": former}])
        journal.note(healing.TOGETHER, decision)
        journal.unfinished.add(former)
        self._aside.append((former, decision))
        with suppress(FileNotFoundError):  # somebody else who replaces it has put it aside
            os.rename(self.final, former)

    def _put_back(self, error: BaseException) -> None:
        for former, decision in reversed(self._aside):
            if os.path.lexists(former) and not os.path.lexists(self.final):
                try:
                    os.rename(former, self.final)
                except OSError:
                    error.add_note(
                        f"what was there is at {former}: when this process has ended, the next one puts it back"
                    )
                    continue
            journal.done(healing.TOGETHER, decision)
            self._remove(former)  # if it is there still, somebody else's is in its place

    @contextmanager
    def _named(self) -> Iterator[None]:
        """An error of writing names no file, one of creating only the temporary: name the user's own."""
        try:
            yield
        except OSError as error:
            if error.filename in (None, self.path, self.final):
                error.filename = self.final
                if error.filename2 is not None:
                    del error.filename2  # None would be printed
            raise

    def discard(self, file: IO[Any] | None = None) -> None:
        """Remove the temporary. Raises nothing: it must not hide why the content is not wanted."""
        mine = os.getpid() == self.pid
        if file is not None:
            # A forked child has a copy of the handle, and must not flush into it what the parent will write.
            buffer: Any = getattr(file, "buffer", file)
            with suppress(OSError, ValueError):
                (file if mine else buffer.raw).close()
        if mine and "path" in self.__dict__:  # else nothing has been begun
            self._remove(self.path)

    def _remove(self, path: str) -> None:
        try:
            if _is_folder(path):
                import shutil  # brings the archive formats along; only a directory needs it

                shutil.rmtree(path)
            else:
                os.unlink(path)
        except (FileNotFoundError, NotADirectoryError):  # there is none
            pass
        except OSError as error:
            log.warning("a temporary of %s is left behind: %s", self.final, error)
            return
        journal.unfinished.discard(path)


def _clean_folder(folder: str, token: str) -> int:
    """Remove what the process with this ``token`` has left unfinished in ``folder``; how many things that were."""
    removed = 0
    with suppress(FileNotFoundError, NotADirectoryError):
        with os.scandir(folder) as entries:
            left = [entry for entry in entries if entry.name.startswith(f".af-{token}")]
        for entry in left:
            if entry.is_dir(follow_symlinks=False):
                import shutil

                shutil.rmtree(entry.path)
            else:
                os.unlink(entry.path)
            removed += 1
    return removed


def _state(path: str) -> list[int] | None:
    """What tells whether it has been replaced; None if it is not there."""
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return None
    return [status.st_ino, status.st_mtime_ns, status.st_size]


def _is_folder(path: str) -> bool:
    return os.path.isdir(path) and not os.path.islink(path)


def _finish_file(step: Mapping[str, Any], *, durable: bool) -> None:
    if not os.path.lexists(step["from"]) or _state(step["to"]) != step["was"]:
        return  # it was done; or somebody has made it anew since, and what is left goes with the rest
    with Directory(os.path.dirname(step["to"])) as directory:
        os.replace(step["from"], step["to"])
        if durable:
            directory.sync()


def _finish_folder(step: Mapping[str, Any], *, durable: bool) -> None:
    """After a kill between the two renames: the new one is whole. What is put aside goes with the rest."""
    if os.path.lexists(step["to"]) or not os.path.lexists(step["former"]):
        return  # the first had not been done, or the second had; or somebody has made it anew since
    with Directory(os.path.dirname(step["to"])) as directory:
        try:
            os.rename(step["from"], step["to"])
        except OSError:
            os.rename(step["former"], step["to"])
        if durable:
            directory.sync()


healing.cleaners["folder"] = _clean_folder
healing.finishers["file"] = partial(_finish_file, durable=True)
healing.finishers["file, not durable"] = partial(_finish_file, durable=False)
healing.finishers["folder"] = partial(_finish_folder, durable=True)
healing.finishers["folder, not durable"] = partial(_finish_folder, durable=False)


class Directory:
    """An open directory, to make the names in it survive a power cut. Windows has no such call.

    Where the directory may not be read, or its file system knows no fsync of one, there is nothing to be done.
    """

    def __init__(self, path: str) -> None:
        self._fd: int | None = None
        self._path = path

    def __enter__(self) -> Directory:
        if os.name != "nt":
            with suppress(PermissionError):
                self._fd = os.open(self._path, os.O_RDONLY | CLOEXEC)
        return self

    def sync(self) -> None:
        """fsync. Raises ``OSError``."""
        if self._fd is None:
            return
        try:
            os.fsync(self._fd)
        except OSError as error:
            if error.errno not in {errno.EINVAL, errno.EBADF, errno.ENOTSUP}:
                error.filename = self._path
                raise

    def __exit__(self, *error: object) -> None:
        if self._fd is not None:
            with suppress(OSError):  # it was only read
                os.close(self._fd)


def sync_tree(path: str) -> None:
    """fsync a file, or every file and directory below ``path``. Raises ``OSError``."""
    if os.path.isdir(path) and not os.path.islink(path):
        for directory, _, names in os.walk(path, onerror=_raise):
            for name in names:
                _sync_file(os.path.join(directory, name))
            with Directory(directory) as opened:
                opened.sync()
    else:
        _sync_file(path)


def _sync_file(path: str) -> None:
    if not stat.S_ISREG(os.lstat(path).st_mode):
        return  # opening a pipe would wait for its other end; a link is synced with its directory
    fd = os.open(path, os.O_RDONLY | CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _raise(error: OSError) -> NoReturn:
    raise error
