"""The hands: carry out what the scheduler says, on one event loop, and tell it what came of it.

There is one executor for each loop with a build in it. It wakes when a fact arrives, never polls, and works
at most ``SLICE`` seconds in one turn of the loop. Bodies are run by the runners, one for each lane.
"""

from __future__ import annotations

import asyncio
import contextvars
import weakref
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from . import guard, threads
from ._definition import LOOP, PROCESS
from ._options import wrong_option
from ._task import Task
from .account import Account
from .attempt import Attempt, current
from .clock import clock, meter
from .completion import confirm, confirmed
from .cycles import above
from .errors import IncompleteOutput, TaskCancelled, TaskFailed
from .graph import CANCELLING, FORCED, RESTING, RETRYING, RUNNING, SUSPENDED, UNCONFIRMED, Build, Demand, Node
from .hub import Hub, hub
from .outcomes import answer, settled
from .planner import Planner
from .runners import Runner
from .runners.loop import LoopRunner
from .runners.thread import ThreadRunner
from .scheduler import Scheduler
from .stopping import Stopping
from .target import Target
from .timers import Timers
from .tree import leaves, settle

__all__ = ["Executor"]

SLICE = 0.005  # seconds
LOOK_ROUND = 0.1  # seconds between two looks at those of other loops that somebody here waits for
STARTS = 64  # bodies started in one turn of the loop: their first steps come on top, all in the next turn

_executors: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Executor] = weakref.WeakKeyDictionary()


class Executor:
    """Runs the builds of one event loop."""

    @classmethod
    def current(cls) -> Executor:
        """The executor of the running loop; a new one if no build is running there."""
        loop = asyncio.get_running_loop()
        executor = _executors.get(loop)
        if executor is None:
            _bury_the_dead()
            executor = _executors[loop] = cls(loop, hub)
        return executor

    def __init__(self, loop: asyncio.AbstractEventLoop, hub: Hub) -> None:
        self.loop = loop
        self._clock = clock(loop)
        self._meter = meter(loop)
        self._scheduler = Scheduler(hub, self._post, loop.is_closed)
        self._planner = Planner(loop, self._scheduler, self._wake)
        self._timers = Timers(loop, self._scheduler, self._wake, self._time_out)
        self._threads = ThreadRunner(self)
        self._runners: list[Runner | None] = [LoopRunner(self), self._threads, None]  # by lane
        self._verifying: Iterator[None] | None = None
        self._awake = False
        self._watch: asyncio.TimerHandle | None = None
        self._context = contextvars.Context()
        self._stopping = Stopping(loop, self._stop, self._give_up)
        self._confirming: dict[Attempt, asyncio.Task[bool]] = {}
        self._loose: set[asyncio.Task[Any]] = set()  # held strongly: the loop only knows its tasks weakly

    # Doors -------------------------------------------------------------------------------------------

    def open(self, account: Account, structure: Any, *, dry: bool = False) -> Demand:
        """Begin a build of the tasks in ``structure``. ``account.settled`` is called when it has ended."""
        build = Build(account.budget, dry=dry)
        build.owner = account
        build.retries, build.fail_fast = account.retries, account.fail_fast
        if account.particular:  # it shares flights with others, and no plans
            build.table = {}
        build.listening = bool(account.listeners)
        demand = self._scheduler.open(build)
        guard.watch(self)
        try:
            self._name(demand, structure)
        except BaseException:  # a task whose __hash__ or __eq__ raises
            self.close(demand)
            raise
        return demand

    def close(self, demand: Demand) -> list[asyncio.Future[Any]]:
        """Drop a build's demand; what has to end before nothing that only it wanted is alive (see ``gone``)."""
        account: Account = demand.build.owner
        if self.loop.is_closed():  # in the middle of the build
            _bury_the_dead()
            return []
        guard.tell(self.loop)
        self._scheduler.close(demand)
        stopping: list[asyncio.Future[Any]] = list(self._planner.stop())
        self._cancel()
        self._tell()
        stopping += account.stopping
        if self._scheduler.builds:
            self._wake()  # what it was planning, or paid for, and others want, is theirs now
        if not stopping:
            self._rest()
        return stopping

    async def gone(self, demand: Demand, stopping: list[asyncio.Future[Any]]) -> None:
        """Wait for what ``close`` gave, and for what the bodies among it had asked for in their turn.

        It does not last: what has not ended after ``grace`` is abandoned.
        """
        account: Account = demand.build.owner
        deadline = self.loop.time()
        # Twice: a body that had to be given up lets go of its dynamic dependencies only then.
        for _ in range(2):
            deadline += account.grace
            while stopping and (left := deadline - self.loop.time()) > 0:
                await asyncio.wait(stopping, timeout=left)
                self._cancel()
                self._tell()
                # A body that has stopped lets go of what it asked for: other bodies, and questions to hooks.
                more = {*stopping, *self._planner.stop(), *account.stopping}
                stopping = [future for future in more if not future.done()]
            stopping = self._give_up_hooks(account, stopping)
        self._rest()

    def _give_up_hooks(self, account: Account, stopping: list[asyncio.Future[Any]]) -> list[asyncio.Future[Any]]:
        """Name the hooks among ``stopping`` that did not stop; the bodies among it, which name themselves."""
        bodies = []
        for future in stopping:
            asked_about = self._planner.give_up(future)
            if not asked_about:
                bodies.append(future)
            for task, place in asked_about:
                account.abandoned(task, [place])
        return bodies

    def _rest(self) -> None:
        # While a body is being stopped for a build that waits for it, the next build has to know of it.
        if not self._scheduler.builds and not self._stopping:
            if _executors.get(self.loop) is self:
                del _executors[self.loop]
            if self._watch is not None:
                self._watch.cancel()
                self._watch = None
            self._timers.close()
            self._planner.close()
            if (processes := self._runners[PROCESS]) is not None:
                processes.close()
            guard.leave(self)
            threads.trim()

    def _name(self, demand: Demand, structure: Any) -> None:
        try:
            for task in leaves(structure):
                self._scheduler.want(demand, task)
        finally:
            self._scheduler.asked(demand)  # also what was named before one that cannot be: others may want it by now
            self._wake()

    # What a body may ask (attempt.Engine) ------------------------------------------------------------

    async def request(self, attempt: Attempt, structure: Any) -> Any:
        """Suspend the body of ``attempt`` until the tasks in ``structure`` have ended; their outcome.

        Raises ``TaskFailed``, ``UpstreamFailed``, ``TaskCancelled``, ``PlanError``; ``TypeError`` for what
        is not a task.
        """
        demand, structure = await self.ask(attempt, structure)
        return settled(demand, structure)

    async def ask(self, attempt: Attempt, structure: Any) -> tuple[Demand, Any]:
        """As ``request``, without a verdict: the settled demand, and ``structure`` ready to be read."""
        if attempt.cancelled:
            raise TaskCancelled(attempt.task)
        structure = settle(structure)
        reply: asyncio.Future[None] = self.loop.create_future()

        def wake(_: Demand) -> None:
            if not reply.done():
                reply.set_result(None)

        demand = self.suspended(attempt, structure, wake)
        try:
            await reply
        except asyncio.CancelledError:
            self.left(attempt, demand)
            raise
        return demand, structure

    def left(self, attempt: Attempt, demand: Demand) -> None:
        """The body does not wait for ``demand`` any more."""
        self._scheduler.leave(demand)
        self._limit(attempt)
        self._wake()

    async def exist(self, attempt: Attempt, targets: Sequence[Target]) -> list[bool | BaseException]:
        """What is known of ``targets``, outputs of the body whose class answers in bulk: one answer for each."""
        return await self._planner.exist(attempt.node, targets)

    def require(self, attempt: Attempt, structure: Any) -> Any:
        """As ``request``, for a sync body in its own thread."""
        return self._threads.require(attempt, structure)

    def inputs(self, attempt: Attempt) -> Any:
        """The outcomes of the task's requirements, in the shape ``requires()`` gave them. Any thread."""
        return answer(attempt.node.structure, attempt.node.deps)

    def progress(self, attempt: Attempt, fraction: float, message: str) -> None:
        """Pass a body's progress on to the listeners. Any thread."""
        attempt.progress = fraction, message
        for build in self._scheduler.followers.hearing(attempt.node):
            with suppress(RuntimeError):  # an abandoned body has outlived its loop
                self.loop.call_soon_threadsafe(build.owner.progressed, attempt.task, fraction, message)

    def creates(self, attempt: Attempt, key: str) -> bool:
        """Whether the target called ``key`` is the body's one output, and was found missing. Any thread."""
        node = attempt.node
        return (
            isinstance(node.output, Target)
            and node.output.key == key
            and not node.flags & FORCED
            and node.task._complete is None
        )

    def forced(self, attempt: Attempt) -> bool:
        """Whether the body is run although its output may be there. Any thread."""
        return bool(attempt.node.flags & FORCED)

    def awaits(self, attempt: Attempt, other: Attempt) -> bool:
        """Whether the body is suspended on what cannot end before the body of ``other``. On the loop."""
        return attempt.node.state == SUSPENDED and attempt.node in above(other.node)

    def said(self, attempt: Attempt, source: str, level: int, message: str) -> None:
        """Pass on what a body in another process has printed or logged. Any thread."""
        for build in self._scheduler.followers.hearing(attempt.node):
            with suppress(RuntimeError):
                self.loop.call_soon_threadsafe(build.owner.said, attempt.task, source, level, message)

    # What the guard of the loop asks and tells (guard.Member) -------------------------------------------

    def asks_in(self, running: asyncio.Task[Any] | None) -> Task | None:
        """The task whose hook the loop is in; ``running``: its ``asyncio.current_task()``. Any thread."""
        if running is not None:
            return self._planner.asks_for(running)
        node = self._planner.asking
        return None if node is None else node.task

    def blocked(self, task: Task | None, seconds: float, place: str) -> None:
        """The loop was held up: every build on it hears of that."""
        for build in list(self._scheduler.builds):
            build.owner.blocked(task, seconds, place)

    # What a runner reports (runners.Reports) ---------------------------------------------------------

    def suspended(self, attempt: Attempt, structure: Any, reply: Callable[[Demand], object]) -> Demand:
        """The body waits for the tasks in ``structure``; ``reply(demand)`` is called when they have ended."""
        for task in leaves(structure):
            if not isinstance(task, Task):
                raise TypeError(
                    f"{attempt.task!r} waits for {task!r} ({type(task).__name__}); a body can wait for tasks, "
                    "and for lists, tuples and dicts of tasks"
                )
        demand = self._scheduler.suspend(attempt.node)
        demand.reply = reply
        self._limit(attempt)
        try:
            self._name(demand, structure)
        except BaseException:
            self.left(attempt, demand)
            raise
        return demand

    def returned(self, attempt: Attempt, value: Any) -> None:
        """A sync body ended with ``value``; its outputs have to be asked for on the loop."""
        if attempt.node.attempt is attempt:
            self._confirming_by(attempt, self._confirm(attempt, value))

    def _confirming_by(self, attempt: Attempt, looking: Coroutine[Any, Any, bool]) -> None:
        """``looking`` reports what it has found, or is True: the body is to be entered."""
        # In a context of the attempt's own: what it stores there is published in its name.
        context = attempt.node.build.owner.context.copy()
        task = self._confirming[attempt] = asyncio.Task(looking, loop=self.loop, context=context)
        task.add_done_callback(partial(self._confirmed, attempt))

    def _confirmed(self, attempt: Attempt, task: asyncio.Task[bool]) -> None:
        del self._confirming[attempt]
        if not task.cancelled() and task.result() and not attempt.cancelled:
            self._begin(attempt)
        else:
            self.cancelled(attempt)  # unless it has reported by itself: one that was never entered does not

    async def _confirm(self, attempt: Attempt, value: Any) -> bool:
        current.set(attempt)
        try:
            value = await confirm(attempt, value)
        except BaseException as error:
            self.failed(attempt, error)
        else:
            self.finished(attempt, value)
        return False

    async def _look_first(self, attempt: Attempt) -> bool:
        """The body has ended well in an attempt before this, and the look after it has failed: it is made again.

        Only what is not there is a reason to enter the body again (True).
        """
        current.set(attempt)
        try:
            await confirm(attempt, None)
        except IncompleteOutput:
            attempt.looking = False
            attempt.node.flags &= ~UNCONFIRMED
            return True
        except BaseException as error:
            self.failed(attempt, error)
        else:
            self.finished(attempt, None)
        return False

    def finished(self, attempt: Attempt, value: Any) -> None:
        """The body ended with ``value``, and its outputs are there."""
        node = attempt.node
        if self._ended(attempt):
            if attempt.timed_out:
                self._timed_out(attempt)
            else:
                self._scheduler.succeeded(node, value, adopted=attempt.lost is not None and not attempt.published)
            self._go_on()

    def failed(self, attempt: Attempt, error: BaseException) -> None:
        """The body raised ``error``."""
        node = attempt.node
        if self._ended(attempt):
            if attempt.timed_out:
                self._timed_out(attempt, error)
            elif _of_others(error, attempt.task):
                self._scheduler.blocked(node, error)
            else:
                self._failed(attempt, error)
            self._wake()

    def cancelled(self, attempt: Attempt) -> None:
        """The body has stopped."""
        node = attempt.node
        if self._ended(attempt):
            if attempt.timed_out:
                self._timed_out(attempt)
            else:
                self._scheduler.cancelled(node)
            self._wake()

    def _timed_out(self, attempt: Attempt, error: BaseException | None = None) -> None:
        """The body has stopped, after its time was up. What it had published whole by then stands."""
        node = attempt.node
        if node.output is not None and confirmed(attempt, None):
            self._scheduler.succeeded(node, None)
        else:
            self._failed(attempt, _too_long(attempt, error))

    def _failed(self, attempt: Attempt, error: BaseException) -> None:
        if attempt.looking and not isinstance(error, IncompleteOutput):
            attempt.node.flags |= UNCONFIRMED
        self._scheduler.failed(attempt.node, error)

    def _ended(self, attempt: Attempt) -> bool:
        node = attempt.node
        if node.attempt is not attempt:
            return False  # abandoned, or reported before
        node.attempt = None
        if attempt.timer is not None:
            attempt.timer.cancel()
            attempt.timer = None
        attempt.fence()  # what it has left behind, a thread or a task of its own, publishes nothing any more
        node.build.times[2 * node.index + 1] = self._clock()
        if attempt.cancelled:
            self._stopping.ended(attempt)
        return True

    # Other loops -------------------------------------------------------------------------------------

    def _post(self, call: Callable[..., object], *args: Any) -> None:
        """Make ``call(*args)`` in this loop. Any thread."""
        with suppress(RuntimeError):  # the loop has been closed: nobody is left to hear it
            self.loop.call_soon_threadsafe(self._received, call, args, context=self._context)

    def _received(self, call: Callable[..., object], args: tuple[Any, ...]) -> None:
        call(*args)
        self._wake()

    def _look_round(self) -> None:
        self._watch = None
        self._scheduler.sharing.look_round()
        self._wake()

    # Turns -------------------------------------------------------------------------------------------

    def _wake(self) -> None:
        if not self._awake:
            self._awake = True
            try:
                # Not in the context of the body that happens to have woken it.
                self.loop.call_soon(self._turn, context=self._context)
            except RuntimeError:
                if not self.loop.is_closed():  # in the middle of a build: what is left of its bodies is thrown away
                    raise

    def _go_on(self) -> None:
        """A body has ended well. If none is left at work, as in a chain, the next one starts now, not a turn later."""
        scheduler = self._scheduler
        builds = scheduler.builds
        if len(builds) == 1 and not self._awake and not next(iter(builds)).budget.running and scheduler.idle:
            step = scheduler.next()
            if isinstance(step, Demand):
                self._context.run(self._resume, step)
            elif step is not None:
                self._context.run(self._enter, step)
                if not scheduler.queued and not scheduler.sharing.abroad:
                    return
        self._wake()

    def _turn(self) -> None:
        self._awake = False
        scheduler = self._scheduler
        deadline = self._meter() + SLICE
        if scheduler.cancels:
            self._cancel()
        if scheduler.rated:
            self._timers.tick()
        more = self._planner.step(deadline)
        self._planner.asking = None
        more = more or self._verify(deadline)
        self._tell()  # before a body goes on that waited for what has ended
        more = self._start(deadline) or more
        if scheduler.cancels:
            self._cancel()
        self._tell()
        if scheduler.rests:
            self._rest_between_attempts()
        if scheduler.rated:
            self._timers.arm()  # for what has found no units just now, too
        if more:
            self._wake()
        if scheduler.sharing.abroad and self._watch is None:
            self._watch = self.loop.call_later(LOOK_ROUND, self._look_round)
        if not scheduler.builds:
            self._rest()

    def _rest_between_attempts(self) -> None:
        while self._scheduler.rests:
            node = self._scheduler.rests.popleft()
            if node.flags & CANCELLING:
                continue
            account: Account = node.build.owner
            try:
                wait = account.context.run(self._timers.rest, node)
            except BaseException as wrong:
                self._scheduler.hopeless(node, wrong_option(node.task, "retry_delay", wrong))
                self._wake()
            else:
                for build in self._scheduler.followers.hearing(node):
                    build.owner.retrying(node, wait)

    def _verify(self, deadline: float) -> bool:
        """Work on the plans that have become whole; True: there is more."""
        if self._verifying is None:
            if not self._scheduler.unverified:
                return False
            self._verifying = self._scheduler.verify()
        for _ in self._verifying:
            if self._meter() > deadline:
                return True
        self._verifying = None
        return False

    def _start(self, deadline: float) -> bool:
        """Start and resume what there is a place for; True: there is more."""
        scheduler = self._scheduler
        while scheduler.delivered:
            self._resume(scheduler.delivered.popleft())
        for count in range(STARTS):
            step = scheduler.next()
            if step is None:
                return bool(scheduler.checks)
            if isinstance(step, Demand):
                self._resume(step)
            else:
                self._enter(step)
            if not count & 3 and self._meter() > deadline:  # a thread more may take milliseconds
                return True
        return True

    def _enter(self, node: Node) -> None:
        attempt = node.attempt = Attempt(node.task, self, node)
        build = node.build
        build.times[2 * node.index] = self._clock()
        followers = self._scheduler.followers
        if build.listening or followers.of:
            for other in followers.hearing(node):
                other.owner.started_task(node)
        if node.options.timeout is not None:
            attempt.time_left = node.options.timeout
            self._timers.limit(attempt)
        if node.flags & UNCONFIRMED:
            self._confirming_by(attempt, self._look_first(attempt))
        else:
            self._begin(attempt)

    def _begin(self, attempt: Attempt) -> None:
        try:
            (self._runners[attempt.node.lane] or self._with_processes()).start(attempt)
        except BaseException as error:  # no thread to be had, say
            self.failed(attempt, error)

    def _with_processes(self) -> Runner:
        from .runners.process import ProcessRunner  # loaded when first needed, by few

        runner: Runner = ProcessRunner(self)
        self._runners[PROCESS] = runner
        return runner

    def _runner(self, attempt: Attempt) -> Runner:
        """The one that has begun ``attempt``."""
        runner: Runner | None = self._runners[attempt.node.lane]
        assert runner is not None
        return runner

    def _resume(self, demand: Demand) -> None:
        assert demand.parent is not None
        if demand.parent.attempt is not None and demand.reply is not None:
            self._limit(demand.parent.attempt)
            demand.reply(demand)

    def _limit(self, attempt: Attempt) -> None:
        if attempt.node.options.timeout is not None:
            self._timers.limit(attempt)

    def _cancel(self) -> None:
        """Ask the bodies nobody wants any more to stop."""
        while self._scheduler.cancels:
            node = self._scheduler.cancels.popleft()
            if node.attempt is not None:
                self._stopping.begin(node.attempt)
            elif node.flags & (RESTING | RETRYING):  # between two attempts
                self._timers.dismiss(node)
                self._scheduler.cancelled(node)

    def _time_out(self, attempt: Attempt) -> None:
        """It has been at work for longer than its task allows: that fails this attempt."""
        attempt.timer = None
        if attempt.node.attempt is attempt and not attempt.cancelled:
            attempt.timed_out = True
            self._stopping.begin(attempt)
            self._wake()

    def _stop(self, attempt: Attempt) -> None:
        """Ask the body to stop, or what confirms its outputs after it."""
        confirming = self._confirming.get(attempt)
        if confirming is None:
            self._runner(attempt).cancel(attempt)
        else:
            confirming.cancel()

    def _give_up(self, attempt: Attempt) -> None:
        """The body has not stopped in time: it is left behind, and can publish nothing any more."""
        node = attempt.node
        entered = attempt.handle is not None  # else it was looking whether it has to be
        place = self._runner(attempt).stack(attempt) if entered else ["in the exists() hook of its output"]
        node.build.owner.abandoned(node.task, place)
        if node.lane == LOOP and entered:
            self._loose.add(attempt.handle)
            attempt.handle.add_done_callback(self._loose.discard)
        self.cancelled(attempt)

    def _tell(self) -> None:
        """Pass on what has ended."""
        scheduler = self._scheduler
        followers = scheduler.followers
        while followers.late:
            build, node = followers.late.popleft()
            if node.state in (RUNNING, SUSPENDED) and not build.closed:
                build.owner.started_task(node)
        while scheduler.finals:
            node = scheduler.finals.popleft()
            for build in followers.hearing(node):
                build.owner.finished_task(node)
            followers.forget(node)
        while scheduler.settled:
            demand = scheduler.settled.popleft()
            if demand.build.guest:
                scheduler.close(demand)
            else:
                demand.build.owner.settled(demand)


def _bury_the_dead() -> None:
    """Forget loops that were closed in the middle of a build, without a chance to tidy up."""
    for loop in list(_executors):
        if loop.is_closed() and (executor := _executors.pop(loop, None)) is not None:
            executor._scheduler.bury()
            if (processes := executor._runners[PROCESS]) is not None:
                processes.close()


def _too_long(attempt: Attempt, error: BaseException | None = None) -> TimeoutError:
    late = TimeoutError(f"{attempt.task!r} was at work for more than its timeout of {attempt.node.options.timeout:g} s")
    late.__cause__ = error
    return late


def _of_others(error: BaseException, task: Task) -> bool:
    """Whether ``error`` is the failure of tasks that the body of ``task`` waited for, not caught there."""
    if isinstance(error, BaseExceptionGroup):
        return all(_of_others(inner, task) for inner in error.exceptions)
    return isinstance(error, (TaskFailed, TaskCancelled)) and error.task != task
