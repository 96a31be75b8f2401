"""After the body: are the outputs there? Success is only reported once that has been established."""

from __future__ import annotations

import inspect
from typing import Any

from .attempt import Attempt
from .errors import IncompleteOutput
from .target import Target, ask, check_answer
from .tree import leaves

__all__ = ["confirm", "confirmed", "confirmed_in_thread"]


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


def confirmed_in_thread(attempt: Attempt, value: Any) -> bool:
    """In a sync body's own thread: the same by looking, where no target needs the loop. Raises as ``confirm``."""
    output = attempt.node.output
    if value is not None or any(target._how == "loop" for target in leaves(output)):
        return False
    for target in leaves(output):
        there = target._exists()
        if hasattr(there, "__await__"):
            return False
        if not check_answer(target, "exists", there):
            raise _incomplete(attempt, target)
    return True


async def confirm(attempt: Attempt, value: Any) -> Any:
    """The body's value, once every output is there.

    A value returned by a task that has an output is put into that output, if the target can (``put``).
    Raises ``IncompleteOutput``, or what a target raises.
    """
    if _has_more(attempt, value):
        value = await value
    output = attempt.node.output
    if output is None:
        return value
    if value is not None:
        await _store(attempt, output, value)
    for target in leaves(output):
        if attempt.published is not None and target.key is not None and target.key in attempt.published:
            continue
        if not await ask(target):
            raise _incomplete(attempt, target)
    return None


async def _store(attempt: Attempt, output: Any, value: Any) -> None:
    put = getattr(output, "put", None)
    if put is None:
        raise IncompleteOutput(
            f"{attempt.task!r}: run() returned a value ({type(value).__name__}) although the task has an output(); "
            f"write it to {output!r}, or drop output() to have the value handed on in memory"
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
