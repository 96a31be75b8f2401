"""``SimulatedLoop``: an asyncio loop in which time costs nothing, and the order of things is drawn from a seed.

What is real and what is not:

* ``loop.time()``, ``asyncio.sleep``, timeouts and every other timer are virtual. When nothing is left to do,
  time jumps to the next timer.
* Steps of asyncio tasks that are ready together are taken in an order drawn from the seed, and any of them may
  be held back for a while, as if its task were slow. So are timers due at one moment. Plain callbacks
  (``loop.call_soon``) keep their order among themselves, and no step overtakes one that was there before it:
  asyncio promises it, and transports and ``await asyncio.sleep(0)`` rely on it.
* Threads are real. While one is at work (a sync body, a sync hook, ``asyncio.to_thread``,
  ``loop.run_in_executor``), time stands still and the loop waits for it. A thread that waits for the loop in its
  turn is not at work: a sync generator that has yielded tasks, a sync body that asks an ``async def exists``.
* Sockets, pipes and child processes are real, and time does not wait for them: use a fake in their place.
"""

from __future__ import annotations

import asyncio
import heapq
import os
import random
import selectors
import threading
import traceback
import weakref
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from .. import threads
from ..frames import of_threads

__all__ = ["SimulatedLoop", "Standstill"]

PATIENCE = 60.0
"""Real seconds the loop waits for a thread at work before it gives up."""

GLANCE = 0.5  # real seconds for a thread the loop knows nothing of: it may be about to call in
HELD_BACK = 0.5  # how often the turn ends before everything that was ready has been taken
CUT = 0.01  # seconds the engine's meter leaps when a slice of its work is to end early: more than any slice lasts


class Standstill(AssertionError):
    """Nothing can happen in the simulation any more, and it has not come to its end. The message says who waits."""


class SimulatedLoop(asyncio.SelectorEventLoop):
    """An event loop with virtual time and an order of its own, both the same whenever ``seed`` is.

    ``simulate`` and ``explore`` make one and run a coroutine in it. Whatever runs there finds it with
    ``SimulatedLoop.running()``.

    Raises ``Standstill`` (out of ``run_forever`` and ``run_until_complete``) when nothing is ready, no timer is
    set, no thread is at work and no socket is being watched; also when a thread was at work for ``patience``
    real seconds.
    """

    virtual = True  # its time is not the world's: nobody is asked why it takes so long

    if TYPE_CHECKING:  # asyncio's own: the same on 3.11 to 3.14
        _ready: deque[asyncio.Handle]
        _scheduled: list[asyncio.TimerHandle]
        _selector: selectors.BaseSelector
        _stopping: bool
        _timer_cancelled_count: int

        def _process_events(self, events: list[Any], /) -> None: ...

    def __init__(self, seed: int, *, patience: float = PATIENCE) -> None:
        self._now = 0.0
        super().__init__()
        self.seed = seed
        """What the order of things is drawn from."""
        self.random = random.Random(seed)
        """Chance for the test's own use: latencies, faults. Drawing from it leaves the order as it is."""
        self._order = random.Random(f"order {seed}")
        self._patience = patience
        self._census = _Census(self)
        self._calls: set[asyncio.Future[Any]] = set()  # in an executor, this minute
        self._numbers: weakref.WeakKeyDictionary[asyncio.Task[Any], int] = weakref.WeakKeyDictionary()
        self._born = 0

    @classmethod
    def running(cls) -> SimulatedLoop:
        """The simulated loop that runs here. Raises ``RuntimeError`` if there is none."""
        loop = asyncio.get_running_loop()
        if not isinstance(loop, cls):
            raise RuntimeError("no simulated loop runs here: call simulate(main) or explore(main) around it")
        return loop

    # Clocks ------------------------------------------------------------------------------------------

    def time(self) -> float:
        """Virtual seconds since the loop was made."""
        return self._now

    def clock(self) -> float:
        """What the engine takes the times of bodies with: ``time()``, and never 0, which is "not yet" there."""
        return self._now + 1.0

    def meter(self) -> float:
        """What the engine measures its own work with: now and then, by the seed, a slice of it is over early."""
        return self._now + (CUT if self._order.random() < 0.25 else 0.0)

    # Turns -------------------------------------------------------------------------------------------

    def run_forever(self) -> None:
        """As any loop's. Threads that are lent out meanwhile are waited for before time jumps."""
        with threads.counted_by(self._census):
            super().run_forever()

    def _run_once(self) -> None:
        self._poll(0)
        self._ring()
        while not self._ready and not self._stopping:
            self._advance()
        for _ in range(self._shuffle()):
            handle = self._ready.popleft()
            if not handle.cancelled():
                handle._run()

    def _advance(self) -> None:
        """Nothing is ready: wait for who is at work, or let time jump."""
        if self._census.at_work + len(self._calls) > 0:
            self._poll(self._patience)
            if not self._ready:
                raise Standstill(f"a thread has been at work for {self._patience:g} s of real time: {_threads()}")
        elif self._next_timer():
            self._now = max(self._now, self._scheduled[0].when())
            self._ring()
        elif len(self._selector.get_map()) > 1:  # more than the pipe by which threads wake the loop
            self._poll(None)
        else:
            if threading.active_count() > 1:
                self._poll(GLANCE)
            if not self._ready:
                raise Standstill(self._who_waits())

    def _poll(self, timeout: float | None) -> None:
        self._process_events(self._selector.select(timeout))

    def _next_timer(self) -> bool:
        """Whether a timer is set. Takes the cancelled ones away: those next in turn, and all when they are many."""
        timers = self._scheduled
        if self._timer_cancelled_count > 100 and 2 * self._timer_cancelled_count > len(timers):
            for timer in timers:
                _take_off(timer, timer.cancelled())
            timers[:] = [timer for timer in timers if not timer.cancelled()]
            heapq.heapify(timers)
            self._timer_cancelled_count = 0
        while timers and timers[0].cancelled():
            self._timer_cancelled_count -= 1
            _take_off(heapq.heappop(timers))
        return bool(timers)

    def _ring(self) -> None:
        """What is due is ready, in an order drawn from the seed."""
        due = []
        while self._next_timer() and self._scheduled[0].when() <= self._now:
            due.append(heapq.heappop(self._scheduled))
            _take_off(due[-1])
        self._order.shuffle(due)
        self._ready.extend(due)

    def _shuffle(self) -> int:
        """Put what is ready in an order drawn from the seed; how much of it this turn takes."""
        # Taken out and put back at the same end: other threads may add to the other one meanwhile.
        batch = [self._ready.popleft() for _ in range(len(self._ready))]
        if len(batch) > 1:
            batch = self._drawn(batch)
        self._ready.extendleft(reversed(batch))
        if len(batch) > 1 and self._order.random() < HELD_BACK:
            return self._order.randrange(1, len(batch))
        return len(batch)

    def _drawn(self, batch: list[asyncio.Handle]) -> list[asyncio.Handle]:
        """``batch`` in an order drawn from the seed: callbacks in theirs, each step after those that were before it."""
        callbacks: list[asyncio.Handle] = []
        steps: list[tuple[int, int, asyncio.Handle]] = []
        for handle in batch:
            task = _stepping(handle)
            if task is None:
                callbacks.append(handle)
            else:
                steps.append((self._number(task), len(callbacks), handle))
        # By birth first: a sweep over a set of tasks (asyncio's groups cancel so) readies them in any order.
        steps.sort(key=itemgetter(0))
        after: list[list[asyncio.Handle]] = [[] for _ in range(len(callbacks) + 1)]
        for _, earliest, handle in steps:
            after[self._order.randint(earliest, len(callbacks))].append(handle)
        drawn: list[asyncio.Handle] = []
        for count, group in enumerate(after):
            self._order.shuffle(group)
            drawn += group
            drawn += callbacks[count : count + 1]
        return drawn

    def _number(self, task: asyncio.Task[Any]) -> int:
        number = self._numbers.get(task)
        if number is None:
            number = self._numbers[task] = self._born
            self._born += 1
        return number

    # Threads -----------------------------------------------------------------------------------------

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:  # type: ignore[override]
        """As any loop's; time stands still until the call has returned."""
        future: asyncio.Future[Any] = super().run_in_executor(executor, func, *args)
        self._calls.add(future)
        future.add_done_callback(self._calls.discard)
        return future

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        """As any loop's, without a limit: its threads are waited for."""
        self._census.at_work += 1  # it ends them in a thread of its own
        try:
            await super().shutdown_default_executor()
        finally:
            self._census.at_work -= 1

    def _who_waits(self) -> str:
        waiting = sorted(asyncio.all_tasks(self), key=self._number)
        lines = "".join(f"\n  {task.get_name()}: {_place(task)}" for task in waiting)
        return (
            f"the simulation stands still at {self._now:g} s: nothing is ready, no timer is set and no thread is at "
            f"work; these tasks wait for ever:{lines or ' none'}"
        )


class _Census:
    """The threads at work for one loop (``threads.Counter``)."""

    def __init__(self, loop: SimulatedLoop) -> None:
        self._loop = loop
        self.at_work = 0

    def lent(self, job: Callable[[], object]) -> Callable[[], object]:
        self.at_work += 1

        def counted() -> None:
            try:
                job()
            finally:
                # On the loop, after all that the job has posted there; and it wakes the loop, which may wait for it.
                with suppress(RuntimeError):  # it has been closed: an abandoned body outlives its loop
                    self._loop.call_soon_threadsafe(self.parked)

        return counted

    def parked(self) -> None:
        self.at_work -= 1

    def woken(self) -> None:
        self.at_work += 1


def _take_off(timer: asyncio.TimerHandle, really: bool = True) -> None:
    """The timer is no longer in the heap: asyncio counts the cancelled ones that are."""
    if really:
        timer._scheduled = False  # type: ignore[attr-defined]


def _stepping(handle: asyncio.Handle) -> asyncio.Task[Any] | None:
    """The task whose next step ``handle`` is; None for a plain callback."""
    callback: Any = handle._callback  # type: ignore[attr-defined]
    task = getattr(callback, "__self__", None)
    if not isinstance(task, asyncio.Task):
        return None
    name = getattr(callback, "__name__", "")
    if hasattr(task, name) and not name.startswith("_"):
        return None  # a method somebody else asked for: loop.call_soon(task.cancel)
    return task


def _place(task: asyncio.Task[Any]) -> str:
    """The line a suspended task waits at: the innermost one that is not asyncio's own."""
    place = "in asyncio"
    waiting: Any = task.get_coro()
    while waiting is not None:
        for kind, inner in (("cr", "cr_await"), ("ag", "ag_await"), ("gi", "gi_yieldfrom")):
            frame = getattr(waiting, f"{kind}_frame", None)
            if frame is not None:
                if os.path.dirname(frame.f_code.co_filename) != os.path.dirname(asyncio.__file__):
                    place = f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_qualname}"
                waiting = getattr(waiting, inner)
                break
        else:
            break
    return place


def _threads() -> str:
    """Where every other thread is now."""
    frames = of_threads()
    return "".join(
        f"\n  {thread.name}, now at\n" + "".join(traceback.format_stack(frame)[-3:]).rstrip()
        for thread in threading.enumerate()
        if thread is not threading.current_thread() and (frame := frames.get(thread.ident or 0)) is not None
    )
