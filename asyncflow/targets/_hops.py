"""What file handles of the loop share: the work is done in threads, in shielded steps, one at a time.

File objects are not made for two threads at once, and a cancelled caller must find the file at rest.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from ..shield import finish
from ..threads import files

__all__ = ["HOP", "OnLoop", "in_thread"]

HOP = 256 * 1024
"""Characters or bytes moved per thread hop: a hop costs 50-120 us, whatever it carries."""

T = TypeVar("T")


async def in_thread(call: Callable[..., T], *args: Any) -> T:
    """``call(*args)``, in a thread for files."""
    return await asyncio.get_running_loop().run_in_executor(files, call, *args)


class OnLoop:
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
