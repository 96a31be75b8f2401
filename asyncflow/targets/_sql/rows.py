"""Rows on their way into a table: taken in bunches, in a thread of their own if they come from plain Python."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
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
from contextlib import aclosing, suppress
from contextvars import copy_context
from itertools import islice
from sys import getsizeof
from typing import Any, NamedTuple, TypeAlias

from ...shield import finish
from ...threads import lend

__all__ = ["Bunch", "Row", "RowError", "RowsIn", "Shape", "Walker", "bunches", "unfit"]

Row: TypeAlias = "Sequence[Any] | Mapping[str, Any]"
RowsIn: TypeAlias = "Iterable[Row] | AsyncIterable[Row]"
Process: TypeAlias = "Callable[[Any], Any] | None"

FIRST = 64  # rows in the first bunch; the others have what its rows leave room for
MOST = 32_768
"""Rows in a bunch; of those that come on the loop, which comes round in between, ``MOST_HERE``."""
MOST_HERE = 1_024
BYTES = 8 * 2**20
"""About so many bytes of values are enough for a bunch, as they came and as they are written."""
MAKING = 0.02
"""Seconds, after which a bunch is not waited for that has fewer, and to process it; on the loop ``MAKING_HERE``."""
MAKING_HERE = 0.005
STEP = 32  # rows between two looks at the clock
AHEAD = 1
"""Bunches that lie ready while one is written and one is made: rows of more would have left the processor's caches."""
PATIENCE = 0.5  # seconds a row that is being made is waited for when the load is cancelled: below the grace of a build


class Bunch(NamedTuple):
    """Rows that follow each other; ``first`` is the number of the first, counted from 1."""

    first: int
    rows: list[tuple[Any, ...]]

    @property
    def last(self) -> int:
        """The number of the last."""
        return self.first + len(self.rows) - 1


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

    def fit(self, rows: list[tuple[Any, ...]], first: int) -> list[tuple[Any, ...]]:
        """``rows``, of which the first has the number ``first``, as the driver wants them. Raises ``RowError``."""
        if self._plain or not rows:
            return rows
        try:
            return self._processed(rows)
        except Exception:
            self._find_unfit(rows, first)
            raise

    def _processed(self, rows: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
        # Column by column is five times as fast as row by row; so many iterators as zip(*rows) has wake the collector.
        columns: list[list[Any]] = [[row[at] for row in rows] for at in range(len(self.columns))]
        for at, process in enumerate(self._processes):
            if process is not None:
                columns[at] = [None if value is None else process(value) for value in columns[at]]
        return list(zip(*columns, strict=True))

    def _find_unfit(self, rows: list[tuple[Any, ...]], first: int) -> None:
        for number, row in enumerate(rows, first):
            for column, process, value in zip(self.columns, self._processes, row, strict=True):
                try:
                    if process is not None and value is not None:
                        process(value)
                except Exception as error:
                    raise RowError.at(self.table, number, column, unfit(value, error)) from error

    def tuples(self, rows: list[Any], first: int) -> list[tuple[Any, ...]]:
        """The values of ``rows``, of which the first has the number ``first``. Raises ``RowError``."""
        width = len(self.columns)
        for row in rows:
            if type(row) is not tuple or len(row) != width:
                return [self.values(row, number) for number, row in enumerate(rows, first)]
        return rows

    def values(self, row: Any, number: int) -> tuple[Any, ...]:
        """Its values now: whoever makes the rows may use the same object for the next. Raises ``RowError``."""
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


async def bunches(rows: RowsIn, shape: Shape) -> AsyncIterator[Bunch]:
    """``rows`` as tuples, many at a time. Between two bunches the loop comes round.

    An iterable is walked in one thread from its beginning to its end, an asynchronous one here. Raises ``RowError``,
    ``TypeError`` for what is no iterable, and what the rows raise, with a note that says after which row.
    """
    if isinstance(rows, AsyncIterable):
        async with aclosing(_on_loop(rows, shape)) as source:
            async for bunch in source:
                yield bunch
    else:
        async with aclosing(Walker(rows, shape)) as walker:
            while (made := await walker.take()) is not None:
                yield made


def _noted(error: BaseException, shape: Shape, after: int) -> BaseException:
    if not isinstance(error, RowError) and not hasattr(error, "__notes__"):
        error.add_note(f"raised by the rows for {shape.table}, after row {after:,}")
    return error


def _size(row: tuple[Any, ...]) -> int:
    return sum(map(getsizeof, row))


def _enough(rows: list[tuple[Any, ...]], took: float, seconds: float, most: int) -> int:
    """How many rows to take next, ``most`` at most, where it ``took`` so long to process ``rows``."""
    if not rows:
        return most
    return max(1, min(most, int(len(rows) * seconds / max(took, 1e-6)), BYTES // max(_size(rows[-1]), 1)))


async def _on_loop(rows: AsyncIterable[Row], shape: Shape) -> AsyncGenerator[Bunch, None]:
    source = aiter(rows)
    first, enough, over = 1, FIRST, False
    try:
        while not over:
            made: list[tuple[Any, ...]] = []
            size = 0
            deadline = time.perf_counter() + MAKING_HERE
            try:
                async for row in source:
                    made.append(shape.values(row, first + len(made)))
                    if len(made) % STEP == 1:
                        size += STEP * _size(made[-1])
                    if len(made) >= enough or size >= BYTES or time.perf_counter() > deadline:
                        break
                else:
                    over = True
            except Exception as error:
                raise _noted(error, shape, first + len(made) - 1)  # noqa: B904
            began = time.perf_counter()
            made = shape.fit(made, first)
            enough = _enough(made, time.perf_counter() - began, MAKING_HERE, MOST_HERE)
            if made:
                yield Bunch(first, made)
            first += len(made)
            await asyncio.sleep(0)
    finally:
        if isinstance(source, AsyncGenerator):
            await source.aclose()


class Walker:
    """Rows that come from plain Python: one thread walks them, since what they hold (a cursor, say) may be bound to it.

    It makes the next bunches while one is written, which is waiting for the database mostly.
    """

    def __init__(self, rows: Iterable[Row], shape: Shape) -> None:
        if isinstance(rows, (str, bytes, Mapping)) or not isinstance(rows, Iterable):
            raise TypeError(f"{shape.table}: rows are an iterable, or an asynchronous one, of tuples or mappings")
        self._rows = rows
        self._shape = shape
        self._loop = asyncio.get_running_loop()
        self._made: deque[Bunch | BaseException | None] = deque()  # from the thread; None: that was all
        self._room = threading.Semaphore(AHEAD)
        self._waiter: asyncio.Future[None] | None = None
        self._ended: asyncio.Future[None] | None = None
        self._closing = False
        self._enough = FIRST  # rows in the next bunch

    async def take(self) -> Bunch | None:
        """The next rows; None when there are no more. Raises what they raise."""
        if self._ended is None:
            context = copy_context()
            lend(lambda: context.run(self._work))
            self._ended = self._loop.create_future()  # its end is told by the loop, which is not before this
        while not self._made:
            self._waiter = self._loop.create_future()
            await self._waiter
        made = self._made.popleft()
        self._room.release()
        if isinstance(made, BaseException):
            try:
                raise made
            finally:
                del made  # what it raised holds this frame
        return made

    def made(self) -> Bunch | None:
        """The next rows, if they have been made already."""
        if not self._made or not isinstance(self._made[0], Bunch):
            return None
        self._room.release()
        return self._made.popleft()  # type: ignore[return-value]

    async def aclose(self) -> None:
        """Have the thread let go of the rows; one that does not come back in time is left to itself."""
        self._closing = True
        self._room.release()
        if self._ended is not None:
            await finish(self._end(self._ended))

    async def _end(self, ended: asyncio.Future[None]) -> None:
        await asyncio.wait([ended], timeout=PATIENCE)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _over(self) -> None:
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(None)

    # In the thread

    def _work(self) -> None:
        rows: Iterator[Row] | None = None
        try:
            try:
                rows = iter(self._rows)
            except Exception as error:
                raise _noted(error, self._shape, 0)  # noqa: B904
            first, over = 1, False
            while not over and not self._closing:
                bunch, over = self._next(rows, first)
                first = bunch.last + 1
                if bunch.rows:
                    self._put(bunch)
            self._put(None)
        except BaseException as error:
            self._put(error)
        finally:
            if isinstance(rows, Generator):
                with suppress(Exception):  # nobody waits for it any more
                    rows.close()
            del rows, self._rows
            self._tell(self._over)

    def _next(self, rows: Iterator[Row], first: int) -> tuple[Bunch, bool]:
        """The next rows, and whether they are the last."""
        if isinstance(self._rows, (list, tuple)):  # they are there, and nothing has to be made or kept
            taken = list(islice(rows, self._enough))
            made, over = self._shape.tuples(taken, first), len(taken) < self._enough
        else:
            made, over = self._kept(rows, first)
        began = time.perf_counter()
        made = self._shape.fit(made, first)
        self._enough = _enough(made, time.perf_counter() - began, MAKING, MOST)
        return Bunch(first, made), over

    def _kept(self, rows: Iterator[Row], first: int) -> tuple[list[tuple[Any, ...]], bool]:
        """Rows that are made now, each with the values it has when it comes; and whether they are the last."""
        made: list[tuple[Any, ...]] = []
        width, values = len(self._shape.columns), self._shape.values
        deadline = time.perf_counter() + MAKING
        size, step, over = 0, 1, False
        while not over and len(made) < self._enough and size < BYTES and time.perf_counter() < deadline:
            before, wanted = len(made), min(step, self._enough - len(made))
            try:
                for row in islice(rows, wanted):
                    if type(row) is tuple and len(row) == width:  # which is quick to see, and true of most
                        made.append(row)
                    else:
                        made.append(values(row, first + len(made)))
            except Exception as error:
                raise _noted(error, self._shape, first + len(made) - 1)  # noqa: B904
            over = len(made) - before < wanted
            if made:
                size += wanted * _size(made[-1])
            step = min(2 * step, STEP)
        return made, over

    def _put(self, made: Bunch | BaseException | None) -> None:
        if self._closing:  # which frees one place
            return
        self._room.acquire()
        self._made.append(made)
        self._tell(self._wake)

    def _tell(self, what: Callable[[], object]) -> None:
        with suppress(RuntimeError):  # the loop has been closed: nobody is left to hear it
            self._loop.call_soon_threadsafe(what)
