"""What a run keeps of its events, and the readers that follow it, each at its own pace.

There is one store for all readers, and a reader is a place in it: telling an event costs the engine one append,
however many read, and a slow reader costs nothing. What a reader has not read in time is gone for it; it is told how
much that was.
"""

from __future__ import annotations

import asyncio
from collections import deque
from types import TracebackType

from .errors import ConfigError
from .events import BuildFinished, Event, Lagged

__all__ = ["KEPT", "EventReader", "Feed"]

KEPT = 1000
"""Events that a run keeps, and that a reader may be behind, unless it asks for another number."""


class Feed:
    """The last events of one run. ``add`` is its listener."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.kept: deque[Event] = deque()
        self.last = 0  # the number of the last event
        self.over = False  # there will be no more
        self._most = KEPT
        self._wide: dict[int, int] = {}  # the buffers of the readers that want more than that kept, by id
        self._waiting: dict[asyncio.Future[None], None] = {}  # in the order they came

    def add(self, event: Event) -> None:
        """Keep ``event``, and wake who waits for it."""
        self.kept.append(event)
        self.last = event.seq
        if len(self.kept) > self._most:
            self._trim()
        if isinstance(event, BuildFinished):
            self.over = True
        if self._waiting:
            self.wake()

    def _trim(self) -> None:
        # A copy: a reader may be collected, which takes its entry away, at any moment and in any thread.
        self._most = max((KEPT, *list(self._wide.values()))) if self._wide else KEPT
        while len(self.kept) > self._most:
            self.kept.popleft()

    def opened(self, reader: EventReader) -> None:
        """Keep as much as ``reader`` may be behind."""
        if reader.buffer > KEPT:
            self._wide[id(reader)] = reader.buffer  # looked at when more than `_most` are kept

    def closed(self, reader: EventReader) -> None:
        """Keep no more than the others need."""
        if self._wide.pop(id(reader), 0) and not self.over:
            self._most = KEPT  # what is more goes with the next event

    def wake(self) -> None:
        """Every reader that waits looks again."""
        waiting, self._waiting = self._waiting, {}
        for future in waiting:
            if not future.done():  # its reader has been cancelled in this turn
                future.set_result(None)

    async def news(self) -> None:
        """Wait for ``wake``."""
        future = self.loop.create_future()
        self._waiting[future] = None
        try:
            await future
        finally:
            self._waiting.pop(future, None)

    def check(self) -> None:
        """Raises ``RuntimeError`` where another loop, or none, runs, unless nothing changes any more."""
        if not self.over and asyncio._get_running_loop() is not self.loop:
            raise RuntimeError("a run's events can be read, while it lasts, only in the event loop it was started in")


class EventReader:
    """The events of one run, as ``run.events()`` gives them: an async iterator that ends after ``BuildFinished``.

    It never holds the run up. It may be ``buffer`` events behind; of those that are further back it gets one ``Lagged``
    instead, and then the oldest that is left, so every ``Lagged`` is followed by an event.

    There is nothing that has to be closed: a reader that is dropped, or whose task is cancelled, leaves nothing behind.
    ``async with`` and ``aclose()`` are there for those who want to end it before.

    Raises ``RuntimeError`` when it is read in another event loop than that of the run, as long as the run lasts.
    """

    __slots__ = ("__weakref__", "_after", "_closed", "_feed", "_seen", "buffer")

    def __init__(self, feed: Feed, since: int, buffer: int) -> None:
        self.buffer = 0  # first: what is refused below is collected all the same
        for name, value, least in (("since", since, 0), ("buffer", buffer, 1)):
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise ConfigError(f"events({name}={value!r}): expected a whole number of at least {least}")
        if since > feed.last:
            raise ConfigError(f"events(since={since}): this run has come to {feed.last} only; is that of another one?")
        self.buffer = buffer
        """How many events it may be behind."""
        self._feed = feed
        self._seen = since
        self._after: Event | None = None  # what follows the ``Lagged`` it has just got
        self._closed = False
        feed.opened(self)

    def __aiter__(self) -> EventReader:
        return self

    async def __anext__(self) -> Event:
        feed = self._feed
        while not self._closed:
            feed.check()
            event = self._next()
            if event is not None:
                return event
            if feed.over:
                break
            await feed.news()
        raise StopAsyncIteration

    def _next(self) -> Event | None:
        """The next event, if it is there already."""
        if self._after is not None:
            event, self._after = self._after, None
        else:
            kept = self._feed.kept
            unread = self._feed.last - self._seen
            if unread <= 0:
                return None
            within_reach = min(len(kept), self.buffer)
            if unread > within_reach:
                self._after = after = kept[-within_reach]
                self._seen = after.seq - 1
                return Lagged(self._seen, after.time, after.run_id, unread - within_reach)
            event = kept[-unread]
        self._seen = event.seq
        return event

    async def aclose(self) -> None:
        """End the iteration, also where it is being waited for."""
        self._feed.check()
        self._closed = True
        self._after = None
        self._feed.closed(self)
        self._feed.wake()

    async def __aenter__(self) -> EventReader:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    def __del__(self) -> None:
        if self.buffer > KEPT:
            self._feed.closed(self)
