"""After the body: are the outputs there? Success is only reported once that has been established."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from itertools import groupby
from typing import Any

from .attempt import Attempt
from .errors import IncompleteOutput
from .target import Target, ask, check_answer
from .tree import leaves

__all__ = ["confirm", "confirmed", "look_in_thread"]


def _has_more(attempt: Attempt, value: Any) -> bool:
    """Whether a plain ``def run`` has returned a coroutine, which is the rest of its body."""
    return inspect.iscoroutine(value) and attempt.task._definition.body == "function"


def confirmed(attempt: Attempt, value: Any) -> bool:
    """Whether it is plain without looking: a computed task, or outputs this attempt has published itself."""
    output = attempt.node.output
    if output is None:
        return not _has_more(attempt, value)
    published = attempt.published
    if published is None or value is not None:
        return False
    if isinstance(output, Target):
        key = output.key
        return key is not None and key in published
    return all(target.key is not None and target.key in published for target in leaves(output))


class Left:
    """What a sync body's thread could not find out: the ``answer`` of ``target`` is awaited, ``others`` are asked."""

    __slots__ = ("answer", "others", "target")

    def __init__(self, others: Iterator[Target], target: Target | None = None, answer: Any = None) -> None:
        self.others = others
        self.target = target
        self.answer = answer


def look_in_thread(attempt: Attempt, value: Any) -> Any:
    """In a sync body's own thread: the same by looking, where no target needs the loop. Raises as ``confirm``.

    None if every output is there; else what ``confirm`` is to be given on the loop.
    """
    if value is not None:
        return value
    attempt.looking = True
    targets = list(_unseen(attempt))
    if any(target._how == "loop" for target in targets):
        return Left(iter(targets))
    others = iter(targets)
    for target in others:
        there = target._exists()
        if hasattr(there, "__await__"):
            return Left(others, target, there)
        if not check_answer(target, "exists", there):
            raise _incomplete(attempt, target)
    return None


def _unseen(attempt: Attempt) -> Iterator[Target]:
    """The outputs this attempt has not published itself."""
    published = attempt.published
    for target in leaves(attempt.node.output):
        if published is None or target.key is None or target.key not in published:
            yield target


async def confirm(attempt: Attempt, value: Any) -> Any:
    """The body's value, once every output is there.

    A value returned by a task that has an output is put into that output, if the target can: it has a ``codec`` to be
    written with, or a ``put``.
    Raises ``IncompleteOutput``, or what a target raises.
    """
    if _has_more(attempt, value):
        value = await value
    output = attempt.node.output
    if output is None:
        return value
    targets = _unseen(attempt)
    if value is not None and not isinstance(value, Left):
        await _store(attempt, output, value)
    attempt.looking = True
    if isinstance(value, Left):
        targets, target = value.others, value.target
        if target is not None and not check_answer(target, "exists", await value.answer):
            raise _incomplete(attempt, target)
    kind: type[Target]
    for kind, group in groupby(targets, type):
        row = tuple(group)
        # Bodies that end at one moment are asked about in one go, where the class of their outputs can.
        answers = None if kind._many is None else await attempt.engine.exist(attempt, row)
        for n, target in enumerate(row):
            there = await ask(target) if answers is None else answers[n]
            if isinstance(there, BaseException):
                raise there
            if not there:
                raise _incomplete(attempt, target)
    return None


async def _store(attempt: Attempt, output: Any, value: Any) -> None:
    put = getattr(output, "put", None) if getattr(output, "codec", None) is None else output.write
    if put is None:
        raise IncompleteOutput(
            f"{attempt.task!r}: run() returned a value ({type(value).__name__}) although the task has an output(); "
            f"write it to {output!r}, give that a codec (codec=Json(), say) to have it written, or drop output() to "
            "have the value handed on in memory"
        )
    stored = put(value)
    if inspect.isawaitable(stored):
        await stored


def _incomplete(attempt: Attempt, target: Target) -> IncompleteOutput:
    message = f"{attempt.task!r}: run() ended without an error, but its output is not there: {target!r}"
    try:
        now = list(leaves(attempt.task.output()))
    except Exception:
        now = []
    if now and target not in now:
        message += f"; output() gives {', '.join(map(repr, now))} now: it must give the same targets every time"
    return IncompleteOutput(message)
