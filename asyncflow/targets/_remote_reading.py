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
from ._hops import HOP, in_thread
from ._streams import Source, Turns

__all__ = ["RemoteReader", "RemoteReading"]

S = TypeVar("S", str, bytes)

LARGE = 4 * 1024 * 1024
"""Characters or bytes that are too many to be put together on the loop: 1 ms."""

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

    Of several tasks that read, each gets what comes next, whole. What a cancelled call has read is not lost: the next
    call gives it.
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
        # Who finds what it wants in the buffer takes it. Who does not waits for its turn, and sets aside what is there:
        # until it has what it wants, nobody else finds anything.
        self._turns = Turns("read of a closed handle")
        self._buffer: Any = self._nothing
        self._at = 0  # so much of the buffer has been given
        self._aside: list[Any] = []
        self._ended = False

    async def read(self, size: int = -1) -> S:
        """At most ``size`` characters or bytes, by default all that is left; nothing at the end. Raises ``OSError``."""
        if 0 <= size <= len(self._buffer) - self._at:
            return self._take(size)
        async with self._turns.turn():
            return await self._read(inf if size < 0 else size)

    async def readline(self) -> S:
        """The next line with its end; nothing at the end of the file."""
        if end := self._end_of_line(self._buffer, self._at):
            return self._take(end - self._at)
        async with self._turns.turn():
            return await self._read_line()

    def __aiter__(self) -> RemoteReader[S]:
        return self

    async def __anext__(self) -> S:
        if line := await self.readline():
            return line
        raise StopAsyncIteration

    async def close(self) -> None:
        """Close; another task's read is stopped. A second time does nothing."""
        if not self._turns.over:
            await finish(self._close())

    async def _close(self) -> None:
        self._buffer, self._at = self._nothing, 0
        async with self._turns.last():
            self._aside.clear()
            self._buffer, self._at = self._nothing, 0  # of a call that came to its end as it was stopped
            await self._source.close()

    def abandon(self) -> None:
        """Let go of it without waiting, in any thread: nobody is going to close it."""
        self._turns.over = True
        with suppress(RuntimeError):  # its loop has been closed
            self._loop.call_soon_threadsafe(self._source.abandon)

    # In turn:

    async def _read(self, size: float) -> S:
        await self._regain()
        if size <= len(self._buffer) - self._at:
            return self._take(int(size))
        held = self._set_aside()
        while held < size and (data := await self._read_some()):
            self._aside.append(data)
            held += len(data)
        return await self._joined(int(min(held, size)))

    async def _read_line(self) -> S:
        await self._regain()
        if end := self._end_of_line(self._buffer, self._at):
            return self._take(end - self._at)
        held = self._set_aside()
        overlap = 0 if self._decoder is None or self._newline in (None, "\n", "\r") else 1  # an end of two characters
        last = self._aside[0][-overlap:] if overlap and held else self._nothing
        while data := await self._read_some():
            self._aside.append(data)
            if end := self._end_of_line(last + data, 0):
                return await self._joined(held - len(last) + end)
            held += len(data)
            last = data[-overlap:] if overlap else last
        return await self._joined(held)

    def _set_aside(self) -> int:
        """What is in the buffer is set aside, to be gone on with; how much that is."""
        if rest := self._take(len(self._buffer)):
            self._aside.append(rest)
        return len(rest)

    async def _regain(self) -> None:
        """Have what a cancelled call had set aside in the buffer again."""
        if self._aside:
            self._buffer = await self._joined(sum(map(len, self._aside)))

    async def _joined(self, size: int) -> S:
        """The first ``size`` of what is set aside; what is more of its last part is the buffer then."""
        parts = self._aside
        if more := sum(map(len, parts)) - size:
            last = parts.pop()
            parts += [last[:-more], last[-more:]]
        wanted = parts[:-1] if more else parts
        # Cancelled here, it is still set aside.
        data: Any = self._nothing.join(wanted) if size <= LARGE else await in_thread(self._nothing.join, wanted)
        self._buffer, self._at = parts[-1] if more else self._nothing, 0
        self._aside = []
        return data  # type: ignore[no-any-return]

    async def _read_some(self) -> Any:
        while not self._ended:
            data = await self._source.read(HOP)
            self._ended = not data
            if self._decoder is None:
                return data
            if text := self._decoder.decode(data, final=self._ended):
                return text
        return self._nothing

    # Of the buffer:

    def _end_of_line(self, data: Any, at: int) -> int:
        """Where the first line of ``data`` from ``at`` on ends, 0 if its end is not there."""
        if self._newline == "" and self._decoder is not None:
            found = _LINE.search(data, at)
            return found.end() if found else 0
        end = b"\n" if self._decoder is None else self._newline or "\n"
        start = data.find(end, at)
        return int(start + len(end)) if start >= 0 else 0

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
