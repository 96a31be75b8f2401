"""``start()``: a build that goes on by itself, to be watched, awaited and cancelled through its ``Run``.

This module owns the asyncio task of every run. Nobody needs to wait for a run, and an event loop knows its tasks only
weakly, so they are held here, until they end.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import Callable, Coroutine, Generator, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Unpack

from ._build import make, tasks_in
from ._task import Task
from .account import Account
from .attempt import inside
from .errors import ConfigError
from .feed import KEPT, EventReader, Feed
from .opening import AccountOptions, open_account
from .parameters.frozen import FrozenDict
from .result import BuildResult
from .selection import Force
from .snapshot import RunSnapshot, RunStatus, take

__all__ = ["Run", "RunStatus", "start"]

CANCELLED = "cancelled by run.cancel()"

log = logging.getLogger("asyncflow")


class Run:
    """A build that was started with ``start()``. ``await run`` gives its ``BuildResult``.

    Any number of callers may await it; what ``build()`` raises, a ``PlanError`` say, it raises for each of them.
    Cancelling one of them does not cancel the run: a web request that goes away takes nothing with it. ``cancel()``
    does, and so does the end of its event loop, which then raises ``CancelledError`` for whoever still waits.

    It belongs to the event loop it was started in: elsewhere it can be awaited and read when it is done, and cancelled
    at any time.
    """

    def __init__(
        self,
        account: Account,
        tasks: Sequence[Task],
        tags: Mapping[str, str],
        work: Coroutine[Any, Any, BuildResult],
    ) -> None:
        self.tasks: tuple[Task, ...] = tuple(tasks)
        """What it was started for."""
        self.tags: Mapping[str, str] = FrozenDict(tags)
        """What its starter has written on it."""
        self._account = account
        self._loop = asyncio.get_running_loop()
        self._feed = Feed(self._loop)
        account.listeners.append(self._feed.add)
        self._waiting = 0  # callers that await it
        self._told = False  # its error has come to somebody, or into the log
        # By its callback it holds this run, which so lives until it ends. Not loop.create_task: a task factory of the
        # host's is for the host's.
        self._task = asyncio.Task(work, loop=self._loop, name=f"asyncflow run {account.run_id}")
        self._task.add_done_callback(self._ended)

    @property
    def run_id(self) -> str:
        """Its number: that of its events and of its result."""
        return self._account.run_id

    @property
    def status(self) -> RunStatus:
        """``running``, then how it ended: ``succeeded``, ``failed``, ``incomplete`` or ``cancelled``."""
        return self._account.status or ("cancelled" if self._loop.is_closed() else "running")

    def snapshot(self) -> RunSnapshot:
        """What it looks like now: how many tasks have which status, what is at work and how far, what has failed.

        It goes through all tasks of the run that are known by now.
        """
        return take(self._account, self.tasks, self.tags, self._error())

    @property
    def done(self) -> bool:
        """Whether it has ended: ``await run`` answers at once then. So has one whose loop was closed."""
        return self._task.done() or self._loop.is_closed()

    def add_done_callback(self, call: Callable[[Run], object]) -> None:
        """``call(run)`` is made on its loop when it has ended, soon if it has."""
        self._task.add_done_callback(lambda _: call(self), context=contextvars.Context())

    def cancel(self, why: str = CANCELLED) -> None:
        """Stop it, from any thread. ``await run`` gives a result with the status ``cancelled`` then, and says ``why``.

        It returns at once; when ``await run`` returns, nothing that only this run wanted is alive. Nothing happens if
        everything has ended already.
        """
        if asyncio._get_running_loop() is self._loop:
            self._account.stop(why)
        else:
            with suppress(RuntimeError):  # the loop has been closed, and the run with it
                self._loop.call_soon_threadsafe(self._account.stop, why)

    def events(self, *, since: int = 0, buffer: int = KEPT) -> EventReader:
        """Its events, for ``async for``: from the first one on, as far as they are kept, up to ``BuildFinished``.

        Args:
            since: the number of the last event that is known already: the first one read is ``since + 1``. It is what a
                browser sends as ``Last-Event-ID``.
            buffer: how many events the reader may be behind. What is further back is lost for it, and one ``Lagged``
                says how much that was. A run keeps its last 1,000 events, or as many as a reader of it has asked for.

        Raises ``ConfigError`` for a ``since`` that this run has not come to, and for what is no whole number.
        """
        return EventReader(self._feed, since, buffer)

    def __await__(self) -> Generator[Any, Any, BuildResult]:
        return self._outcome().__await__()

    async def _outcome(self) -> BuildResult:
        if not self._task.done():
            self._refuse_elsewhere()
            self._waiting += 1
            try:
                await asyncio.wait([self._task])  # unlike `await task`, it leaves the task alone when it is cancelled
            except asyncio.CancelledError:
                self._waiting -= 1
                if self._task.done():
                    self._report()
                raise
            self._waiting -= 1
        self._told = True
        return self._task.result()

    def _refuse_elsewhere(self) -> None:
        if asyncio._get_running_loop() is not self._loop:
            raise RuntimeError(f"run {self.run_id} can be awaited, while it lasts, only in the loop it was started in")
        attempt = inside()
        if attempt is not None:  # it might want the very task that waits for it, which nobody would notice
            raise RuntimeError(
                f"the body of {attempt.task!r} cannot wait for a run: use `await build(...)`, which shares its work"
            )

    def _ended(self, task: asyncio.Task[BuildResult]) -> None:
        self._account.finished_build("cancelled")  # if it was cancelled before its first step, nobody has said so yet
        self._report()

    def _report(self) -> None:
        """Log an error that has come to nobody. Asking for it keeps asyncio from saying "never retrieved"."""
        error = self._error()
        if error is not None and not self._waiting and not self._told:
            self._told = True
            log.error("build %s, which nobody awaits, could not be made", self.run_id, exc_info=error)

    def _error(self) -> BaseException | None:
        """What ``await run`` raises, when it has ended."""
        return self._task.exception() if self._task.done() and not self._task.cancelled() else None

    def __repr__(self) -> str:
        return f"<Run {self.run_id} {self.status}>"


def start(
    tasks: Task | Iterable[Task],
    *,
    force: Force = False,
    tags: Mapping[str, str] | None = None,
    **options: Unpack[AccountOptions],
) -> Run:
    """Start a build and return at once: its ``Run`` can be awaited, watched and cancelled.

    The arguments are those of ``build``, and ``tags``, texts by name that go with the run. It goes on when whoever
    started it has gone, until its event loop ends.

    Raises ``RuntimeError`` where no event loop is running and in the body of a task, ``ConfigError`` for an option
    that is out of range, ``TypeError`` for what is not a task; ``await run`` raises what shows itself later.
    """
    check_place("asyncflow.start()")
    roots = tasks_in(tasks)
    return begin("start", open_account("start", **options), roots, force, tags)


def check_place(door: str) -> None:
    """Raises ``RuntimeError`` where no event loop is running, and in the body of a task."""
    if asyncio._get_running_loop() is None:
        raise RuntimeError(f"{door} needs a running event loop: without one, use `asyncflow.run(...)`")
    attempt = inside()
    if attempt is not None:
        raise RuntimeError(
            f"{door} was called in the body of {attempt.task!r}, which takes all it has asked for with it "
            "when it ends: use `await build(...)`"
        )


def begin(place: str, account: Account, roots: list[Task], force: Force, tags: Mapping[str, str] | None) -> Run:
    """The run of ``roots`` on ``account``, begun and held. Raises ``ConfigError`` for what are no tags."""
    tags = {} if tags is None else tags
    if not isinstance(tags, Mapping) or not all(isinstance(text, str) for pair in tags.items() for text in pair):
        raise ConfigError(f'{place}(tags={tags!r}): expected texts by name, such as {{"user": "42"}}')
    run = Run(account, roots, tags, make(account, roots, force))
    _hold(run._loop, run._task)
    return run


_held: dict[asyncio.AbstractEventLoop, set[asyncio.Task[Any]]] = {}


def _hold(loop: asyncio.AbstractEventLoop, task: asyncio.Task[Any]) -> None:
    """Hold ``task`` until it ends; what a closed loop has left behind is let go of."""
    held = _held.get(loop)
    if held is None:
        for other in list(_held):
            if other.is_closed():
                _held.pop(other, None)
        held = _held[loop] = set()
    held.add(task)

    def release(task: asyncio.Task[Any]) -> None:
        held.discard(task)
        if not held:
            _held.pop(loop, None)

    task.add_done_callback(release)
