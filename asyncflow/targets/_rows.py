"""Rows on their way into a file and out of it, so many at a time that a file of any size takes a little memory."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any

from ..gzipped import Compressor, Decompressor
from ._hops import HOP, in_thread
from ._reading import AsyncReader
from ._remote_reading import RemoteReader

if TYPE_CHECKING:
    from ..codecs import RowCodec
    from ._file import FileTarget

__all__ = ["Bunches", "Rows"]

MOST_ROWS = 10_000
"""Rows that are encoded in one hop to a thread, however small they are."""

AT_ONCE = 4 * HOP
"""Bytes of what was compressed that are decoded in one hop to a thread."""


class Bunches:
    """Rows from wherever they come, encoded so many at a time that they are about as long as a hop.

    What is both kinds of iterable is taken as an async one ``on_loop``, and as the other kind in sync code. Raises
    ``TypeError`` for what is neither, and in sync code for what is async alone.
    """

    def __init__(self, target: FileTarget, codec: RowCodec[Any], rows: Any, *, on_loop: bool) -> None:
        if isinstance(rows, (str, bytes)) or not isinstance(rows, (Iterable, AsyncIterable)):
            raise TypeError(f"rows are an iterable or an async iterable of rows, not {type(rows).__name__}")
        self._target = target
        self._encoder = codec.encoder()
        self._compressor = Compressor() if codec.gzip else None
        self._count = 100
        self._gathered: list[Any] = []
        self._async: AsyncIterator[Any] | None = None
        self._sync: Iterator[Any] = iter(())
        if isinstance(rows, AsyncIterable) and (on_loop or not isinstance(rows, Iterable)):
            if not on_loop:
                raise TypeError(f"{target!r}: an async iterable is written by `await target.write(rows)`")
            self._async = aiter(rows)
        else:
            self._sync = iter(rows)
        self.ended = False

    async def gather(self) -> None:
        """Have the next rows ready, where they come from an async iterable."""
        if self._async is None:
            return
        while len(self._gathered) < self._count:
            try:
                self._gathered.append(await anext(self._async))
            except StopAsyncIteration:
                self.ended = True
                break

    async def close(self) -> None:
        """End an asynchronous generator that has not come to its end."""
        if isinstance(self._async, AsyncGenerator):
            await self._async.aclose()

    def encode(self) -> bytes:
        """The bytes of the next rows. In a thread."""
        on_loop = self._async is not None
        rows = self._gathered if on_loop else list(islice(self._sync, self._count))
        self._gathered = []
        self.ended = self.ended or (not on_loop and len(rows) < self._count)
        data = self._target._encoded(self._encoder.encode, rows, self.ended)
        if rows and not self.ended:
            self._count = min(MOST_ROWS, max(1, self._count * HOP // max(len(data), HOP // 100)))
        return data if self._compressor is None else self._compressor.encode(data, self.ended)


class Rows:
    """The rows of a target, read as they are wanted: for ``async for`` on the loop, ``for`` in sync code."""

    def __init__(self, target: FileTarget, codec: RowCodec[Any]) -> None:
        self._target = target
        self._decoder = codec.decoder()
        self._decompressor = Decompressor() if codec.gzip else None
        self._ahead: deque[Any] = deque()
        self._block: Any = None  # the open target
        self._file: Any = None
        self._data = b""  # read, and not decoded yet
        self._last = False  # there is no more to read
        self._ended = False
        self._reading = False

    def __aiter__(self) -> Rows:
        return self

    async def __anext__(self) -> Any:
        while not self._ahead:
            if self._ended:
                raise StopAsyncIteration
            self._begin()
            try:
                if self._file is None:
                    self._block = self._target.open("rb")
                    self._file = await self._block.__aenter__()
                if self._wants_data:
                    self._take(await self._file.read(HOP))
                # The rows are kept by the thread: a cancel that comes meanwhile loses none of them.
                ended = await in_thread(self._target._decoded, self._decode)
            except ValueError:
                await self.__aexit__()
                raise
            finally:
                self._reading = False
            if ended:
                await self.__aexit__()
        return self._ahead.popleft()

    def _begin(self) -> None:
        if self._reading:
            raise RuntimeError(f"the rows of {self._target!r} are being read by somebody else: call rows() for each")
        self._reading = True

    @property
    def _wants_data(self) -> bool:
        return not self._data and not self._last and not (self._decompressor is not None and self._decompressor.more)

    def _take(self, data: bytes) -> None:
        self._data, self._last = data, not data

    def _decode(self) -> bool:
        """Have the rows of what was read last, or of more of it; whether they are the last of all. In a thread."""
        data, self._data = self._data, b""
        last = self._last
        if self._decompressor is not None:
            data = self._decompressor.decode(data, last, AT_ONCE)
            last = last and not self._decompressor.more
        self._ahead.extend(self._decoder.decode(data, last))
        self._ended = last
        return last

    async def __aenter__(self) -> Rows:
        return self

    async def __aexit__(self, *error: object) -> None:
        self._ended = True
        if self._file is not None:
            self._file = None
            await self._block.__aexit__(None, None, None)

    def __del__(self) -> None:
        if self._file is not None and isinstance(self._file, (AsyncReader, RemoteReader)):
            self._file.abandon()

    def __iter__(self) -> Rows:
        return self

    def __next__(self) -> Any:
        while not self._ahead:
            if self._ended:
                raise StopIteration
            self._begin()
            try:
                if self._file is None:
                    self._block = self._target.open("rb")
                    self._file = self._block.__enter__()
                if self._wants_data:
                    self._take(self._file.read(HOP))
                ended = self._target._decoded(self._decode)
            except ValueError:
                self.__exit__()
                raise
            finally:
                self._reading = False
            if ended:
                self.__exit__()
        return self._ahead.popleft()

    def __enter__(self) -> Rows:
        return self

    def __exit__(self, *error: object) -> None:
        self._ended = True
        if self._file is not None:
            self._file = None
            self._block.__exit__(None, None, None)
