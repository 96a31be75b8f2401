"""Handles that read: a plain file for ``with`` in a sync body, one of the loop for ``async with``."""

from __future__ import annotations

import asyncio
import os
import stat
from collections import deque
from collections.abc import Callable
from functools import partial
from io import BufferedReader, TextIOBase, TextIOWrapper
from typing import IO, Any, Generic, TypeVar

from ..threads import files
from ._hops import HOP, OnLoop, in_thread

__all__ = ["AsyncReader", "Reading"]

SMALL = 64 * 1024
"""Bytes of a file that is read by the hop that opens it: of a thousand bodies that read at once none holds a
descriptor while it does something else, and together they hold what they were going to read anyway."""

S = TypeVar("S", str, bytes)


class Reading(Generic[S]):
    """``with`` gives a plain file object, ``async with`` an ``AsyncReader``."""

    def __init__(self, opener: Callable[[], IO[Any]], *, crlf: bool = False) -> None:
        self._opener = opener
        self._crlf = crlf
        self._file: IO[Any] | None = None
        self._async: AsyncReader[S] | None = None

    def __enter__(self) -> IO[S]:
        self._file = self._opener()
        return self._file

    def __exit__(self, *error: Any) -> None:
        if self._file is not None:
            self._file.close()

    async def __aenter__(self) -> AsyncReader[S]:
        try:
            whole = await in_thread(self._begin)
        except BaseException:
            if self._file is not None:  # cancelled while it was being opened
                await in_thread(self._file.close)
            raise
        assert self._file is not None
        self._async = AsyncReader(self._file, whole, crlf=self._crlf)
        return self._async

    def _begin(self) -> list[Any] | None:
        """In a thread: open the file. One that is small is read and closed at once; what it holds, as read ahead."""
        file = self.__enter__()
        if type(file) is not TextIOWrapper and type(file) is not BufferedReader:
            return None
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode) or status.st_size > SMALL:
            return None
        try:
            whole: list[Any] = file.readlines() if isinstance(file, TextIOWrapper) else [file.read()]
        except (OSError, UnicodeError):
            file.seek(0)  # raised again by the read() of whoever reads it
            return None
        file.close()
        return whole

    async def __aexit__(self, *error: Any) -> None:
        if self._async is not None:
            await self._async.close()

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"no {name!r} yet: write `with target.open() as file:` (or `async with`) first")


class AsyncReader(OnLoop, Generic[S]):
    """An open file on the loop; reads ahead in thread hops of 256 kB, text by whole lines.

    What a cancelled call has read is not lost: the next call gives it.
    """

    def __init__(self, file: IO[Any], whole: list[Any] | None, *, crlf: bool = False) -> None:
        from aiofiles.threadpool import wrap  # loaded when first needed

        super().__init__(text=isinstance(file, TextIOBase))
        self._file = file
        self._aio: Any = wrap(file, loop=asyncio.get_running_loop(), executor=files)
        self._ahead: deque[Any] = deque()  # pieces of what has been read ahead
        self._at = 0  # so much of the first piece has been given
        self._held = 0  # and so much of all of them has not
        self._split = True  # every piece is a line. Else text ends in what a cancelled ``read()`` has read
        self._crlf = crlf  # lines end with both: what is left of one after its \r goes on in the next
        self._ended = whole is not None  # the file has been read to its end, and closed
        if whole is not None:
            self._add(whole, lines=self._text)

    async def read(self, size: int = -1) -> S:
        """At most ``size`` characters or bytes, by default all that is left; nothing at the end."""
        if size < 0:
            if not self._ended:
                await self._step(self._read_rest)
            return self._take(self._held)
        while not self._ended and self._held < size and await self._step(partial(self._read_ahead, size)):
            pass
        return self._take(size)

    async def readline(self) -> S:
        """The next line with its end; nothing at the end of the file."""
        while not (length := self._line()) and not self._ended and await self._step(self._read_lines):
            pass
        return self._take(length or self._held)

    def __aiter__(self) -> AsyncReader[S]:
        return self

    async def __anext__(self) -> S:
        if self._split and self._ahead and not self._at:  # 1/3 of the time of what follows
            line: S = self._ahead.popleft()
            self._held -= len(line)
        elif not (line := await self.readline()):
            raise StopAsyncIteration
        return line

    def _line(self) -> int:
        """The length of the next line, 0 if it has not been read to its end."""
        if self._ahead and (self._split or self._text):
            if not self._split and len(self._ahead) == 1:
                raise ValueError("a read() of this handle has been cancelled; another read() gives what it read")
            length = len(self._ahead[0]) - self._at
            if self._crlf and self._at and length == 1 and self._ahead[0][-1] == "\n":
                return length + len(self._ahead[1]) if len(self._ahead) > 1 else 0
            return length
        at, before = self._at, -self._at
        for piece in self._ahead:
            if end := piece.find(b"\n", at) + 1:
                return before + int(end)
            at, before = 0, before + len(piece)
        return 0

    def _take(self, size: int) -> S:
        parts: list[Any] = []
        while size and self._ahead:
            part = self._ahead[0][self._at : self._at + size]
            parts.append(part)
            size -= len(part)
            self._held -= len(part)
            self._at += len(part)
            if self._at == len(self._ahead[0]):
                self._ahead.popleft()
                self._at = 0
        data: S = self._nothing.join(parts)
        return data

    def _add(self, pieces: list[Any], *, lines: bool) -> bool:
        """Whether there was anything: not at the end of the file."""
        if more := sum(map(len, pieces)):
            self._split = lines and (self._split or not self._ahead)
            self._ahead += pieces
            self._held += more
        return more > 0

    async def _read_ahead(self, size: int) -> bool:
        if self._held >= size:  # another reader of this handle has been here
            return True
        hop = max(HOP, size - self._held)
        pieces = await self._aio.readlines(hop) if self._text else [await self._aio.read(hop)]
        return self._add(pieces, lines=self._text)

    async def _read_lines(self) -> bool:
        return self._line() > 0 or self._add(await self._aio.readlines(HOP), lines=True)

    async def _read_rest(self) -> None:
        self._add([await self._aio.read()], lines=False)

    async def close(self) -> None:
        """Close. A second time does nothing."""
        if self._ended:  # the file is closed, and tells whoever goes on reading
            self._ended = False
            self._take(self._held)
        else:
            await self._step(self._aio.close)

    def abandon(self) -> None:
        """Close without waiting: nobody is going to close it."""
        if not self._ended:
            self._file.close()
