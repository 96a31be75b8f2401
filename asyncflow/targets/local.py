"""``LocalTarget``: a file or directory on this machine, that appears whole or not at all."""

from __future__ import annotations

import asyncio
import os
from io import BytesIO, TextIOWrapper
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args, overload

from ..errors import TargetStateUnknown
from ..links import resolve
from ..target import Answer, How
from ..threads import files
from ._draft import Draft, Durability
from ._file import FileTarget, check_codec
from ._reading import Reading
from ._writing import TemporaryPath, Writing

if TYPE_CHECKING:
    from ..codecs import Codec

__all__ = ["LocalTarget"]


class LocalTarget(FileTarget):
    """The file (or directory) at ``path``, made absolute when the target is constructed.

    With a ``codec`` it takes and gives values: ``await target.write(value)``, ``await target.read()``.

    ``durability="fsync"`` (the default) means that what was published survives a power cut; ``"none"``
    leaves that to the operating system and saves 0.3-4 ms a file. Both are atomic.

    Raises ``TypeError`` for a path that is not a string or path object and a codec that is none, ``ValueError`` for a
    path that is empty or holds a NUL, and for an unknown durability.
    """

    __slots__ = ("_key", "codec", "durability", "path")

    _how: ClassVar[How] = "thread"

    def __init__(
        self, path: str | os.PathLike[str], *, codec: Codec[Any] | None = None, durability: Durability = "fsync"
    ) -> None:
        text = os.fspath(path)
        if not isinstance(text, str):
            raise TypeError(f"LocalTarget({path!r}): a path is a str or a path object, not bytes")
        if not text or "\0" in text:
            raise ValueError(f"LocalTarget({path!r}): a path must not be empty and must not hold a NUL")
        if durability not in get_args(Durability):
            raise ValueError(f"LocalTarget(durability={durability!r}): expected 'fsync' or 'none'")
        if ".." in text.split(os.sep):  # only the file system can say what `link/..` is
            parent, name = os.path.split(text.rstrip(os.sep))
            text = os.path.realpath(text) if name == ".." else os.path.join(os.path.realpath(parent), name)
        self.path: str = os.path.abspath(text)
        self.durability: Durability = durability
        self.codec = check_codec(codec)
        self._key: str | None = None

    @property
    def key(self) -> str:  # type: ignore[override]  # read-only here, an attribute in a user's own class
        """``file://`` and the path with its parent resolved, so that two spellings are one file."""
        if self._key is None:
            parent, name = os.path.split(self.path)
            self._key = "file://" + os.path.join(resolve.get()(parent), name)
        return self._key

    def _there(self) -> bool:
        # Not os.path.exists: that calls everything it cannot see absent, and a task would run again.
        try:
            os.stat(self.path)
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:
            raise TargetStateUnknown(f"cannot tell whether {self.path} exists: {error.strerror or error}") from error
        return True

    _exists = _there  # a subclass that overrides exists() replaces this one, and may ask super().exists()

    async def _ask(self) -> bool:
        return await asyncio.get_running_loop().run_in_executor(files, self._there)

    def exists(self) -> Answer:
        """Whether the path is there. Raises ``TargetStateUnknown`` where that cannot be established."""
        return Answer(f"{self!r}.exists()", self._ask, self._there)

    @overload
    def open(self, mode: Literal["r"] = "r", *, encoding: str = ..., newline: str | None = ...) -> Reading[str]: ...
    @overload
    def open(self, mode: Literal["rb"]) -> Reading[bytes]: ...
    @overload
    def open(self, mode: Literal["w"], *, encoding: str = ..., newline: str | None = ...) -> Writing[str]: ...
    @overload
    def open(self, mode: Literal["wb"]) -> Writing[bytes]: ...
    def open(self, mode: str = "r", *, encoding: str = "utf-8", newline: str | None = None) -> Any:
        """Open for ``with`` (sync code) or ``async with`` (on the loop); ``r``, ``w``, ``rb`` or ``wb``.

        Writing goes to a private temporary in the same directory, which is created if need be; leaving the
        block normally publishes it by one rename. Raises ``OSError`` on entering or leaving the block. (On the
        loop, where a temporary could be made in this directory before, it is made when there is something to write:
        if that has become impossible, the ``write`` that finds out raises it, at the latest leaving the block does.)
        """
        text: dict[str, Any] = {} if "b" in mode else {"encoding": encoding, "newline": newline}
        if mode in ("r", "rb"):
            return Reading(lambda: open(self.path, mode, **text), crlf=newline == "\r\n")
        if mode in ("w", "wb"):
            if text and (encoding != "utf-8" or newline is not None):
                TextIOWrapper(BytesIO(), **text)  # raises what the file object, which may be made later, would
            return Writing(self._draft(), lambda create: open(self.path, mode, opener=create, **text), text=bool(text))
        raise ValueError(f"{self!r}.open({mode!r}): the mode is 'r', 'w', 'rb' or 'wb'; a target is written whole")

    def temporary_path(self) -> TemporaryPath:
        """A private path for programs that want one, for ``with`` or ``async with``.

        What is there when the block ends normally, a file or a directory, is published; the path ends in the
        target's own suffix. A directory that replaces one takes two renames: for a moment there is none. Raises
        ``FileNotFoundError`` if nothing is there, ``OSError`` for a file where there is a directory or the reverse.
        """
        suffix = os.path.splitext(self.path)[1]
        return TemporaryPath(self._draft(suffix=suffix if len(suffix) <= 16 else ""))

    def _draft(self, *, suffix: str = "") -> Draft:
        return Draft(self.path, self.key, self.durability, suffix=suffix)

    def __fspath__(self) -> str:
        return self.path

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LocalTarget) and other.path == self.path

    def __hash__(self) -> int:
        return hash((LocalTarget, self.path))

    def __repr__(self) -> str:
        return f"LocalTarget({self.path!r})"
