"""What a build tells its listeners: small frozen values, numbered from 1 without a gap as they arrive in its loop.

Order is promised per task and by cause (a dependency finishes before its dependent starts), not globally.
A listener is a plain callable (``on_event``; what it raises is logged and never fatal), or a reader of its own
pace (``Run.events()``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, TypeAlias

from ._task import Task
from .errors import describe

__all__ = [
    "Abandoned",
    "BuildFinished",
    "BuildStarted",
    "BuildStatus",
    "Event",
    "FinalStatus",
    "Lagged",
    "LoopBlocked",
    "Status",
    "TaskFinished",
    "TaskLog",
    "TaskProgress",
    "TaskRetry",
    "TaskStarted",
]

FinalStatus: TypeAlias = Literal[
    "succeeded", "complete", "adopted", "failed", "blocked", "missing", "unknown", "cancelled"
]
Status: TypeAlias = Literal["pending", "ready", "locking", "running", "suspended"] | FinalStatus
BuildStatus: TypeAlias = Literal["succeeded", "failed", "incomplete", "cancelled"]


@dataclass(frozen=True, slots=True)
class Event:
    """``seq`` counts the events of one build from 1; ``time`` is in seconds since the epoch."""

    seq: int
    time: float
    run_id: str

    def to_dict(self) -> dict[str, Any]:
        """The event as values that JSON has: a task is its id, an error its class and message on one line."""
        return {"type": type(self).__name__} | {field.name: _plain(getattr(self, field.name)) for field in fields(self)}


def _plain(value: Any) -> Any:
    if isinstance(value, Task):
        return value.task_id
    if isinstance(value, BaseException):
        return describe(value)
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value


@dataclass(frozen=True, slots=True)
class BuildStarted(Event):
    """A build was asked for ``tasks``."""

    tasks: tuple[Task, ...]


@dataclass(frozen=True, slots=True)
class TaskStarted(Event):
    """The body of ``task`` is about to be entered. ``reason`` says why it runs."""

    task: Task
    reason: str


@dataclass(frozen=True, slots=True)
class TaskProgress(Event):
    """The body of ``task`` says how far it is: ``fraction`` from 0 to 1, and a message for people."""

    task: Task
    fraction: float
    message: str


@dataclass(frozen=True, slots=True)
class TaskRetry(Event):
    """``attempt`` (counted from 1) of ``task`` has failed with ``error``; the next one is in ``wait`` seconds."""

    task: Task
    attempt: int
    wait: float
    error: BaseException


@dataclass(frozen=True, slots=True)
class TaskFinished(Event):
    """``task`` has its final status. ``error`` is what went wrong, ``duration`` its run time in seconds."""

    task: Task
    status: FinalStatus
    duration: float
    error: BaseException | None


@dataclass(frozen=True, slots=True)
class TaskLog(Event):
    """A body in a worker process has printed a line or logged something, which has come here meanwhile, too.

    ``source`` is ``stdout``, ``stderr`` (``level`` 0), or the logger's name (and ``level`` as ``logging`` counts).
    """

    task: Task
    source: str
    level: int
    message: str


@dataclass(frozen=True, slots=True)
class Abandoned(Event):
    """The body of ``task`` did not stop within ``grace``. It is fenced: nothing of it will be published.

    ``stack`` is where it was seen last, one line a frame, innermost last.
    """

    task: Task
    stack: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LoopBlocked(Event):
    """The event loop was held for ``seconds`` by one step of ``task``, and nothing else could run there meanwhile.

    ``task`` is the one whose body, or whose ``requires()``, ``output()``, ``exists()`` or ``complete()``, held it;
    None: code of the host's own did. ``place`` is where it was seen: ``path:line in function``, the innermost
    line of the user's.
    """

    task: Task | None
    seconds: float
    place: str


@dataclass(frozen=True, slots=True)
class BuildFinished(Event):
    """The build is over. ``counts`` gives the number of tasks for each final status."""

    status: BuildStatus
    counts: Mapping[FinalStatus, int]


@dataclass(frozen=True, slots=True)
class Lagged(Event):
    """A reader was too slow, or came too late, for ``missed`` events: those up to ``seq``, which is the last of them.

    It is made for that one reader and takes no number of its own, so what a reader gets is numbered upwards all the
    same, and ``run.events(since=event.seq)`` goes on after any of it. ``time`` is that of the event that follows.
    """

    missed: int
