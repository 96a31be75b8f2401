"""Clients that targets share: one for each loop and key, whoever uses it.

Targets are small values; what they talk through (a pool of connections, a session) is expensive to make, belongs to a
loop, and has to be closed there. ``use`` lends it: opened by the first who wants it, closed when nobody has for
``IDLE`` seconds, or when the loop ends.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Hashable
from typing import Any, Generic, Protocol, TypeVar

__all__ = ["IDLE", "Closable", "close_idle", "renew", "use"]

log = logging.getLogger("asyncflow")

IDLE = 60.0
"""Seconds after which a client that nobody uses is closed."""


class Closable(Protocol):
    """What a client has to be able to do."""

    async def close(self) -> None:
        """Let go of everything. What it raises is logged."""


C = TypeVar("C", bound=Closable)


class _Client:
    """One client, or the place of one that is to be opened."""

    __slots__ = ("opened", "opening", "since", "users")

    def __init__(self) -> None:
        self.opening = asyncio.Lock()
        self.opened: Any = None
        self.users = 0
        self.since = 0.0  # when the last of them has left

    async def open(self, opener: Callable[[], Awaitable[Closable]]) -> None:
        async with self.opening:  # one that is cancelled, or fails, leaves it to the next
            if self.opened is None:
                self.opened = await opener()

    async def close(self) -> None:
        opened, self.opened = self.opened, None
        if opened is not None:
            try:
                await opened.close()
            except Exception:  # nobody waits for it who could do anything about it
                log.debug("%r did not close well", opened, exc_info=True)


class _Clients:
    """The clients of one loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.by_key: dict[Hashable, _Client] = {}
        self._loop = loop
        self._end: AsyncGenerator[None, None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._closing: set[asyncio.Task[None]] = set()  # held strongly: the loop only knows its tasks weakly

    async def begin(self) -> None:
        """Have everything closed at the end of the loop."""
        if self._end is None:
            self._end = self._until_the_loop_ends()
            await anext(self._end)

    async def _until_the_loop_ends(self) -> AsyncGenerator[None, None]:
        # What ends a loop in an orderly way (asyncio.run, and the servers and test runners built on it) closes the
        # asynchronous generators that are still open: the one hook there is.
        try:
            yield
        finally:
            _of_loops.pop(self._loop, None)
            if self._timer is not None:
                self._timer.cancel()
            await _close(list(self.by_key.values()))

    def left(self, key: Hashable, client: _Client) -> list[_Client]:
        """One of its users has left. What is to be closed now."""
        client.users -= 1
        if client.users:
            return []
        client.since = self._loop.time()
        if self.by_key.get(key) is not client:  # it was renewed meanwhile
            return [client]
        if client.opened is None:
            del self.by_key[key]  # it could not be opened
        elif self._timer is None:
            self._timer = self._loop.call_later(IDLE, self._look)
        return []

    def _look(self) -> None:
        self._timer = None
        self.close_later(self._take(before=self._loop.time() - IDLE))
        oldest = min((client.since for client in self.by_key.values() if not client.users), default=None)
        if oldest is not None:
            self._timer = self._loop.call_at(oldest + IDLE, self._look)

    def close_later(self, clients: list[_Client]) -> None:
        if clients:
            task = self._loop.create_task(_close(clients))
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    def _take(self, *, before: float) -> list[_Client]:
        unused = [key for key, client in self.by_key.items() if not client.users and client.since <= before]
        return [self.by_key.pop(key) for key in unused]

    async def close_idle(self) -> None:
        await _close(self._take(before=float("inf")))
        if self._timer is not None and not self.by_key:
            self._timer.cancel()
            self._timer = None


async def _close(clients: list[_Client]) -> None:
    for client in clients:
        await client.close()


_of_loops: dict[asyncio.AbstractEventLoop, _Clients] = {}


def _of(loop: asyncio.AbstractEventLoop) -> _Clients:
    clients = _of_loops.get(loop)
    if clients is None:
        for gone in [other for other in list(_of_loops) if other.is_closed()]:  # not in an orderly way
            _of_loops.pop(gone, None)
        clients = _of_loops[loop] = _Clients(loop)
    return clients


class use(Generic[C]):
    """A block that has the running loop's client called ``key``; ``opener()`` makes it, if there is none yet.

    Many may use it at once. Raises on entering what opening it raises; the next one tries again then.
    """

    __slots__ = ("_client", "_clients", "_key", "_opener")

    def __init__(self, key: Hashable, opener: Callable[[], Awaitable[C]]) -> None:
        self._key = key
        self._opener = opener

    async def __aenter__(self) -> C:
        self._clients = clients = _of(asyncio.get_running_loop())
        await clients.begin()
        client = clients.by_key.get(self._key)
        if client is None:
            client = clients.by_key[self._key] = _Client()
        self._client = client
        client.users += 1
        if client.opened is None:
            try:
                await client.open(self._opener)
            except BaseException:
                await self.__aexit__()
                raise
        opened: Any = client.opened
        return opened  # type: ignore[no-any-return]

    async def __aexit__(self, *error: object) -> None:
        await _close(self._clients.left(self._key, self._client))

    def abandon(self) -> None:
        """Leave the block without waiting."""
        self._clients.close_later(self._clients.left(self._key, self._client))


async def renew(key: Hashable, stale: Closable) -> None:
    """The next one who uses ``key`` gets a new client in place of ``stale``, which is closed when its users have left.

    Does nothing where it has been renewed already.
    """
    clients = _of(asyncio.get_running_loop())
    client = clients.by_key.get(key)
    if client is not None and client.opened is stale:
        del clients.by_key[key]
        if not client.users:
            await client.close()


async def close_idle() -> None:
    """Close the clients of the running loop that nobody uses now."""
    clients = _of_loops.get(asyncio.get_running_loop())
    if clients is not None:
        await clients.close_idle()
