"""Sync ``exists()`` and ``complete()``: asked in threads, many at a time (``crew.py``)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import Any

from .crew import Crew
from .graph import FINAL, Node
from .target import Target, ask, check_answer
from .tree import leaves

__all__ = ["Hooks"]

SLOW = 64  # answers per tick: 80 us each


class Hooks:
    """The questions of one executor. ``answered(node, answer)`` is called on its loop, with a bool, an awaitable
    that gives one, or an exception."""

    def __init__(self, loop: asyncio.AbstractEventLoop, answered: Callable[[Node, Any], None]) -> None:
        self._answered = answered
        self._crew = Crew(loop, slow=SLOW)

    def ask(self, node: Node) -> None:
        """Queue the question whether ``node`` is complete."""
        self._crew.put(partial(_answer, node), partial(self._told, node))

    def _told(self, node: Node, answer: Any, error: BaseException | None) -> None:
        self._answered(node, answer if error is None else error)

    def close(self) -> None:
        """Stop the clock; called when nothing is left to ask."""
        self._crew.close()


def _answer(node: Node) -> Any:
    if node.state >= FINAL:
        return True  # nobody wants to know any more
    return node.build.owner.context.copy().run(_ask, node)


def _ask(node: Node) -> Any:
    """In a thread: whether ``node`` is complete; an awaitable where only the loop can tell."""
    task = node.task
    if task._complete is not None:
        answer = task._complete()
        if hasattr(answer, "__await__"):
            return _promised(task, "complete", answer)
        return check_answer(task, "complete", answer)
    targets = (target for target in leaves(node.output) if type(target)._many is None)  # the others are there
    for target in targets:
        answer = target._exists()
        if hasattr(answer, "__await__"):
            return _rest(target, answer, targets)
        if not check_answer(target, "exists", answer):
            return False
    return True


async def _promised(owner: object, hook: str, answer: Awaitable[Any]) -> bool:
    return check_answer(owner, hook, await answer)


async def _rest(target: Target, answer: Awaitable[Any], others: Iterator[Target]) -> bool:
    """The rest of the question, on the loop: a plain ``def exists`` gave an awaitable. None is asked twice."""
    if not check_answer(target, "exists", await answer):
        return False
    for other in others:
        if not await ask(other):
            return False
    return True
