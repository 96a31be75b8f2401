"""One attempt at running a task, and the fence around what it may publish.

A write handle captures the attempt it was opened in. Publishing moves the attempt from RUNNING to PUBLISHING
for a moment; a cancel or a timeout moves it to FENCED, after a publish in flight if there is one. From then
on nothing the attempt still holds can publish, in whatever thread it lives on.

Code that runs inside a body finds its attempt through one context variable, ``current``.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Protocol

from .errors import TaskCancelled

if TYPE_CHECKING:
    from ._task import Task

__all__ = ["Attempt", "Engine", "current", "inside"]


class Engine(Protocol):
    """What an attempt may ask of the executor that runs it."""

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """That on which a body may ask for tasks; None: that of a sync body in another process."""

    async def request(self, attempt: Attempt, structure: Any) -> Any:
        """Suspend the body on the tasks in ``structure`` and give their values or outputs in its shape."""

    async def ask(self, attempt: Attempt, structure: Any) -> tuple[Any, Any]:
        """As ``request``, without a verdict: the settled demand, and ``structure`` ready to be read."""
        ...

    async def exist(self, attempt: Attempt, targets: Sequence[Any]) -> list[bool | BaseException]:
        """What is known of ``targets``, outputs of the body whose class answers in bulk: one answer for each."""
        ...

    def require(self, attempt: Attempt, structure: Any) -> Any:
        """As ``request``, for a sync body in its own thread."""

    def inputs(self, attempt: Attempt) -> Any:
        """What ``input()`` gives: the outputs or values of the task's requirements, in their shape."""

    def progress(self, attempt: Attempt, fraction: float, message: str) -> None:
        """Tell the listeners how far the body is."""

    def creates(self, attempt: Attempt, key: str) -> bool:
        """Whether the target called ``key`` is the body's one output, and was found missing."""
        ...

    def forced(self, attempt: Attempt) -> bool:
        """Whether the body is run although its output may be there."""
        ...

    def awaits(self, attempt: Attempt, other: Attempt) -> bool:
        """Whether the body is suspended on what cannot end before the body of ``other``. On the loop."""
        ...


_fence = threading.Lock()  # held for a few instructions, by every attempt of the process

RUNNING, FENCED = 0, 1


class Attempt:
    """One run of one task's body."""

    __slots__ = (
        *("cancelled", "engine", "handle", "looking", "lost", "node", "progress", "published", "publishing", "state"),
        *("task", "time_left", "timed_out", "timer", "together"),
    )

    def __init__(self, task: Task, engine: Engine, node: Any) -> None:
        self.task = task
        self.engine = engine
        self.node = node
        self.handle: Any = None  # the runner's own: an asyncio.Task, a thread's inbox
        self.state = RUNNING
        self.publishing = 0  # publishes in flight; PUBLISHING is RUNNING with one or more of them
        self.together = 0  # groups of publishes in flight, which are begun as one
        self.published: set[str | None] | None = None  # keys made visible by this attempt's own handles
        self.lost: set[str] | None = None  # keys that somebody else has made visible first
        self.looking = False  # the body has ended well: what is left is to look for its outputs
        self.cancelled = False  # the engine has asked the body to stop
        self.progress: tuple[float, str] | None = None  # what the body has told last
        self.timed_out = False  # because it was at work too long
        self.time_left = 0.0  # seconds it may still be at work, if there is a limit
        self.timer: asyncio.TimerHandle | None = None  # ends that, while it is at work

    def begin_publish(self) -> None:
        """RUNNING -> PUBLISHING. Raises ``TaskCancelled`` if the attempt has been fenced."""
        with _fence:
            if self.state == FENCED and not self.together:
                raise TaskCancelled(self.task)
            self.publishing += 1

    def begin_together(self) -> None:
        """Several publishes, one after the other: if the first may begin, the others may. Raises ``TaskCancelled``."""
        self.begin_publish()
        self.together += 1

    def end_together(self) -> None:
        """The last of them has ended."""
        self.together -= 1
        with _fence:
            self.publishing -= 1

    def end_publish(self, key: str | None, *, visible: bool) -> None:
        """PUBLISHING -> RUNNING (or FENCED, if that was asked for meanwhile)."""
        with _fence:
            self.publishing -= 1
            if visible:
                if self.published is None:
                    self.published = {key}
                else:
                    self.published.add(key)

    def publish_at_once(self, key: str, step: Callable[..., object], *args: Any) -> None:
        """The whole of a publish that is one short ``step(*args)``. Raises ``TaskCancelled`` as ``begin_publish``."""
        with _fence:
            if self.state == FENCED:
                raise TaskCancelled(self.task)
            step(*args)
            if self.published is None:
                self.published = {key}
            else:
                self.published.add(key)

    def creates(self, key: str) -> bool:
        """Whether the target called ``key`` is only to be created: what somebody else makes meanwhile stands.

        So it is where it was found missing; not where it is forced, not for one output of several (the others may say
        something else), and not once this attempt has published it itself.
        """
        if self.published is not None and key in self.published:
            return False
        return self.engine.creates(self, key)

    def lose(self, key: str) -> None:
        """Somebody else has made the target called ``key`` visible first, and what this attempt has made is dropped."""
        if self.lost is None:
            self.lost = set()
        self.lost.add(key)

    def fence(self) -> None:
        """From now on nothing of this attempt is published; a publish in flight comes to its end first."""
        with _fence:
            self.state = FENCED

    @property
    def fenced(self) -> bool:
        """Whether this attempt may no longer publish."""
        return self.state == FENCED


preparing = False
"""A worker process imports the program it was started by, which must not build anything then."""

current: ContextVar[Attempt | None] = ContextVar("asyncflow_attempt", default=None)
"""The attempt whose body the running code belongs to."""


def inside() -> Attempt | None:
    """The attempt the caller may ask for more tasks: live, and of the loop that runs here."""
    attempt = current.get()
    if attempt is None or attempt.node.attempt is not attempt:
        return None  # no build, or one that has ended
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        return None
    return attempt if attempt.engine.loop is loop else None


def _forked() -> None:
    global _fence
    _fence = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
