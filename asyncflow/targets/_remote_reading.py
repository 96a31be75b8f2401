"""Handles that read from a store over a network: of the loop for ``async with``, a file object for ``with``."""

from __future__ import annotations

import asyncio
import codecs
import io
import re
from collections.abc import Awaitable, Callable
from contextlib import suppress
from math import inf
from typing import IO, Any, Generic, TypeVar

from ..bridge import Bridge
from ..shield import finish
from ._hops import HOP
from ._streams import Source

__all__ = ["RemoteReader", "RemoteReading"]

S = TypeVar("S", str, bytes)

_LINE = re.compile(r"\r\n|\r(?!\Z)|\n")  # of any kind; a \r that comes last may be half of a \r\n


class RemoteReading(Generic[S]):
    """``async with`` gives a ``RemoteReader``, ``with`` (in a sync body, in a script) a plain file object.

    ``open_source()`` opens what is read. ``encoding`` is None for bytes.
    """

    def __init__(self, open_source: Callable[[], Awaitable[Source]], encoding: str | None, newline: str | None) -> None:
        self._open_source = open_source
        self._encoding = encoding
        self._newline = newline
        self._bridge: Bridge | None = None
        self._source: Source | None = None
        self._file: IO[Any] | None = None
        self._reader: RemoteReader[S] | None = None

    async def __aenter__(self) -> RemoteReader[S]:
        self._reader = RemoteReader(await self._open_source(), self._encoding, self._newline)
        return self._reader

    async def __aexit__(self, *error: object) -> None:
        if self._reader is not None:
            await self._reader.close()

    def __enter__(self) -> IO[S]:
        self._bridge = Bridge("on the event loop write `async with target.open() as file:`")
        try:
            self._source = source = self._bridge.run(_opened(self._open_source))
        except BaseException:
            self._bridge.close()
            raise
        file: Any = io.BufferedReader(_RawSource(source, self._bridge), HOP)
        if self._encoding is not None:
            file = io.TextIOWrapper(file, encoding=self._encoding, newline=self._newline)
        self._file = file
        return file  # type: ignore[no-any-return]

    def __exit__(self, *error: object) -> None:
        if self._file is not None and self._bridge is not None and self._source is not None:
            try:
                self._bridge.run(self._source.close())
                self._file.close()
            finally:
                self._bridge.close()

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"no {name!r} yet: write `async with target.open() as file:` (or `with`) first")


async def _opened(open_source: Callable[[], Awaitable[Source]]) -> Source:
    return await open_source()


class _RawSource(io.RawIOBase):
    def __init__(self, source: Source, bridge: Bridge) -> None:
        self._source = source
        self._bridge = bridge

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._bridge.run(self._source.read(len(buffer)))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed:
            super().close()
            # Without waiting: it may be the collector who calls, in any thread, that of the loop too.
            self._bridge.abandon(self._source.abandon)


class RemoteReader(Generic[S]):
    """A stored thing that is being read, some 256 kB at a time.

    What a cancelled call has read is not lost: the next call gives it.
    """

    def __init__(self, source: Source, encoding: str | None, newline: str | None) -> None:
        self._loop = asyncio.get_running_loop()
        self._source = source
        self._newline = newline
        self._decoder: io.IncrementalNewlineDecoder | None = None
        self._nothing: Any = b""
        if encoding is not None:
            bare = codecs.getincrementaldecoder(encoding)("strict")
            self._decoder = io.IncrementalNewlineDecoder(bare, translate=newline is None)
            self._nothing = ""
        self._buffer = self._nothing
        self._at = 0  # so much of the buffer has been given
        self._ended = False
        self._closed = False

    async def read(self, size: int = -1) -> S:
        """At most ``size`` characters or bytes, by default all that is left; nothing at the end. Raises ``OSError``."""
        if size < 0:
            await self._gather(inf)
            return self._take(len(self._buffer))
        if len(self._buffer) - self._at < size:
            await self._gather(size)
        return self._take(size)

    async def readline(self) -> S:
        """The next line with its end; nothing at the end of the file."""
        seen = self._at
        while not (end := self._end_of_line(seen)):
            seen = len(self._buffer) - self._at  # in what is left when the buffer has been cut
            if not await self._more():
                end = len(self._buffer)
                break
        return self._take(end - self._at)

    def __aiter__(self) -> RemoteReader[S]:
        return self

    async def __anext__(self) -> S:
        if line := await self.readline():
            return line
        raise StopAsyncIteration

    async def close(self) -> None:
        """Close. A second time does nothing."""
        if not self._closed:
            self._closed = True
            self._buffer, self._at = self._nothing, 0
            await finish(self._source.close())

    def abandon(self) -> None:
        """Let go of it without waiting, in any thread: nobody is going to close it."""
        self._closed = True
        with suppress(RuntimeError):  # its loop has been closed
            self._loop.call_soon_threadsafe(self._source.abandon)

    async def _gather(self, size: float) -> None:
        """Have at least so much in the buffer, or all there is. What a cancel interrupts is there all the same."""
        parts = [self._take(len(self._buffer))]
        held = len(parts[0])
        try:
            while held < size and (data := await self._read_some()):
                parts.append(data)
                held += len(data)
        finally:
            self._buffer, self._at = self._nothing.join(parts), 0

    async def _more(self) -> bool:
        """Whether there is more in the buffer than there was: not at the end."""
        data = await self._read_some()
        self._buffer = self._buffer[self._at :] + data if self._at < len(self._buffer) else data
        self._at = 0
        return bool(data)

    async def _read_some(self) -> Any:
        if self._closed:
            raise ValueError("read of a closed handle")
        while not self._ended:
            data = await self._source.read(HOP)
            self._ended = not data
            if self._decoder is None:
                return data
            if text := self._decoder.decode(data, final=self._ended):
                return text
        return self._nothing

    def _end_of_line(self, seen: int) -> int:
        """Where the next line ends, 0 if its end is not in the buffer; before ``seen`` it is not."""
        if self._newline == "" and self._decoder is not None:
            found = _LINE.search(self._buffer, max(self._at, seen - 1))
            return found.end() if found else 0
        end = b"\n" if self._decoder is None else self._newline or "\n"
        at = self._buffer.find(end, max(self._at, seen - 1))
        return at + len(end) if at >= 0 else 0

    def _take(self, size: int) -> S:
        if not self._at and size >= len(self._buffer):
            whole: S = self._buffer
            self._buffer = self._nothing
            return whole
        data: S = self._buffer[self._at : self._at + size]
        self._at += len(data)
        if self._at == len(self._buffer):
            self._buffer, self._at = self._nothing, 0
        return data
