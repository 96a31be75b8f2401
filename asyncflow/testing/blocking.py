"""``no_blocking``: a test fails when a step holds the event loop for too long."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from ..guard import LIMIT, Block, listening

__all__ = ["LoopBlockedError", "no_blocking"]


class LoopBlockedError(AssertionError):
    """Something held the event loop of a build. ``blocks`` has the task, the seconds and the place of each."""

    def __init__(self, limit: float, blocks: Sequence[Block]) -> None:
        lines = "".join(
            f"\n  {block.seconds:.2f} s by {'code outside of any task' if block.task is None else repr(block.task)}"
            f", at {block.place}"
            for block in blocks
        )
        super().__init__(
            f"the event loop was held for longer than {limit:g} s; a plain `def run` is in a thread by itself, "
            f"and in an `async def` there is asyncio.to_thread():{lines}"
        )
        self.blocks = tuple(blocks)


@contextmanager
def no_blocking(limit: float = LIMIT) -> Iterator[None]:
    """Raise ``LoopBlockedError`` at the end if a step held the loop of a build for ``limit`` seconds or longer.

    ``with no_blocking(): await build(...)``, or around code that runs a loop of its own. It sees the loops of all
    builds of the process while they have one, is right to a quarter of ``limit``, and raises nothing where the
    block raises by itself. A machine with more to do than cores calls for a limit with some room.

    Raises ``ValueError`` for a ``limit`` that is not positive.
    """
    if not limit > 0:
        raise ValueError(f"no_blocking(limit={limit!r}): expected a positive number of seconds")
    blocks: list[Block] = []
    with listening(blocks.append, limit):
        yield
    if blocks:
        raise LoopBlockedError(limit, blocks)
