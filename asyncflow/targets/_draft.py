"""A private temporary beside its final name, made visible by one rename. Everything here blocks.

The order is: create (O_EXCL, in the same directory) -> write -> fsync -> close, errors checked -> rename ->
fsync of the directory. Without the first fsync a crash can leave an empty file under the final name; an
error of fsync or close (a full disk shows up there) means the temporary is dead, never that it is retried.
"""

from __future__ import annotations

import os
import secrets
import shutil
from contextlib import suppress
from typing import IO, Any, Literal

from ..attempt import current

__all__ = ["Draft", "Durability"]

Durability = Literal["fsync", "none"]


class Draft:
    """What will become ``final``. The attempt it belongs to is the one it was made in."""

    def __init__(self, final: str, key: str, durability: Durability, *, suffix: str = "") -> None:
        self.final = final
        self.key = key
        self.durable = durability == "fsync"
        # Not derived from the final name: that may be 250 bytes long, and others must not guess it.
        self.path = os.path.join(os.path.dirname(final), f".af-{secrets.token_hex(10)}{suffix}")
        self.attempt = current.get()

    def create(self) -> int:
        """Create the temporary, and missing parents, and give its file descriptor."""
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
        try:
            return os.open(self.path, flags, 0o666)
        except FileNotFoundError:
            self.make_parents()
            return os.open(self.path, flags, 0o666)

    def make_parents(self) -> None:
        """Create the missing directories above the final name, durably if the draft is durable."""
        missing = []
        parent = os.path.dirname(self.final)
        while not os.path.isdir(parent) and parent != os.path.dirname(parent):
            missing.append(parent)
            parent = os.path.dirname(parent)
        for directory in reversed(missing):
            with suppress(FileExistsError):
                os.mkdir(directory)
            if self.durable:
                sync_directory(os.path.dirname(directory))

    def publish_file(self, file: IO[Any]) -> None:
        """Make everything written to ``file`` visible under the final name; it is closed either way.

        Raises ``OSError`` if the content could not be written whole, ``TaskCancelled`` if the attempt has
        been cancelled; nothing is visible then, and the temporary is gone.
        """
        try:
            file.flush()
            if self.durable:
                os.fsync(file.fileno())
            file.close()
            self._rename()
        except BaseException:
            self.discard(file)
            raise

    def publish_path(self) -> None:
        """Make what a program left at ``path``, a file or a directory, visible under the final name."""
        try:
            if self.durable:
                sync_tree(self.path)
            self._rename()
        except BaseException:
            self.discard()
            raise

    def _rename(self) -> None:
        if self.attempt is None:
            os.replace(self.path, self.final)
        else:
            self.attempt.begin_publish()
            visible = False
            try:
                os.replace(self.path, self.final)
                visible = True
            finally:
                self.attempt.end_publish(self.key, visible=visible)
        if self.durable:
            sync_directory(os.path.dirname(self.final))

    def discard(self, file: IO[Any] | None = None) -> None:
        """Remove the temporary. An error of closing it no longer matters: nobody will see the content."""
        if file is not None:
            with suppress(OSError, ValueError):
                file.close()
        with suppress(FileNotFoundError):
            if os.path.isdir(self.path) and not os.path.islink(self.path):
                shutil.rmtree(self.path)
            else:
                os.unlink(self.path)


def sync_directory(path: str) -> None:
    """fsync a directory, so that the names in it survive a power cut. Windows has no such call."""
    if os.name == "nt":
        return
    fd = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_tree(path: str) -> None:
    """fsync a file, or every file and directory below ``path``."""
    if not os.path.isdir(path):
        fd = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
        return
    for directory, _, names in os.walk(path):
        for name in names:
            inner = os.path.join(directory, name)
            if not os.path.islink(inner):
                sync_tree(inner)
        sync_directory(directory)
