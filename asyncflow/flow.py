"""``Flow``: the builds of one service. What they share, the runs among them, and how they end with it."""

from __future__ import annotations

import asyncio
import sys
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeVar, Unpack

from ._build import Waits, await_on, tasks_in
from ._run import Run, begin, check_place
from ._task import Task, wait_for
from .attempt import inside
from .errors import ConfigError, FlowClosed
from .graph import Budget
from .opening import CONCURRENCY, GRACE, PROCESSES, THREADS, RunOptions, check_numbers, open_account, open_budget
from .selection import Force
from .snapshot import RunStatus

__all__ = ["Flow"]

T = TypeVar("T")

KEEP = 100
CLOSED = "the flow was closed"
NOTHING_MORE = "this flow has been closed: nothing can be started in it any more"
LOOK = 0.01  # seconds between two looks at work in other loops, when the flow is closed
STATUSES = ("running", "succeeded", "failed", "incomplete", "cancelled")


class _Work(NamedTuple):
    """Something of the flow that has not ended: a run, or a call of ``run``."""

    loop: asyncio.AbstractEventLoop
    stop: Callable[[str], object]


class Flow:
    """What all builds of a service share, in one object made with it::

        async with Flow(concurrency=50, resources={"db": 4}, rate={"api": "10/s"}) as flow:
            report = await flow.run(Report(date=today))

    Two that want the same task at the same time share one run of it, and whoever leaves takes nothing away from the
    other. A flow may be used from any thread and in any number of event loops; ``concurrency``, ``threads``,
    ``processes``, ``resources`` and ``rate`` hold in each loop for all its builds together. It touches no signal
    handler and no policy of the process, and needs no ``async with``: then ``await flow.close()`` ends it.

    Args:
        concurrency: how many bodies may be at work at once; one that waits for other tasks does not count.
        threads: how many of them may be sync bodies.
        processes: how many of them may be in worker processes, which are kept until the flow is closed.
        resources: how many units there are of what tasks share, such as ``{"db": 4}``; of one that is not named, 1.
        rate: how many starts in how much time, such as ``{"api": "10/s"}``.
        retries: how many attempts may follow a failed one, for tasks that do not say so themselves.
        grace: seconds that bodies have for stopping when their build is cancelled, or the flow is closed.
        drain: seconds that ``close`` lets what is at work end by itself, before it is cancelled.
        keep: how many ended runs ``runs`` and ``get`` know; those that last are never forgotten.

    Raises ``ConfigError`` for an option that is out of range.
    """

    def __init__(
        self,
        *,
        concurrency: int = CONCURRENCY,
        threads: int = THREADS,
        processes: int = PROCESSES,
        resources: Mapping[str, int] | None = None,
        rate: Mapping[str, str] | None = None,
        retries: int = 0,
        grace: float = GRACE,
        drain: float = 0.0,
        keep: int = KEEP,
    ) -> None:
        check_numbers("Flow", retries=retries, grace=grace, drain=drain)
        if not isinstance(keep, int) or isinstance(keep, bool) or keep < 0:
            raise ConfigError(f"Flow(keep={keep!r}): expected a whole number of at least 0")
        self._limits: dict[str, Any] = {
            "concurrency": concurrency,
            "threads": threads,
            "processes": processes,
            "resources": dict(resources or {}) if isinstance(resources, Mapping) or not resources else resources,
            "rate": dict(rate or {}) if isinstance(rate, Mapping) or not rate else rate,
        }
        open_budget("Flow", **self._limits)
        self._retries = retries
        self._grace = grace
        self._drain = drain
        self._keep = keep
        self._lock = threading.Lock()  # around what several threads may change
        self._budgets: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Budget] = weakref.WeakKeyDictionary()
        self._runs: dict[str, Run] = {}  # in the order they were started
        self._over: deque[str] = deque()  # those of them that have ended, in the order they did
        self._at_work: dict[object, _Work] = {}
        self._ended: set[Callable[[], object]] = set()  # who wants to hear that something has ended
        self._closed = False

    # Doors -------------------------------------------------------------------------------------------

    async def run(self, task: Waits[T]) -> T:
        """The output or value of ``task``, made now if it is not there, as ``await task`` gives it.

        Cancelling the call takes back its wish; what others want too goes on. In the body of a task it is the same
        as ``await task``.

        Raises ``TaskFailed``, ``UpstreamFailed``, ``MissingInput``, ``PlanError``; ``TaskCancelled`` if the flow is
        closed meanwhile; ``FlowClosed`` if it has been; ``TypeError`` for what is not a task.
        """
        roots = tasks_in(task)
        if len(roots) != 1 or roots[0] is not task:
            raise TypeError(f"flow.run() takes one task, not {task!r}; wait for several with asyncio.gather")
        outcome: T
        if inside() is not None:
            outcome = await wait_for(task)
            return outcome
        loop = asyncio.get_running_loop()
        account = open_account("flow.run", **self._account_options(loop))
        with self._working(account, _Work(loop, account.stop)):
            outcome = await await_on(account, task)
        return outcome

    def start(
        self,
        tasks: Task | Iterable[Task],
        *,
        tags: Mapping[str, str] | None = None,
        force: Force = False,
        **options: Unpack[RunOptions],
    ) -> Run:
        """Start a build and return at once; its ``Run`` outlives whoever started it.

        ``tags`` are texts by name that go with the run; the other options are those of ``build``.

        Raises ``FlowClosed`` if it has been closed, ``RuntimeError`` without a running loop and in the body of a task,
        ``ConfigError`` for an option that is out of range, ``TypeError`` for what is not a task.
        """
        check_place("flow.start()")
        known = RunOptions.__annotations__
        for name in options:
            if name not in known:
                raise TypeError(f"flow.start() has no option {name!r}: there are {', '.join(known)}")
        loop = asyncio.get_running_loop()
        roots = tasks_in(tasks)
        given: dict[str, Any] = {**self._account_options(loop), **options}
        run = begin("flow.start", open_account("flow.start", **given), roots, force, tags)
        with self._lock:
            closed = self._closed
            if not closed:
                self._runs[run.run_id] = run
                self._at_work[run] = _Work(loop, run.cancel)
        if closed:  # by another thread, in this moment
            run.cancel(CLOSED)
            raise FlowClosed(NOTHING_MORE)
        run.add_done_callback(self._run_ended)
        return run

    def runs(self, status: RunStatus | None = None) -> list[Run]:
        """The runs that were started, the last first: all that last, and the last of those that have ended.

        Raises ``ConfigError`` for a ``status`` that there is not.
        """
        if status is not None and status not in STATUSES:
            raise ConfigError(f"flow.runs(status={status!r}): expected one of {', '.join(STATUSES)}")
        with self._lock:
            runs = list(self._runs.values())
        return [run for run in reversed(runs) if status is None or run.status == status]

    def get(self, run_id: str) -> Run | None:
        """The run with this number, None if there is none or it has been forgotten."""
        return self._runs.get(run_id)

    def _account_options(self, loop: asyncio.AbstractEventLoop) -> dict[str, Any]:
        with self._lock:
            if self._closed:
                raise FlowClosed(NOTHING_MORE)
            budget = self._budgets.get(loop)
            if budget is None:
                for other in [other for other in self._budgets if other.is_closed()]:
                    _send_workers_home(self._budgets.pop(other))
                budget = self._budgets[loop] = open_budget("Flow", **self._limits)
                budget.shared = True
                budget.table = {}
        return {"budget": budget, "retries": self._retries, "grace": self._grace}

    # What is at work ---------------------------------------------------------------------------------

    @contextmanager
    def _working(self, key: object, work: _Work) -> Iterator[None]:
        with self._lock:
            if self._closed:
                raise FlowClosed(NOTHING_MORE)
            self._at_work[key] = work
        try:
            yield
        finally:
            self._has_ended(key)

    def _run_ended(self, run: Run) -> None:
        with self._lock:
            self._over.append(run.run_id)
            while len(self._over) > self._keep:
                self._runs.pop(self._over.popleft(), None)
        self._has_ended(run)

    def _has_ended(self, key: object) -> None:
        with self._lock:
            self._at_work.pop(key, None)
            listeners = list(self._ended)
        for listener in listeners:
            listener()

    def _alive(self) -> list[_Work]:
        with self._lock:
            for key, work in list(self._at_work.items()):
                if work.loop.is_closed():  # in the middle of it
                    del self._at_work[key]
            return list(self._at_work.values())

    # Its end -----------------------------------------------------------------------------------------

    async def close(self, *, drain: float | None = None) -> None:
        """End the flow: what is at work has ``drain`` seconds, then it is cancelled and has its grace.

        When it returns nothing of the flow is alive (what did not stop in time has been abandoned: it can publish
        nothing any more). From the beginning nothing new can be started. A second call waits for the same.

        Args:
            drain: instead of the flow's own.
        """
        if drain is not None:
            check_numbers("flow.close", drain=drain)
        with self._lock:
            self._closed = True
        try:
            await self._wait(self._drain if drain is None else drain)
        finally:
            for work in self._alive():
                with suppress(RuntimeError):  # its loop was closed just now
                    if work.loop is asyncio.get_running_loop():
                        work.stop(CLOSED)
                    else:
                        work.loop.call_soon_threadsafe(work.stop, CLOSED)
        try:
            # Each build bounds its own end. A loop that has been stopped for good may never say so.
            await self._wait(None, abroad=2 * self._grace + 1.0)
        finally:
            for budget in list(self._budgets.values()):
                _send_workers_home(budget)

    async def _wait(self, seconds: float | None, *, abroad: float | None = None) -> None:
        """Wait until nothing is at work any more, or for ``seconds``; for what is in other loops, ``abroad`` ones."""
        loop = asyncio.get_running_loop()
        begun = loop.time()
        changed = asyncio.Event()

        def tell() -> None:
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(changed.set)

        self._ended.add(tell)
        try:
            while alive := self._alive():
                waited = loop.time() - begun
                if seconds is not None and waited >= seconds:
                    return
                if abroad is not None and waited >= abroad and all(work.loop is not loop for work in alive):
                    return
                left = LOOK * 10 if seconds is None else seconds - waited
                changed.clear()
                if self._alive():
                    with suppress(TimeoutError):
                        async with asyncio.timeout(left):
                            await changed.wait()
        finally:
            self._ended.discard(tell)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        state = "closed" if self._closed else "open"
        return f"<Flow {state}, {len(self._at_work)} at work>"


def _send_workers_home(budget: Budget) -> None:
    if workers := sys.modules.get("asyncflow.runners.workers"):  # else no body has ever been in a process
        workers.release(budget)
