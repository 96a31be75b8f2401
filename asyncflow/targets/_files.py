"""File handles that publish on success: for ``with`` in a sync body, for ``async with`` on the loop.

Leaving the block normally publishes. An exception, a cancel, ``close()`` or garbage collection does not,
and removes the temporary.

The handles of the loop do everything in shielded steps, one at a time: file objects are not made for two
threads at once, and a cancelled caller must find the file at rest.
"""

from __future__ import annotations

import asyncio
import io
import os
import weakref
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterable, Iterator
from functools import partial
from typing import IO, Any, Generic, Literal, TypeVar

from ..shield import finish
from ..threads import files
from ._draft import Draft

__all__ = ["AsyncReader", "AsyncWriter", "Reading", "TemporaryPath", "Writer", "Writing"]

HOP = 256 * 1024
"""Characters or bytes moved per thread hop: a hop costs 50-120 us, whatever it carries."""

S = TypeVar("S", str, bytes)
T = TypeVar("T")


async def _in_thread(call: Callable[..., T], *args: Any) -> T:
    return await asyncio.get_running_loop().run_in_executor(files, call, *args)


class _OnLoop:
    """A plain file driven from the loop, step by step."""

    def __init__(self, *, text: bool) -> None:
        self._turn = asyncio.Lock()
        self._text = text
        self._nothing: Any = "" if text else b""

    async def _step(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        async def one_at_a_time() -> T:
            async with self._turn:
                return await work()

        return await finish(one_at_a_time())


class Reading(Generic[S]):
    """``with`` gives a plain file object, ``async with`` an ``AsyncReader``."""

    def __init__(self, opener: Callable[[], IO[Any]]) -> None:
        self._opener = opener
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
            await finish(_in_thread(self.__enter__))
        except BaseException:
            if self._file is not None:  # cancelled while it was being opened
                await finish(_in_thread(self._file.close))
            raise
        assert self._file is not None
        self._async = AsyncReader(self._file)
        return self._async

    async def __aexit__(self, *error: Any) -> None:
        if self._async is not None:
            await self._async.close()

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"no {name!r} yet: write `with target.open() as file:` (or `async with`) first")


class AsyncReader(_OnLoop, Generic[S]):
    """An open file on the loop; reads ahead in thread hops of 256 kB, text by whole lines.

    What a cancelled call has read is not lost: the next call gives it.
    """

    def __init__(self, file: IO[Any]) -> None:
        from aiofiles.threadpool import wrap  # loaded when first needed

        super().__init__(text=isinstance(file, io.TextIOBase))
        self._aio: Any = wrap(file, loop=asyncio.get_running_loop(), executor=files)
        self._ahead: deque[Any] = deque()  # pieces of what has been read ahead
        self._at = 0  # so much of the first piece has been given
        self._held = 0  # and so much of all of them has not
        self._split = True  # every piece is a line. Else text ends in what a cancelled ``read()`` has read

    async def read(self, size: int = -1) -> S:
        """At most ``size`` characters or bytes, by default all that is left; nothing at the end."""
        if size < 0:
            await self._step(self._read_rest)
            return self._take(self._held)
        while self._held < size and await self._step(partial(self._read_ahead, size)):
            pass
        return self._take(size)

    async def readline(self) -> S:
        """The next line with its end; nothing at the end of the file."""
        while not (length := self._line()) and await self._step(self._read_lines):
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
            return len(self._ahead[0]) - self._at
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
        await self._step(self._aio.close)


class Writer(Generic[S]):
    """An open draft, with every method of a plain file object; published when its block ends well."""

    def __init__(self, draft: Draft, file: IO[Any]) -> None:
        self._draft = draft
        self._file = file
        self._open = True
        self.write: Callable[[S], int] = file.write
        # Forgotten without an end: the temporary goes with the handle, and nothing is published.
        self._forgotten: weakref.finalize[..., Any] = weakref.finalize(self, draft.discard, file)

    def commit(self) -> None:
        """Publish now. Raises ``ValueError`` after ``close()`` or a first ``commit()``."""
        if not self._open:
            raise _ended(self._draft)
        self._open = False
        self._forgotten.detach()
        self._draft.publish_file(self._file)

    def close(self) -> None:
        """Close without publishing; what was written is dropped."""
        if self._open:
            self._open = False
            self._forgotten()

    @property
    def closed(self) -> bool:
        """Whether the handle has been committed or closed."""
        return not self._open

    def __iter__(self) -> Iterator[S]:
        return iter(self._file)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def _created(draft: Draft, opener: Callable[[Callable[[str, int], int]], IO[Any]]) -> Writer[Any]:
    try:
        # The file object owns the descriptor from its birth: who closes it after an error is never in doubt.
        return Writer(draft, opener(lambda _path, _flags: draft.create()))
    except BaseException:
        if draft.created:
            draft.discard()
        raise


def _ended(draft: Draft) -> ValueError:
    """What is raised by a ``commit()`` that comes too late."""
    return ValueError(f"{draft.final}: this handle has been closed; nothing more is published")


class AsyncWriter(_OnLoop, Generic[S]):
    """A draft on the loop. Writes are gathered and go to a thread 256 kB at a time.

    Where that is expected to succeed, the temporary is created by the first hop that has something to write: a
    small file costs one hop in all. What a cancelled ``write`` was given counts as written. After an error the
    handle is closed: what it holds is not whole any more.
    """

    def __init__(self, draft: Draft, create: Callable[[], Writer[S]], *, text: bool) -> None:
        super().__init__(text=text)
        self._draft = draft
        self._create: Callable[[], Writer[S]] = create
        self._writer: Writer[S] | None = None  # none before the first hop
        self._closed = False  # said on the loop, before the hop: nothing written from then on would be published
        self._chunks: list[Any] = []
        self._waiting = 0
        self._broken: BaseException | None = None

    def write(self, data: S) -> Awaitable[int]:
        """Write ``data``; its length. Raises ``OSError`` when awaited, later or on leaving the block.

        ``data`` is taken at the call: it is also published where the ``await`` was forgotten.
        """
        if self._closed:
            raise ValueError("write to a closed handle")
        chunk: Any = data
        if self._text:
            if not isinstance(data, str):
                raise TypeError(f"this handle takes str, not {type(data).__name__}; open with 'wb' for bytes")
        elif not isinstance(data, bytes):
            if isinstance(data, str):
                raise TypeError("this handle takes bytes, not str; open with 'w' for text")
            chunk = memoryview(data).tobytes()  # its owner may change it before it is written
        self._chunks.append(chunk)
        self._waiting += len(chunk)
        return _Taken(self, len(chunk))

    def writelines(self, lines: Iterable[S]) -> Awaitable[None]:
        """Write each of ``lines``, all taken at the call; line ends are the caller's."""
        for line in lines:
            self.write(line)
        return _Taken(self, None)

    async def commit(self) -> None:
        """Publish now. Raises ``ValueError`` after ``close()`` or a first ``commit()``."""
        await self._step(self._publish)
        _early.discard(self)

    async def close(self) -> None:
        """Close without publishing; what was written is dropped."""
        await self._step(self._drop)
        _early.discard(self)

    def _take(self) -> Any:
        chunks, self._chunks = self._chunks, []
        return self._nothing.join(chunks)

    async def _open(self) -> None:
        await _in_thread(self._opened)

    async def _drain(self) -> None:
        if self._broken is not None:
            raise self._broken
        if not self._chunks:  # committed or closed between the call and its await
            return
        try:
            await _in_thread(self._put, self._take())
        except BaseException as error:
            self._broken = self._broken or error
            await self._drop()
            raise

    async def _publish(self) -> None:
        if self._broken is not None:
            raise self._broken
        if self._closed:
            raise _ended(self._draft)
        self._closed = True
        await _in_thread(self._commit)

    async def _drop(self) -> None:
        self._closed = True
        self._chunks.clear()
        if self._writer is not None:
            await _in_thread(self._writer.close)

    # In a thread, one of these at a time:

    def _opened(self) -> Writer[S]:
        if self._writer is None:
            self._writer = self._create()
        return self._writer

    def _put(self, data: Any) -> None:
        self._opened().write(data)

    def _commit(self) -> None:
        writer = self._opened()
        try:
            if self._chunks:
                writer.write(self._take())
        except BaseException:
            writer.close()
            raise
        writer.commit()


EARLY = 32
"""Handles that may hold a temporary open although nothing has been written to it yet: of thousands of bodies at once,
the first tell whether that can be done, and the others must leave descriptors for those who write."""

_early: weakref.WeakSet[AsyncWriter[Any]] = weakref.WeakSet()


class _Taken(Generic[T]):
    """A write whose data is in the buffer; to await it is to wait until there is room again."""

    def __init__(self, writer: AsyncWriter[Any], result: T) -> None:
        self._writer = writer
        self._result = result

    def __await__(self) -> Generator[Any, Any, T]:
        if self._writer._waiting >= HOP:
            self._writer._waiting = 0
            yield from self._writer._step(self._writer._drain).__await__()
        return self._result


class Writing(Generic[S]):
    """``with`` gives a ``Writer``, ``async with`` an ``AsyncWriter``; leaving the block publishes."""

    def __init__(self, draft: Draft, opener: Callable[[Callable[[str, int], int]], IO[Any]], *, text: bool) -> None:
        self._draft = draft
        self._create: Callable[[], Writer[Any]] = partial(_created, draft, opener)
        self._text = text
        self._writer: Writer[S] | None = None
        self._async: AsyncWriter[S] | None = None

    def __enter__(self) -> Writer[S]:
        self._writer = self._create()
        return self._writer

    def __exit__(self, *error: Any) -> None:
        writer = self._writer
        if writer is None or writer.closed:
            return
        if error[0] is None:
            writer.commit()
        else:
            writer.close()

    async def __aenter__(self) -> AsyncWriter[S]:
        handle: AsyncWriter[S] = AsyncWriter(self._draft, self._create, text=self._text)
        if not self._draft.expected and len(_early) < EARLY:
            _early.add(handle)
            try:
                await handle._step(handle._open)
            except BaseException:
                await handle.close()  # cancelled while it was being opened
                raise
        self._async = handle
        return handle

    async def __aexit__(self, *error: Any) -> None:
        handle = self._async
        if handle is None or (handle._closed and handle._broken is None):
            return
        if error[0] is None:
            await handle.commit()
        else:
            await handle.close()

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(
            f"no {name!r} yet: write `with target.open('w') as file:` (or `async with`); leaving the block publishes"
        )


class TemporaryPath:
    """``with`` or ``async with`` gives a private path; what a program leaves there is published on success."""

    def __init__(self, draft: Draft) -> None:
        self._draft = draft

    def __enter__(self) -> str:
        self._draft.make_parents()
        return self._draft.path

    def __exit__(self, kind: type[BaseException] | None, *error: Any) -> Literal[False]:
        if kind is not None:
            self._draft.discard()
        elif not os.path.lexists(self._draft.path):
            raise FileNotFoundError(
                f"nothing was written to the temporary path of {self._draft.final}; write the output to the path "
                "that temporary_path() gives"
            )
        else:
            self._draft.publish_path()
        return False

    async def __aenter__(self) -> str:
        return await finish(_in_thread(self.__enter__))

    async def __aexit__(self, *error: Any) -> Literal[False]:
        return await finish(_in_thread(self.__exit__, *error))
