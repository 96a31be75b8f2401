"""Handles that write to a store over a network, and publish on success: ``async with`` on the loop, ``with`` elsewhere.

Leaving the block normally publishes. An exception, a cancel or ``close()`` does not, and removes what was stored.
"""

from __future__ import annotations

import asyncio
import io
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterable, Iterator
from contextlib import suppress
from typing import IO, Any, Generic, TypeVar

from ..bridge import Bridge
from ..shield import finish
from ._hops import HOP, written
from ._streams import Sink, Turns

__all__ = ["RemoteWriter", "RemoteWriting"]

S = TypeVar("S", str, bytes)
T = TypeVar("T")


PIECE = 2 * HOP
"""Characters or bytes that are handed on at most at a time: 1 ms of the loop's, to encode or to copy them."""

_CUT = "a write was cut off by a cancel or a time limit, and nothing was published; open it again and write all of it"
_CUT_COMMIT = "its commit was cut off by a cancel or a time limit; exists() tells whether it was published"


class RemoteWriter(Generic[S]):
    """What is being written, handed on some 256 kB at a time. After an error it is over: nothing will be published.

    ``name`` is for errors.
    """

    def __init__(self, sink: Sink, name: str, encoding: str | None, newline: str | None) -> None:
        self._sink = sink
        self._name = name
        self._encode = None if encoding is None else _encoder(encoding, newline)
        self._nothing: Any = b"" if encoding is None else ""
        self._turns = Turns("write to a closed handle")
        self._chunks: deque[Any] = deque()  # text is encoded when it is handed on
        self._at = 0  # so much of the first of them has been handed on
        self._waiting = 0  # characters or bytes in them
        self._closed = False
        self._broken: BaseException | None = None

    def write(self, data: S) -> Awaitable[int]:
        """Write ``data``; its length. Raises ``OSError`` and, for text that cannot be encoded, ``ValueError``: when
        awaited, later or on leaving the block.

        ``data`` is taken at the call: it is also published where the ``await`` was forgotten.
        """
        if self._closed:
            raise ValueError("write to a closed handle")
        chunk: Any = written(data, text=self._encode is not None)
        self._chunks.append(chunk)
        self._waiting += len(chunk)
        return _Taken(self, len(chunk))

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
        async with self._turns.whole_turn():
            self._end()
            await self._or_discard(self._hand_on())
            await self._or_discard(self._sink.commit(), _CUT_COMMIT)

    async def close(self) -> None:
        """Close without publishing; what was written is dropped. Another task's write is stopped."""
        self._closed = True
        await finish(self._close())

    # For `together`:

    async def prepare(self) -> dict[str, Any] | None:
        """All that ``commit`` does but the publish, which is described for the journal. Raises as that."""
        async with self._turns.whole_turn():
            self._end()
            await self._or_discard(self._hand_on())
            return await self._or_discard(self._sink.prepare())

    async def publish(self) -> None:
        """Publish what has been prepared. Raises ``OSError``."""
        async with self._turns.whole_turn():
            await self._or_discard(self._sink.commit())

    # In turn:

    def _end(self) -> None:
        if self._broken is not None:
            raise self._broken
        if self._closed:
            raise ValueError("this handle has been closed; nothing more is published")
        self._closed = True

    async def _or_discard(self, step: Coroutine[Any, Any, T], cut: str = _CUT) -> T:
        try:
            return await step
        except BaseException as error:
            if self._broken is None and not self._turns.over:
                # A cancel is its task's; whoever goes on after it is told what came of it.
                was_cut = isinstance(error, asyncio.CancelledError)
                self._broken = OSError(f"{self._name}: {cut}") if was_cut else error
            await finish(self._drop())
            raise

    async def _hand_on(self) -> None:
        while self._chunks:
            await self._sink.write(self._piece())
            if self._chunks:
                await asyncio.sleep(0)  # the sink may have waited for nothing

    def _piece(self) -> bytes:
        """The next of what waits, as bytes. A large value is taken in pieces, many small ones together."""
        if not self._at and self._waiting <= PIECE:
            data = self._chunks[0] if len(self._chunks) == 1 else self._nothing.join(self._chunks)
            self._chunks.clear()
        else:
            data = self._nothing.join(self._cut())
        self._waiting -= len(data)
        return data if self._encode is None else self._encode(data)

    def _cut(self) -> Iterator[Any]:
        room = PIECE
        while room and self._chunks:
            part = self._chunks[0][self._at : self._at + room]
            room -= len(part)
            self._at += len(part)
            if self._at == len(self._chunks[0]):
                self._chunks.popleft()
                self._at = 0
            yield part

    async def _close(self) -> None:
        async with self._turns.last():
            await self._drop()

    async def _drop(self) -> None:
        self._closed = True
        self._chunks.clear()
        await self._sink.discard()

    # By a write that is awaited:

    async def _drain(self) -> None:
        async with self._turns.turn():
            if self._broken is not None:
                raise self._broken
            await self._or_discard(self._hand_on())


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
        self._writer = RemoteWriter(self._make_sink(), self.key, self._encoding, self._newline)
        return self._writer

    async def __aexit__(self, kind: type[BaseException] | None, *error: object) -> None:
        writer = self._writer
        if writer is None:
            return
        if kind is None and (not writer._closed or writer._broken is not None):
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
            data = data[:PIECE]  # it is asked again for the rest
            self._bridge.run(self._sink.write(bytes(data)))
        self._at += len(data)
        return len(data)
