"""Rows on their way into a table: taken in bunches, in a thread of their own if they come from plain Python."""

from __future__ import annotations

import asyncio
import queue
import time
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Callable,
    Generator,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import suppress
from contextvars import copy_context
from itertools import islice
from typing import Any, TypeAlias

from ...shield import finish
from ...threads import lend

__all__ = ["Row", "RowError", "RowsIn", "Shape", "bunches", "unfit"]

Row: TypeAlias = "Sequence[Any] | Mapping[str, Any]"
RowsIn: TypeAlias = "Iterable[Row] | AsyncIterable[Row]"
Process: TypeAlias = "Callable[[Any], Any] | None"
Taken: TypeAlias = "tuple[list[tuple[Any, ...]], bool]"  # and whether that was all
Request: TypeAlias = "tuple[int, int, asyncio.Future[Taken]]"

FIRST, MOST = 16, 16_384
"""Rows in a bunch: as many as take about ``BUNCH`` seconds to make, and to write, found by doubling."""
BUNCH = 0.005
PATIENCE = 0.5  # seconds a row that is being made is waited for when the load is cancelled: below the grace of a build


class RowError(ValueError):
    """A row that cannot be written. ``row`` is its number, counted from 1; ``column`` its column, if it is one.

    Its text shows no value of the row. What the database or the driver said is its ``__cause__``, and may show them.
    """

    def __init__(self, message: str, row: int = 0, column: str | None = None) -> None:
        super().__init__(message)
        self.row = row
        self.column = column

    @classmethod
    def at(cls, table: str, row: int, column: str | None, problem: object) -> RowError:
        where = f"row {row:,}" + ("" if column is None else f", column {column!r}")
        return cls(f"{table}: {where}: {problem}", row, column)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self), self.row, self.column)


class Shape:
    """What a row has to look like, and what is done to its values before the driver gets them."""

    def __init__(self, table: str, columns: Sequence[str], processes: Sequence[Process]) -> None:
        self.table = table
        self.columns = tuple(columns)
        self._processes = tuple(processes)
        self._plain = not any(processes)
        self._known = frozenset(columns)

    def fit(self, rows: list[Any], first: int) -> list[tuple[Any, ...]]:
        """``rows``, of which the first has the number ``first``, as tuples. Raises ``RowError``."""
        width = len(self.columns)
        if self._plain:
            for row in rows:
                if type(row) is not tuple or len(row) != width:
                    break
            else:
                return rows
        return [self._fitted(row, number) for number, row in enumerate(rows, first)]

    def _fitted(self, row: Any, number: int) -> tuple[Any, ...]:
        values = self._values(row, number)
        if self._plain:
            return values
        done = []
        for column, process, value in zip(self.columns, self._processes, values, strict=True):
            try:
                done.append(value if process is None or value is None else process(value))
            except Exception as error:
                raise RowError.at(self.table, number, column, unfit(value, error)) from error
        return tuple(done)

    def _values(self, row: Any, number: int) -> tuple[Any, ...]:
        if isinstance(row, Mapping):
            if row.keys() != self._known:
                missing, other = sorted(self._known - row.keys()), sorted(map(str, row.keys() - self._known))
                problem = f"it has no {missing[0]!r}" if missing else f"it has {other[0]!r}, which is no column"
                raise RowError.at(self.table, number, (missing or other)[0], f"{problem} of ({self._listed()})")
            return tuple([row[column] for column in self.columns])
        if isinstance(row, (str, bytes)) or not isinstance(row, Sequence):
            raise RowError.at(self.table, number, None, f"a row is a tuple, a list or a mapping, not {_kind(row)}")
        if len(row) != len(self.columns):
            raise RowError.at(
                self.table, number, None, f"it has {len(row)} values for {len(self.columns)} columns ({self._listed()})"
            )
        return tuple(row)

    def _listed(self) -> str:
        return ", ".join(self.columns)


def _kind(value: object) -> str:
    return "None" if value is None else f"a {type(value).__name__}"


def unfit(value: object, error: BaseException) -> str:
    """Why ``value`` cannot be written, without showing it."""
    return f"a value of {type(value).__name__} does not fit: {error}"


async def bunches(rows: RowsIn, shape: Shape) -> AsyncIterator[tuple[int, list[tuple[Any, ...]]]]:
    """``rows`` as tuples, many at a time, each bunch with the number of its first row.

    An iterable is walked in one thread from its beginning to its end, an asynchronous one here. Between two bunches
    the loop comes round. Raises ``RowError``, ``TypeError`` for what is no iterable, and what the rows raise, with a
    note that says after which row.
    """
    source: _Here | _InThread
    if isinstance(rows, AsyncIterable):
        source = _Here(rows, shape)
    elif isinstance(rows, Iterable) and not isinstance(rows, (str, bytes, Mapping)):
        source = _InThread(rows, shape)
    else:
        raise TypeError(f"{shape.table}: rows are an iterable, or an asynchronous one, of tuples or mappings")
    first, size = 1, FIRST
    try:
        while True:
            began = time.perf_counter()
            bunch, over = await source.take(size, first)
            if bunch:
                yield first, bunch
            first += len(bunch)
            if over:
                return
            took = time.perf_counter() - began
            if took < 2 * BUNCH and len(bunch) == size:
                size = min(2 * size, MOST)
            elif took > 4 * BUNCH:
                size = max(size // 2, 1)
    finally:
        await source.close()


def _noted(error: BaseException, shape: Shape, after: int) -> BaseException:
    if not isinstance(error, RowError) and not hasattr(error, "__notes__"):
        error.add_note(f"raised by the rows for {shape.table}, after row {after:,}")
    return error


class _Here:
    """Rows that come on the loop."""

    def __init__(self, rows: AsyncIterable[Row], shape: Shape) -> None:
        self._rows = aiter(rows)
        self._shape = shape

    async def take(self, size: int, first: int) -> Taken:
        bunch: list[Any] = []
        deadline = time.perf_counter() + BUNCH
        try:
            async for row in self._rows:
                bunch.append(row)
                if len(bunch) >= size or time.perf_counter() > deadline:
                    break
            else:
                return self._shape.fit(bunch, first), True
        except Exception as error:
            raise _noted(error, self._shape, first + len(bunch) - 1)  # noqa: B904
        await asyncio.sleep(0)
        return self._shape.fit(bunch, first), False

    async def close(self) -> None:
        if isinstance(self._rows, AsyncGenerator):
            await self._rows.aclose()


class _InThread:
    """Rows that come from plain Python: one thread walks them, since what they hold (a cursor, say) may be bound to it.

    It makes the next bunch while the last one is written: most of that is waiting for the database.
    """

    def __init__(self, rows: Iterable[Row], shape: Shape) -> None:
        self._rows = rows
        self._shape = shape
        self._loop = asyncio.get_running_loop()
        self._asked: queue.SimpleQueue[Request | None] = queue.SimpleQueue()
        self._next: asyncio.Future[Taken] | None = None
        self._ended: asyncio.Future[None] | None = None

    async def take(self, size: int, first: int) -> Taken:
        answer = self._next or self._ask(size, first)
        self._next = None
        try:
            bunch, over = await answer
            if not over:
                self._next = self._ask(size, first + len(bunch))
            return bunch, over
        finally:
            del answer  # what it raised holds this frame

    def _ask(self, size: int, first: int) -> asyncio.Future[Taken]:
        answer: asyncio.Future[Taken] = self._loop.create_future()
        self._asked.put((size, first, answer))
        if self._ended is None:
            self._ended = self._loop.create_future()
            context = copy_context()
            lend(lambda: context.run(self._work))
        return answer

    async def close(self) -> None:
        """Have the thread let go of the rows; one that does not come back in time is left to itself."""
        if self._next is not None:
            self._next.cancel()
        if self._ended is not None:
            self._asked.put(None)
            await finish(self._end(self._ended))

    async def _end(self, ended: asyncio.Future[None]) -> None:
        await asyncio.wait([ended], timeout=PATIENCE)

    # In the thread

    def _work(self) -> None:
        rows: Iterator[Row] | None = None
        try:
            while (asked := self._asked.get()) is not None:
                size, first, answer = asked
                try:
                    rows = iter(self._rows) if rows is None else rows
                    self._tell(answer, self._taken(rows, size, first), None)
                except BaseException as error:
                    self._tell(answer, None, _noted(error, self._shape, first - 1))
                del asked, answer
        finally:
            if isinstance(rows, Generator):
                with suppress(Exception):  # nobody waits for it any more
                    rows.close()
            del rows, self._rows
            self._tell(self._ended, None, None)

    def _taken(self, rows: Iterator[Row], size: int, first: int) -> Taken:
        bunch: list[Any] = []
        deadline = time.perf_counter() + BUNCH
        step = 1  # rows between two looks at the clock: a slow one is not waited for with all that come after it
        while len(bunch) < size:
            had, wanted = len(bunch), min(step, size - len(bunch))
            try:
                bunch += islice(rows, wanted)
            except Exception as error:
                raise _noted(error, self._shape, first + len(bunch) - 1)  # noqa: B904
            if len(bunch) - had < wanted:
                return self._shape.fit(bunch, first), True
            if time.perf_counter() > deadline:
                break
            step *= 2
        return self._shape.fit(bunch, first), False

    def _tell(self, future: asyncio.Future[Any] | None, result: Any, error: BaseException | None) -> None:
        with suppress(RuntimeError):  # the loop has been closed: nobody is left to hear it
            self._loop.call_soon_threadsafe(_settle, future, result, error)


def _settle(future: asyncio.Future[Any] | None, result: Any, error: BaseException | None) -> None:
    if future is None or future.done():
        return
    if error is None:
        future.set_result(result)
    elif isinstance(error, StopIteration):  # futures take no such thing
        wrong = RuntimeError("the rows raised StopIteration")
        wrong.__cause__ = error
        future.set_exception(wrong)
    else:
        future.set_exception(error)
