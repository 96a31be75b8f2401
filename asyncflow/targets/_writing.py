"""Handles that publish on success: for ``with`` in a sync body, for ``async with`` on the loop.

Leaving the block normally publishes. An exception, a cancel, ``close()`` or garbage collection does not,
and removes the temporary.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Awaitable, Callable, Generator, Iterable, Iterator
from functools import partial
from typing import IO, Any, Generic, Literal, TypeVar

from ._draft import Draft
from ._hops import HOP, OnLoop, in_thread, written

__all__ = ["AsyncWriter", "TemporaryPath", "Writer", "Writing"]

S = TypeVar("S", str, bytes)
T = TypeVar("T")


class Writer(Generic[S]):
    """An open draft, with every method of a plain file object; published when its block ends well."""

    def __init__(self, draft: Draft, file: IO[Any]) -> None:
        self._draft = draft
        self._file = file
        self._open = True
        self._prepared = False
        self.write: Callable[[S], int] = file.write
        # Forgotten without an end: the temporary goes with the handle, and nothing is published.
        self._forgotten: weakref.finalize[..., Any] = weakref.finalize(self, draft.discard, file)

    def commit(self) -> None:
        """Publish now. Raises ``ValueError`` after ``close()`` or a first ``commit()``."""
        self._complete()
        self._draft.publish()

    def _complete(self) -> None:
        if not self._open:
            raise _ended(self._draft)
        self._open = False
        self._forgotten.detach()
        self._draft.complete_file(self._file)

    # For `together`:

    def prepare(self) -> dict[str, Any]:
        """All that ``commit`` does but the publish, which is described for the journal. Raises as that."""
        self._complete()
        self._prepared = True
        return self._draft.step()

    def publish(self) -> None:
        """Publish what has been prepared. Raises ``OSError``."""
        self._prepared = False
        self._draft.publish()

    def close(self) -> None:
        """Close without publishing; what was written is dropped."""
        if self._open:
            self._open = False
            self._forgotten()
        elif self._prepared:
            self._prepared = False
            self._draft.discard()

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


class AsyncWriter(OnLoop, Generic[S]):
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
        chunk = written(data, text=self._text)
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
        await self._hop(self._publish)
        _early.discard(self)

    async def close(self) -> None:
        """Close without publishing; what was written is dropped."""
        await self._hop(self._drop)
        _early.discard(self)

    # For `together`:

    async def prepare(self) -> dict[str, Any]:
        """All that ``commit`` does but the publish, which is described for the journal. Raises as that."""
        step: dict[str, Any] = await self._hop(self._prepare)
        _early.discard(self)
        return step

    async def publish(self) -> None:
        """Publish what has been prepared. Raises ``OSError``."""
        assert self._writer is not None
        await in_thread(self._writer.publish)

    def _take(self) -> Any:
        chunks, self._chunks = self._chunks, []
        return self._nothing.join(chunks)

    async def _open(self) -> None:
        await in_thread(self._opened)

    async def _drain(self) -> None:
        if self._broken is not None:
            raise self._broken
        if not self._chunks:  # committed or closed between the call and its await
            return
        try:
            await in_thread(self._put, self._take())
        except BaseException as error:
            self._broken = self._broken or error
            await self._drop()
            raise

    async def _publish(self) -> None:
        self._end()
        await in_thread(self._commit)

    async def _prepare(self) -> dict[str, Any]:
        self._end()
        return await in_thread(self._complete)

    def _end(self) -> None:
        if self._broken is not None:
            raise self._broken
        if self._closed:
            raise _ended(self._draft)
        self._closed = True

    async def _drop(self) -> None:
        self._closed = True
        self._chunks.clear()
        if self._writer is not None:
            await in_thread(self._writer.close)

    # In a thread, one of these at a time:

    def _opened(self) -> Writer[S]:
        if self._writer is None:
            self._writer = self._create()
        return self._writer

    def _put(self, data: Any) -> None:
        self._opened().write(data)

    def _commit(self) -> None:
        self._written().commit()

    def _complete(self) -> dict[str, Any]:
        return self._written().prepare()

    def _written(self) -> Writer[S]:
        writer = self._opened()
        try:
            if self._chunks:
                writer.write(self._take())
        except BaseException:
            writer.close()
            raise
        return writer


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
        self.key = draft.key
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
                await handle._hop(handle._open)
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
        return self._draft.lend()

    def __exit__(self, kind: type[BaseException] | None, *error: Any) -> Literal[False]:
        if kind is not None:
            self._draft.discard()
        elif not os.path.lexists(self._draft.path):
            self._draft.discard()
            raise FileNotFoundError(
                f"nothing was written to the temporary path of {self._draft.final}; write the output to the path "
                "that temporary_path() gives"
            )
        else:
            self._draft.publish_path()
        return False

    async def __aenter__(self) -> str:
        try:
            return await in_thread(self.__enter__)
        except BaseException:
            await in_thread(self._draft.discard)  # cancelled while it was being entered
            raise

    async def __aexit__(self, *error: Any) -> Literal[False]:
        return await in_thread(self.__exit__, *error)
