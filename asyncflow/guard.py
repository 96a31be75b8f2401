"""Who holds the loop? A heartbeat on it, and a thread that looks where it is when the heartbeat fails to come.

Both are at work while a build is: a timer on the loop, a handful of times per ``LIMIT``; one sampler thread for
the process, which compares two numbers as long as all is well. When a loop has not come round in time, the
sampler reads the stack of its thread again and again, and names whoever was there at every look for ``LIMIT``:

* The *task* is that of the body whose ``asyncio.Task`` is current (or of a task that the body made), or the one
  whose hook the engine has called; None: the host's own code.
* The *place* is the innermost line of the user's: a body that calls ``requests`` is named, not a line of its
  ``socket``. Where no line is the user's, it is one of an installed package.

Nobody is named when nobody is to blame:

* The loop waits for events, or for the interpreter while threads compute: none of its callbacks is on the stack.
* Many short steps made one long turn: no holder is there at every look.
* The time went to the garbage collector, or the process was stopped or starved (the sampler was late, and no
  CPU time went by): the guard's clock stands still meanwhile. C code that computes and never lets go of the
  interpreter makes the sampler late too, but it takes CPU time, and is named.
* A person is at work in a debugger.
"""

from __future__ import annotations

import asyncio
import contextvars
import gc
import logging
import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter, process_time
from types import FrameType
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from .attempt import current
from .frames import OURS, USERS, home, of_threads, place, whose
from .threads import LEAVE, lend

if TYPE_CHECKING:
    from ._task import Task

__all__ = ["LIMIT", "Block", "Member", "leave", "listening", "tell", "watch"]

LIMIT = 0.1
"""Seconds one step may hold a loop; what is said is right to a quarter of it."""
BEATS = 4  # of the heart, per limit; so many looks, too, at a loop that is late
LOOKS = 2  # of the sampler, per limit, when all is well: each takes the interpreter from the loop for a moment
LINGER = 4  # looks without a build before it goes: to start a thread costs as much as ten tasks

_DEBUGGERS = {"bdb", "pydevd", "_pydevd_bundle"}

log = logging.getLogger("asyncflow")


class Block(NamedTuple):
    """One step that held a loop for too long."""

    task: Task | None
    seconds: float
    place: str


class Member(Protocol):
    """Who works on a loop, and wants it guarded: an executor."""

    loop: asyncio.AbstractEventLoop

    def asks_in(self, running: asyncio.Task[Any] | None) -> Task | None:
        """The task whose hook the loop is in; ``running``: its ``asyncio.current_task()``. Any thread."""
        ...

    def blocked(self, task: Task | None, seconds: float, place: str) -> None:
        """The loop was held. Called on it."""


_lock = threading.Lock()  # around what is known of guards, and whether there is a sampler
_guards: dict[asyncio.AbstractEventLoop, _Guard] = {}
_sampling = False
_hurry = threading.Event()  # the sampler looks at once: the limit has changed
_listeners: list[tuple[float, Callable[[Block], object]]] = []
_limit = LIMIT


def watch(member: Member) -> None:
    """Guard the loop of ``member``, which runs here, until ``leave(member)``.

    A loop whose time is not the world's (a simulated one, with an attribute ``virtual`` that is true) is not.
    """
    loop = member.loop
    if getattr(loop, "virtual", False):
        return
    with _lock:
        guard = _guards.get(loop)
        if guard is None:
            guard = _guards[loop] = _Guard(loop)
            loop.call_soon(guard.beat, context=guard.context)
        if member not in guard.members:
            guard.members.append(member)
    if not _sampling:
        _start_sampler()


def leave(member: Member) -> None:
    """The last build of ``member`` has ended.

    Guard and sampler go within a heartbeat, unless a build follows at once: the next one then finds them at work.
    """
    with _lock:
        guard = _guards.get(member.loop)
        if guard is not None and member in guard.members:
            guard.members.remove(member)


def tell(loop: asyncio.AbstractEventLoop) -> None:
    """Tell of the blocks of ``loop`` that are over, now and not at the next heartbeat. On the loop."""
    guard = _guards.get(loop)
    if guard is not None:
        guard.tell()


@contextmanager
def listening(listener: Callable[[Block], object], limit: float) -> Iterator[None]:
    """Meanwhile ``listener`` is told of every block in this process, on the loop it was in.

    The smallest ``limit`` asked for holds for everybody.
    """
    entry = (limit, listener)
    _listeners.append(entry)
    _set_limit()
    try:
        yield
        try:
            tell(asyncio.get_running_loop())
        except RuntimeError:
            pass  # no loop runs here: those that did have come round
    finally:
        _listeners.remove(entry)
        _set_limit()


def _set_limit() -> None:
    global _limit
    _limit = min([LIMIT, *(limit for limit, _ in _listeners)])
    _hurry.set()


class _Hold:
    """One step that has held the loop for longer than the limit."""

    __slots__ = ("place", "since", "task", "turn", "until")

    def __init__(self, task: Task | None, place: str, since: float, turn: int) -> None:
        self.task = task
        self.place = place
        self.since = since
        self.turn = turn
        self.until: float | None = None  # known when somebody else held the loop in the same turn


class _Guard:
    """One loop. ``beat`` and ``tell`` run on it, ``look`` in the sampler; what they share is written by one of them."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.members: list[Member] = []
        # For the heartbeat: none of whoever happened to start it, and one for each loop, since a context that one
        # thread is in cannot be entered by another.
        self.context = contextvars.Context()
        # Written on the loop.
        self.turn = 0
        self.came_round = _now()
        self.thread = 0
        self.depth = 0  # frames below those of a callback
        # Written by the sampler, and emptied on the loop.
        self.found: deque[_Hold] = deque()
        # The sampler's own: of the turn it looked at last, who held it, since when, and when it looked.
        self._turn = -1
        self._holder: FrameType | None = None
        self._task: Task | None = None
        self._since = 0.0
        self._looked = 0.0
        self._hold: _Hold | None = None

    # On the loop -------------------------------------------------------------------------------------

    def beat(self) -> None:
        """The loop has come round."""
        self.tell()
        self.turn += 1
        self.came_round = _now()
        with _lock:
            if not self.members:
                if _guards.get(self.loop) is self:
                    del _guards[self.loop]
                return
        self.thread = threading.get_ident()
        depth = 0
        frame = sys._getframe().f_back
        while frame is not None:
            depth += 1
            frame = frame.f_back
        self.depth = depth
        if not _sampling:  # the loop has been stopped for a while, and runs again
            _start_sampler()
        self.loop.call_later(_limit / BEATS, self.beat, context=self.context)

    def tell(self) -> None:
        """Tell of what was found."""
        while self.found:
            hold = self.found.popleft()
            until = hold.until
            if until is None:
                until = _now() if hold.turn == self.turn else self.came_round
            block = Block(hold.task, until - hold.since, hold.place)
            for member in self.members[:]:
                member.blocked(*block)
            for limit, listener in _listeners[:]:
                if block.seconds >= limit:
                    listener(block)

    # In the sampler ----------------------------------------------------------------------------------

    def look(self) -> bool:
        """See whether the loop comes round, and who holds it if not; True: it is late, look again soon."""
        turn, came_round = self.turn, self.came_round
        if turn != self._turn:
            self._turn, self._looked = turn, came_round
            self._holder = self._task = self._hold = None
        now = _now()
        if not turn or now - came_round < _limit / BEATS:
            return False
        frames = self._frames()
        holder = frames[-1] if frames else None  # of a task: its outermost, one and the same for each of its steps
        task = self._whose() if frames else None
        if holder is not self._holder or task is not self._task:
            if self._hold is not None:
                self._hold.until = self._looked
            self._holder, self._task, self._hold, self._since = holder, task, None, self._looked
        self._looked = now
        if self._hold is None and now - self._since >= _limit and self.turn == turn:
            self._name(frames, now)
        return True

    def _name(self, frames: list[FrameType], now: float) -> None:
        where = _place(frames, self._task)
        if where is not None:
            self._hold = _Hold(self._task, where, self._since, self._turn)
            self.found.append(self._hold)
            # The user's repr() is called in there, where what it raises does no harm.
            log.warning(
                f"{'%s' if self._task is None else '%r'} has held the event loop for %.2f s so far, "
                "and nothing else can run there: %s",
                *("code outside of any task" if self._task is None else self._task, now - self._since, where),
            )
            _ran()  # a handler may have waited, for the very loop: that was no stop of the process

    def _frames(self) -> list[FrameType]:
        """Where the callback is that the loop runs now, innermost first; nowhere if the loop runs none."""
        frames = []
        frame = of_threads().get(self.thread)
        while frame is not None:
            frames.append(frame)
            frame = frame.f_back
        return frames[: len(frames) - self.depth] if len(frames) > self.depth else []

    def _whose(self) -> Task | None:
        """The task on whose account the loop is at work."""
        running = asyncio.current_task(self.loop)
        for member in self.members[:]:
            task = member.asks_in(running)
            if task is not None:
                return task
        attempt = None if running is None else _context_of(running).get(current)
        # One of another loop's: a sync body that runs a loop in its thread.
        return attempt.task if attempt is not None and attempt.engine.loop is self.loop else None


def _context_of(task: asyncio.Task[Any]) -> contextvars.Context:
    if sys.version_info >= (3, 12):
        return task.get_context()
    # 3.11 does not say; the context of a task stands before those of its callbacks.
    found = (thing for thing in gc.get_referents(task) if isinstance(thing, contextvars.Context))
    return next(found, contextvars.Context())


def _place(frames: list[FrameType], task: Task | None) -> str | None:
    """The innermost frame of the user's, else of an installed package; None if there is neither, or a debugger."""
    root = None if task is None else home(type(task).__module__)
    found: FrameType | None = None
    for frame in frames:
        if str(frame.f_globals.get("__name__")).partition(".")[0] in _DEBUGGERS:
            return None
        owner = whose(frame.f_code.co_filename, root)
        if owner == USERS:
            return place(frame)
        if owner != OURS and found is None:
            found = frame
    return None if found is None else place(found)


# The clock, and the sampler ------------------------------------------------------------------------------

_collected = 0.0  # seconds the garbage collector has had
_collecting_since: float | None = None
_stopped = 0.0  # seconds in which the process did not get to run
_last_ran = 0.0, 0.0, 0.0  # the sampler: wall-clock, the process' CPU time, ``_collected``


def _now() -> float:
    """Seconds on a clock that stands still while the process is stopped, or collects garbage."""
    since = _collecting_since  # a finalizer may let the sampler in
    return (perf_counter() if since is None else since) - _collected - _stopped


def _collecting(phase: str, _: dict[str, int]) -> None:
    global _collected, _collecting_since
    if phase == "start":
        _collecting_since = perf_counter()
    elif _collecting_since is not None:
        _collected += perf_counter() - _collecting_since
        _collecting_since = None


def _start_sampler() -> None:
    global _sampling
    with _lock:
        if _sampling:
            return
        _sampling = True
    gc.callbacks.append(_collecting)  # here, since the thread may take its time to start
    _ran()
    try:
        lend(_sample)
    except RuntimeError:  # no thread to be had: a build does without a guard
        gc.callbacks.remove(_collecting)
        _sampling = False


def _sample() -> object:
    global _collecting_since
    idle = 0
    try:
        _runs_again(0.0)
        while (guards := _at_work(stay=idle < LINGER)) is not None:
            idle = 0 if guards else idle + 1
            late = [guard.look() for guard in guards]
            tick = _limit / (BEATS if any(late) else LOOKS)
            if _hurry.wait(tick):
                _hurry.clear()
            _runs_again(tick)
    except BaseException:
        log.exception("the guard of the event loops has failed")
    finally:
        gc.callbacks.remove(_collecting)
        _collecting_since = None  # a finalizer may have let us in, and its collection ends unheard
    return LEAVE


def _ran() -> None:
    global _last_ran
    _last_ran = perf_counter(), process_time(), _collected


def _runs_again(tick: float) -> None:
    """The sampler runs, and wanted to ``tick`` seconds after ``_last_ran``: what came between is not the loop's.

    Every moment lies between two calls: a stop may fall into a look, or before the thread has begun.
    """
    global _stopped
    before = _last_ran
    _ran()
    wall, cpu, collected = (now - then for now, then in zip(_last_ran, before, strict=True))
    late = wall - tick
    if late > _limit / 2:  # less is how a busy machine wakes a thread, and says nothing of the others
        _stopped += max(0.0, late - max(cpu, collected))


def _at_work(*, stay: bool) -> list[_Guard] | None:
    """The guards of loops that run and have a build. None: there is none, nor is the sampler to ``stay`` for one."""
    global _sampling
    with _lock:
        for loop, guard in list(_guards.items()):
            if loop.is_closed() or not (guard.members or loop.is_running()):
                del _guards[loop]
        found = [guard for loop, guard in _guards.items() if guard.members and loop.is_running()]
        _sampling = bool(found) or stay
        return found if _sampling else None


def _forked() -> None:
    # The child has no sampler and no loop that runs, and the locks may have been held by a thread it has not got.
    global _lock, _hurry, _sampling, _collecting_since
    _lock = threading.Lock()
    _hurry = threading.Event()
    _sampling = False
    _collecting_since = None
    _guards.clear()
    if _collecting in gc.callbacks:
        gc.callbacks.remove(_collecting)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
