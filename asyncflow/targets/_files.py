"""File handles that publish on success: for ``with`` in a sync body, for ``async with`` on the loop.

Leaving the block normally publishes. An exception, a cancel, ``close()`` or garbage collection does not,
and removes the temporary.
"""

from __future__ import annotations

import asyncio
import os
import weakref
from collections.abc import Callable, Iterable, Iterator
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


def _wrap(file: IO[Any]) -> Any:
    from aiofiles.threadpool import wrap  # loaded when first needed

    return wrap(file, loop=asyncio.get_running_loop(), executor=files)


class Reading(Generic[S]):
    """``with`` gives a plain file object, ``async with`` an ``AsyncReader``."""

    def __init__(self, opener: Callable[[], IO[Any]]) -> None:
        self._opener = opener
        self._file: IO[Any] | None = None

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
            await self.__aexit__()  # cancelled while it was being opened
            raise
        assert self._file is not None
        return AsyncReader(self._file)

    async def __aexit__(self, *error: Any) -> None:
        if self._file is not None:
            await finish(_in_thread(self._file.close))

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"no {name!r} yet: write `with target.open() as file:` (or `async with`) first")


class AsyncReader(Generic[S]):
    """An open file on the loop; reads in thread hops of 256 kB."""

    def __init__(self, file: IO[Any]) -> None:
        self._file = _wrap(file)
        self._lines: Iterator[S] = iter(())

    async def read(self) -> S:
        """Everything that has not been read yet."""
        ahead: list[Any] = list(self._lines)
        rest: Any = await finish(self._file.read())
        whole: S = type(rest)().join([*ahead, rest])
        return whole

    def __aiter__(self) -> AsyncReader[S]:
        return self

    async def __anext__(self) -> S:
        for line in self._lines:
            return line
        lines: list[S] = await finish(self._file.readlines(HOP))
        if not lines:
            raise StopAsyncIteration
        self._lines = iter(lines[1:])
        return lines[0]


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
            raise ValueError(f"{self._draft.final}: this handle has been closed; nothing more is published")
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


class AsyncWriter(Generic[S]):
    """An open draft on the loop. Writes are gathered and go to a thread 256 kB at a time."""

    def __init__(self, writer: Writer[S]) -> None:
        self._writer: Writer[S] = writer
        self._file = _wrap(writer._file)
        self._chunks: list[S] = []
        self._waiting = 0

    async def write(self, data: S) -> int:
        """Write ``data``; its length. Raises ``OSError`` here, later or on leaving the block."""
        if self._writer.closed:
            raise ValueError("write to a closed handle")
        self._chunks.append(data)
        self._waiting += len(data)
        if self._waiting >= HOP:
            chunk = self._take()
            await finish(self._file.write(chunk))
        return len(data)

    async def writelines(self, lines: Iterable[S]) -> None:
        """Write each of ``lines``; line ends are the caller's."""
        for line in lines:
            await self.write(line)

    def _take(self) -> S:
        chunks: list[Any] = self._chunks
        self._chunks, self._waiting = [], 0
        whole: S = type(chunks[0])().join(chunks)
        return whole

    async def commit(self) -> None:
        """Publish now. Raises ``ValueError`` after ``close()`` or a first ``commit()``."""
        await finish(_in_thread(self._commit))

    def _commit(self) -> None:
        try:
            if self._chunks and not self._writer.closed:
                self._writer.write(self._take())
        except BaseException:
            self._writer.close()
            raise
        self._writer.commit()

    async def close(self) -> None:
        """Close without publishing; what was written is dropped."""
        await finish(_in_thread(self._writer.close))


class Writing(Generic[S]):
    """``with`` gives a ``Writer``, ``async with`` an ``AsyncWriter``; leaving the block publishes."""

    def __init__(self, draft: Draft, opener: Callable[[int], IO[Any]]) -> None:
        self._draft = draft
        self._opener = opener
        self._writer: Writer[S] | None = None
        self._async: AsyncWriter[S] | None = None

    def __enter__(self) -> Writer[S]:
        fd = self._draft.create()
        try:
            file = self._opener(fd)
        except BaseException:  # an unknown encoding, say
            os.close(fd)
            self._draft.discard()
            raise
        self._writer = Writer(self._draft, file)
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
        try:
            await finish(_in_thread(self.__enter__))
        except BaseException:
            if self._writer is not None:  # cancelled while it was being opened
                await finish(_in_thread(self._writer.close))
            raise
        assert self._writer is not None
        self._async = AsyncWriter(self._writer)
        return self._async

    async def __aexit__(self, *error: Any) -> None:
        handle = self._async
        if handle is None or handle._writer.closed:
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
