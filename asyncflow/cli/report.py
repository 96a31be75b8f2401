"""What is told of a build: its failures with the user's own frames, and one line of counts."""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from .._options import Options as TaskOptions
from .._plan import Plan
from .._task import Task
from ..errors import PlanError
from ..events import FinalStatus, TaskRetry
from ..result import BuildResult
from .frames import Frame, user_frames
from .terminal import AGAIN, BLOCKED, DONE, FAILED, Line, Piece, Styled, escape

__all__ = [
    "Failure",
    "counts_line",
    "failure_lines",
    "failures_of",
    "plan_text",
    "problem_lines",
    "retry_line",
    "seconds",
    "traceback_lines",
    "unexpected_lines",
]

FAILURES = 10  # told in full
LEAVES = 3  # exceptions of a group
FRAMES = 3
MESSAGE_LINES = 4
WIDTH = 300  # characters of a task or a line of a message
_DEPTH = 100  # groups inside groups

_WORDS: Mapping[FinalStatus, str] = {
    "succeeded": "done",
    "complete": "already complete",
    "adopted": "made by others",
    "failed": "failed",
    "unknown": "unknown",
    "missing": "missing",
    "blocked": "blocked",
    "cancelled": "cancelled",
}


class Failure(NamedTuple):
    """A task at the root of what went wrong."""

    task: Task
    status: FinalStatus
    error: BaseException | None
    duration: float = 0.0
    blocks: Sequence[Task] = ()
    output: object = None
    attempts: int = 1


def failures_of(result: BuildResult) -> list[Failure]:
    """The root causes: what failed, then what is unknown, then what is missing."""
    blocked: dict[Task, list[Task]] = {}
    for task in reversed(result.blocked):  # met from the top down; nearest first
        by = result.tasks[task].blocked_by
        if by is not None:
            blocked.setdefault(by, []).append(task)
    found = []
    for task in (*result.failed, *result.unknown, *result.missing):
        item = result.tasks[task]
        blocks = blocked.get(task, ())
        failure = Failure(task, item.status, item.error, item.duration, blocks, item.output, len(item.attempts))
        found.append(failure)
    return found


def retry_line(event: TaskRetry, retries: int) -> Line:
    """``↻ Fetch(n=3)  attempt 1 of 4 failed: OSError: no route; again in 2.10 s``; ``retries`` is the build's."""
    options = event.task._definition.options or TaskOptions(event.task, repr(event.task))
    most = 1 + (retries if options.retries is None else options.retries)
    name = Styled(_clip(repr(event.task)), "bold")
    what = f"  attempt {event.attempt:,} of {most:,} failed: {_one_line(event.error)}; again in {seconds(event.wait)}"
    return (AGAIN, " ", name, what)


def failure_lines(failures: Sequence[Failure], *, full: bool = False) -> Iterator[Line]:
    """Each failure as a block; the first ten, and how many more there are."""
    for failure in failures[:FAILURES]:
        yield from _failure(failure, full)
    more = len(failures) - FAILURES
    if more > 0:
        yield (f"… and {more:,} more", Styled(" (--json tells them all)", "dim"))


def _failure(failure: Failure, full: bool) -> Iterator[Line]:
    symbol = BLOCKED if failure.status == "missing" else FAILED
    name: Piece = Styled(_clip(repr(failure.task)), "bold")
    error = failure.error
    if failure.status == "missing":
        external = failure.task._definition.external
        why = "is external, and its output is missing" if external else "is not selected (--only), and is not complete"
        yield (symbol, " ", name, f"  {why}")
        if failure.output is not None:
            yield (f"    {_clip(repr(failure.output))}",)
    elif failure.status == "unknown":
        yield (symbol, " ", name, "  cannot tell whether it is complete")
    else:
        which = f", at attempt {failure.attempts:,}" if failure.attempts > 1 else ""
        yield (symbol, " ", name, f"  failed after {seconds(failure.duration)}{which}")
    if error is not None and failure.status != "missing":
        yield from traceback_lines(error) if full else _error(error, type(failure.task).__module__)
    if failure.blocks:
        names = ", ".join(_clip(repr(task), 100) for task in failure.blocks[:3])
        more = f" and {len(failure.blocks) - 3:,} more" if len(failure.blocks) > 3 else ""
        yield (f"    blocks {names}{more}",)


def _error(error: BaseException, module: str) -> Iterator[Line]:
    found = list(_leaves(error))
    for leaf in found[:LEAVES]:
        yield from _message(leaf)
        yield from _frames(user_frames(leaf, module), FRAMES if len(found) == 1 else 1)
        cause = leaf.__cause__ or (None if leaf.__suppress_context__ else leaf.__context__)
        if cause is not None:
            yield (f"    caused by {_one_line(cause)}",)
    if len(found) > LEAVES:
        yield (f"    … and {len(found) - LEAVES:,} more exceptions in the group",)


def _leaves(error: BaseException) -> Iterator[BaseException]:
    """The exceptions in a group, without recursion; another exception is its own."""
    stack = [error]
    while stack:
        top = stack.pop()
        if isinstance(top, BaseExceptionGroup):
            stack += reversed(top.exceptions)
        else:
            yield top


def _message(error: BaseException) -> Iterator[Line]:
    """``ValueError: row 17``, in a few lines, with the notes of the exception."""
    text = _text(error)
    lines = [line.rstrip() for line in text.splitlines() if line.strip()]
    name = type(error).__name__
    head = f"{name}: {lines[0].strip()}" if lines else name
    yield ("    ", Styled(_clip(head), "red"))
    rest = [*lines[1:], *(line for note in _notes(error) for line in note.splitlines())]
    for line in rest[: MESSAGE_LINES - 1]:
        yield (f"      {_clip(line)}",)
    if len(rest) >= MESSAGE_LINES:
        yield (f"      … {len(rest) - MESSAGE_LINES + 1:,} more lines",)


def _notes(error: BaseException) -> list[str]:
    notes = getattr(error, "__notes__", ())
    return [note for note in notes if isinstance(note, str)] if isinstance(notes, (list, tuple)) else []


def _frames(frames: Sequence[Frame], count: int) -> Iterator[Line]:
    """The innermost frames, and where the user's code began if that is further out."""
    left_out = len(frames) - count
    for index, frame in enumerate(frames if left_out <= 0 else [frames[0], *frames[-count:]]):
        if index == 1 and left_out > 1:
            yield (Styled(f"    … {left_out - 1:,} frames", "dim"),)
        yield (f"    {frame}",)
        if frame.source:
            yield ("      ", Styled(f"{frame.line} │ ", "dim"), _clip(frame.source, 120))


def problem_lines(error: PlanError, *, full: bool = False) -> Iterator[Line]:
    """Why the graph cannot be built: every problem in a line, and where it arose."""
    problems = _problems(error)
    for problem in problems[:FAILURES]:
        yield (Styled("error:", "red"), " ", _clip(" ".join(_text(problem).split()), 2 * WIDTH))
        if full:
            yield from traceback_lines(problem)
        elif problem.__cause__ is not None:
            yield from _frames(user_frames(problem.__cause__)[-1:], 1)
    if len(problems) > FAILURES:
        yield (f"… and {len(problems) - FAILURES:,} more",)
    yield (Styled("hint:", "cyan"), " nothing was executed")


def _problems(error: PlanError) -> list[BaseException]:
    found: list[BaseException] = []
    stack: list[BaseException] = [error]
    while stack:
        top = stack.pop()
        below = top.problems if isinstance(top, PlanError) else ()
        # One that holds a single problem has its text, and knows the cause.
        if len(below) > 1:
            stack += reversed(below)
        else:
            found.append(top)
    return found


def unexpected_lines(error: BaseException) -> Iterator[Line]:
    """An exception nobody expected: the message, and the user's frames if it came from there."""
    yield (Styled("error:", "red"), " ", _one_line(error))
    yield from _frames(user_frames(error), FRAMES)


def traceback_lines(error: BaseException) -> Iterator[Line]:
    """All of it, as Python prints it."""
    for chunk in traceback.format_exception(error):
        for line in chunk.rstrip("\n").split("\n"):
            yield (f"    {line}",)


def counts_line(counts: Mapping[FinalStatus, int], duration: float, *, ok: bool) -> Line:
    """``✓ 3 done · 4 already complete   0.9 s``."""
    parts = [f"{counts[status]:,} {word}" for status, word in _WORDS.items() if counts.get(status)]
    if not counts.get("succeeded") and ok:
        parts.insert(0, "0 to run")
    return (DONE if ok else FAILED, f" {' · '.join(parts) or 'nothing done'}   ", Styled(seconds(duration), "dim"))


def plan_text(plan: Plan) -> str:
    """The plan as text for standard output."""
    names = [escape(repr(item.task)) for item in plan.items]
    width = min(max(map(len, names), default=0), 60)
    lines = [
        f"  {item.action.upper() if item.action == 'run' else item.action:<8}{name:<{width}}  {escape(item.reason)}"
        for item, name in zip(plan.items, names, strict=True)
    ]
    return "\n".join([*lines, plan.summary()])


def _one_line(error: BaseException) -> str:
    text = " ".join(_text(error).split())
    return _clip(f"{type(error).__name__}: {text}" if text else type(error).__name__)


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # a broken __str__ must not hide the failure
        return "(its message cannot be shown: str() of it raises)"


def seconds(duration: float) -> str:
    """A time for people."""
    if duration < 10:
        return f"{duration:.2f} s"
    return f"{duration:.1f} s" if duration < 120 else f"{int(duration) // 60:,} min {int(duration) % 60} s"


def _clip(text: str, width: int = WIDTH) -> str:
    """``text`` with its middle left out if it is longer than ``width``: both ends tell most."""
    if len(text) <= width:
        return text
    half = (width - 3) // 2
    return f"{text[:half]} … {text[-half:]}"
