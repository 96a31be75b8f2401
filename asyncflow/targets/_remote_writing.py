"""Handles that write to a store over a network, and publish on success: ``async with`` on the loop, ``with`` elsewhere.

Leaving the block normally publishes. An exception, a cancel or ``close()`` does not, and removes what was stored.
"""

from __future__ import annotations

import asyncio
import io
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterable
from contextlib import suppress
from typing import IO, Any, Generic, TypeVar

from ..bridge import Bridge
from ..shield import finish
from ._hops import HOP, written
from ._streams import Sink

__all__ = ["RemoteWriter", "RemoteWriting"]

S = TypeVar("S", str, bytes)
T = TypeVar("T")


class RemoteWriter(Generic[S]):
    """What is being written, handed on some 256 kB at a time. After an error it is over: nothing will be published."""

    def __init__(self, sink: Sink, encoding: str | None, newline: str | None) -> None:
        self._sink = sink
        self._encode = None if encoding is None else _encoder(encoding, newline)
        self._turn = asyncio.Lock()
        self._chunks: list[bytes] = []
        self._waiting = 0  # bytes in them
        self._closed = False
        self._broken: BaseException | None = None

    def write(self, data: S) -> Awaitable[int]:
        """Write ``data``; its length. Raises ``OSError`` when awaited, later or on leaving the block.

        ``data`` is taken at the call: it is also published where the ``await`` was forgotten.
        """
        if self._closed:
            raise ValueError("write to a closed handle")
        chunk: Any = written(data, text=self._encode is not None)
        if self._encode is not None:
            chunk = self._encode(chunk)
        self._chunks.append(chunk)
        self._waiting += len(chunk)
        return _Taken(self, len(data))

    def writelines(self, lines: Iterable[S]) -> Awaitable[None]:
        """Write each of ``lines``, all taken at the call; line ends are the caller's."""
        for line in lines:
            self.write(line)
        return _Taken(self, None)

    @property
    def closed(self) -> bool:
        """Whether the handle has been committed or closed."""
        return self._closed

    async def commit(self) -> None:
        """Publish now. Raises ``ValueError`` after ``close()`` or a first ``commit()``, and ``OSError``."""
        async with self._turn:
            self._end()
            await self._or_discard(self._finish())

    async def close(self) -> None:
        """Close without publishing; what was written is dropped."""
        self._closed = True
        self._chunks.clear()
        await finish(self._sink.discard())

    # For `together`:

    async def prepare(self) -> dict[str, Any] | None:
        """All that ``commit`` does but the publish, which is described for the journal. Raises as that."""
        async with self._turn:
            self._end()
            return await self._or_discard(self._prepare())

    async def publish(self) -> None:
        """Publish what has been prepared. Raises ``OSError``."""
        await self._or_discard(self._sink.commit())

    async def _prepare(self) -> dict[str, Any] | None:
        await self._rest()
        return await self._sink.prepare()

    async def _finish(self) -> None:
        await self._rest()
        await self._sink.commit()

    async def _rest(self) -> None:
        if self._chunks:
            await self._sink.write(self._take())

    def _end(self) -> None:
        if self._broken is not None:
            raise self._broken
        if self._closed:
            raise ValueError("this handle has been closed; nothing more is published")
        self._closed = True

    async def _drain(self) -> None:
        async with self._turn:
            if self._broken is not None:
                raise self._broken
            if self._chunks:
                await self._or_discard(self._sink.write(self._take()))

    async def _or_discard(self, step: Coroutine[Any, Any, T]) -> T:
        try:
            return await step
        except BaseException as error:
            self._broken = self._broken or error
            await self.close()
            raise

    def _take(self) -> bytes:
        chunks, self._chunks = self._chunks, []
        self._waiting = 0
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)


class _Taken(Generic[T]):
    """A write whose data is in the buffer; to await it is to wait until there is room again."""

    def __init__(self, writer: RemoteWriter[Any], result: T) -> None:
        self._writer = writer
        self._result = result

    def __await__(self) -> Generator[Any, Any, T]:
        if self._writer._waiting >= HOP:
            yield from self._writer._drain().__await__()
        return self._result


def _encoder(encoding: str, newline: str | None) -> Callable[[str], bytes]:
    """Encodes text as a text file does, one piece after the other. Raises ``LookupError``, ``ValueError``."""
    file = io.BytesIO()
    text = io.TextIOWrapper(file, encoding=encoding, newline=newline, write_through=True)

    def encode(data: str) -> bytes:
        text.write(data)
        encoded = file.getvalue()
        # A stateful encoding begins once: the wrapper must not see that the file is empty again.
        file.seek(0)
        file.truncate()
        return encoded

    return encode


class RemoteWriting(Generic[S]):
    """``async with`` gives a ``RemoteWriter``, ``with`` (in a sync body, in a script) a file object that publishes.

    ``key`` is that of its target. ``encoding`` is None for bytes.
    """

    def __init__(self, make_sink: Callable[[], Sink], key: str, encoding: str | None, newline: str | None) -> None:
        if encoding is not None:
            _encoder(encoding, newline)  # raises what the handle would
        self.key = key
        self._make_sink = make_sink
        self._encoding = encoding
        self._newline = newline
        self._writer: RemoteWriter[S] | None = None
        self._blocking: BlockingWriter[S] | None = None

    async def __aenter__(self) -> RemoteWriter[S]:
        self._writer = RemoteWriter(self._make_sink(), self._encoding, self._newline)
        return self._writer

    async def __aexit__(self, kind: type[BaseException] | None, *error: object) -> None:
        writer = self._writer
        if writer is None or (writer._closed and writer._broken is None):
            return
        if kind is None:
            await writer.commit()
        else:
            await writer.close()

    def __enter__(self) -> BlockingWriter[S]:
        bridge = Bridge("on the event loop write `async with target.open('w') as file:`")
        self._blocking = BlockingWriter(self._make_sink(), bridge, self._encoding, self._newline)
        return self._blocking

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        if self._blocking is not None and not self._blocking.closed:
            if kind is None:
                self._blocking.commit()
            else:
                self._blocking.close()

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(
            f"no {name!r} yet: write `async with target.open('w') as file:` (or `with`); leaving the block publishes"
        )


class BlockingWriter(Generic[S]):
    """A file object of sync code, with every method of a plain one; published when its block ends well."""

    def __init__(self, sink: Sink, bridge: Bridge, encoding: str | None, newline: str | None) -> None:
        self._sink = sink
        self._bridge = bridge
        self._raw = _RawSink(sink, bridge)
        buffered = io.BufferedWriter(self._raw, HOP)
        self._file: IO[Any] = buffered
        if encoding is not None:
            self._file = io.TextIOWrapper(buffered, encoding=encoding, newline=newline)
        self._open = True

    def commit(self) -> None:
        """Publish now. Raises ``ValueError`` after ``close()`` or a first ``commit()``, and ``OSError``."""
        if not self._open:
            raise ValueError("this handle has been closed; nothing more is published")
        self._flush()
        self._end(self._sink.commit())

    def _flush(self) -> None:
        try:
            self._file.flush()
        except BaseException:
            self.close()
            raise

    # For `together`:

    def prepare(self) -> dict[str, Any] | None:
        """All that ``commit`` does but the publish, which is described for the journal. Raises as that."""
        if not self._open:
            raise ValueError("this handle has been closed; nothing more is published")
        self._flush()
        try:
            return self._bridge.run(self._sink.prepare())
        except BaseException:
            self.close()
            raise

    def publish(self) -> None:
        """Publish what has been prepared. Raises ``OSError``."""
        self._end(self._sink.commit())

    def close(self) -> None:
        """Close without publishing; what was written is dropped."""
        if self._open:
            self._end(self._sink.discard())

    def _end(self, step: Coroutine[Any, Any, None]) -> None:
        self._open = False
        self._raw.over = True
        try:
            self._bridge.run(step)
        except BaseException:
            self._bridge.run(self._sink.discard())
            raise
        finally:
            with suppress(OSError, ValueError):
                self._file.close()
            self._bridge.close()

    @property
    def closed(self) -> bool:
        """Whether the handle has been committed or closed."""
        return not self._open

    def __del__(self) -> None:
        if self._open:  # nobody publishes it any more: what is still in a buffer goes nowhere
            self._raw.over = True

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


class _RawSink(io.RawIOBase):
    def __init__(self, sink: Sink, bridge: Bridge) -> None:
        self._sink = sink
        self._bridge = bridge
        self._at = 0
        self.over = False  # what is still in a buffer goes nowhere

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True  # or a text file on top would not know that it is at the beginning, where byte order marks go

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = 0) -> int:
        if offset != (self._at if whence == 0 else 0):
            raise io.UnsupportedOperation("what has been written is on its way: no seek")
        return self._at

    def write(self, data: Any) -> int:
        if not self.over:
            self._bridge.run(self._sink.write(bytes(data)))
        self._at += len(data)
        return len(data)
