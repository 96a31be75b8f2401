"""What file handles of the loop share: the work is done in threads, in shielded steps, one at a time.

File objects are not made for two threads at once, and a cancelled caller must find the file at rest.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, TypeVar

from ..crew import Crew
from ..shield import finish

__all__ = ["HOP", "OnLoop", "in_thread", "written"]

HOP = 256 * 1024
"""Characters or bytes moved per thread hop: a hop costs 50-120 us, whatever it carries."""

SLOW = 8
"""Hops per tick: 0.6 ms each. Quick ones are Python's more than the disk's, and threads only fight over it."""

T = TypeVar("T")


_crews: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Crew] = weakref.WeakKeyDictionary()


async def in_thread(call: Callable[..., T], *args: Any) -> T:
    """``call(*args)``, in a thread for files. It comes to its end whatever cancels arrive, as in ``shield.finish``.

    That costs a third of ``finish`` around an executor's future: there is no task, and the loop is woken once for
    many.
    """
    loop = asyncio.get_running_loop()
    crew = _crews.get(loop)
    if crew is None:
        crew = _crews[loop] = Crew(loop, slow=SLOW)
    reply: asyncio.Future[T] = loop.create_future()
    crew.put(partial(call, *args), partial(_settle, reply))
    try:
        return await asyncio.shield(reply)
    except asyncio.CancelledError:
        if not reply.done():
            await finish(_end_of(reply))
        raise
    finally:
        del reply  # what it raised holds this frame


def written(data: Any, *, text: bool) -> Any:
    """``data`` as a handle keeps it until it is written. Raises ``TypeError`` for what it does not take."""
    if text:
        if not isinstance(data, str):
            raise TypeError(f"this handle takes str, not {type(data).__name__}; open with 'wb' for bytes")
        return data
    if isinstance(data, bytes):
        return data
    if isinstance(data, str):
        raise TypeError("this handle takes bytes, not str; open with 'w' for text")
    return memoryview(data).tobytes()  # its owner may change it before it is written


def _settle(reply: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if error is None:
        reply.set_result(result)
    elif isinstance(error, StopIteration):  # futures take no such thing
        wrong = RuntimeError(f"{error!r} was raised in a thread for files")
        wrong.__cause__ = error
        reply.set_exception(wrong)
    else:
        reply.set_exception(error)


async def _end_of(reply: asyncio.Future[Any]) -> None:
    await asyncio.wait([reply])


class OnLoop:
    """A plain file driven from the loop, step by step."""

    def __init__(self, *, text: bool) -> None:
        self._turn = asyncio.Lock()
        self._steps = 0  # begun, and not ended
        self._text = text
        self._nothing: Any = "" if text else b""

    async def _step(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        async def one_at_a_time() -> T:
            async with self._turn:
                return await work()

        self._steps += 1
        try:
            return await finish(one_at_a_time())
        finally:
            self._steps -= 1

    async def _hop(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """The same for work that ends with its one hop, which is shielded by itself."""
        if self._steps:
            return await self._step(work)
        self._steps += 1
        try:
            async with self._turn:
                return await work()
        finally:
            self._steps -= 1
