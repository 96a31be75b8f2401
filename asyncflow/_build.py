"""The doors that wait: ``build``, ``plan``, ``run``, and ``await task`` outside a build."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar, Unpack, overload

from . import _task, healing
from . import attempt as attempts
from ._plan import Plan
from ._task import Task, Waits, wait_for
from .account import Account
from .attempt import inside
from .errors import PlanError
from .events import Event
from .executor import Executor
from .graph import Demand, Node
from .hub import Hub
from .opening import CONCURRENCY, GRACE, PROCESSES, THREADS, BuildOptions, open_account
from .outcomes import answer
from .result import BuildResult, ended, reachable
from .selection import Force, Only, forced
from .shield import finish
from .targets._hops import in_thread
from .tree import leaves, settle

__all__ = [
    "Waits",
    "await_on",
    "build",
    "gather",
    "make",
    "plan",
    "run",
    "tasks_in",
    "value",
]


async def build(
    tasks: Task | Iterable[Task],
    *,
    concurrency: int = CONCURRENCY,
    threads: int = THREADS,
    processes: int = PROCESSES,
    grace: float = GRACE,
    timeout: float | None = None,
    retries: int = 0,
    resources: Mapping[str, int] | None = None,
    rate: Mapping[str, str] | None = None,
    fail_fast: bool = False,
    force: Force = False,
    only: Only | None = None,
    on_event: Callable[[Event], object] | None = None,
) -> BuildResult:
    """Make ``tasks`` and everything they require, each thing once, as concurrently as the graph allows.

    Args:
        tasks: one task, or several.
        concurrency: how many bodies may be at work at once; one that waits for other tasks does not count.
        threads: how many of them may be sync bodies, each of which keeps a thread busy.
        processes: how many of them may be in worker processes (``runner = "process"``); as many as there are cores.
        grace: seconds that bodies have for stopping when the build is cancelled; what has not stopped then
            is left behind, can publish nothing any more, and is named in an ``Abandoned`` event.
        timeout: seconds after which the build is stopped as if it were cancelled. It returns then, with the status
            ``cancelled`` and ``result.why``; ``asyncio.timeout`` around it raises ``TimeoutError`` instead.
        retries: how many attempts may follow a failed one, for tasks that do not say so themselves.
        resources: how many units there are of what tasks share, such as ``{"db": 4}``; of one that is not named, 1.
        rate: how many starts in how much time, such as ``{"api": "10/s"}``.
        fail_fast: stop at the first failure, instead of making what does not depend on it.
        force: True runs ``tasks`` also if they are complete; ``"upstream"`` all they require as well; tasks given
            here are run, and what requires them.
        only: tasks, task classes or their names: nothing else is run. What else is not complete is ``missing``.
        on_event: called on the loop with each ``Event``; what it raises is logged.

    Inside the body of a task the build joins the one that runs the body, under that one's options.

    Returns a ``BuildResult`` also when tasks failed: ask it, or call its ``raise_for_failure()``.

    Raises ``PlanError`` if the graph cannot be built (nothing has run then), ``ConfigError`` for an option
    that is out of range, ``TypeError`` for what is not a task. Cancelling the call cancels the build, and
    returns when nothing that only it wanted is alive.
    """
    roots = tasks_in(tasks)
    account = open_account(
        "build",
        concurrency=concurrency,
        threads=threads,
        processes=processes,
        grace=grace,
        timeout=timeout,
        retries=retries,
        resources=resources,
        rate=rate,
        fail_fast=fail_fast,
        only=only,
        on_event=on_event,
    )
    attempt = inside()
    if attempt is None:
        return await make(account, roots, force)
    demand, _ = await attempt.engine.ask(attempt, roots)
    _refuse(demand)
    return BuildResult(account, demand.roots[:], reachable(demand.roots))


async def make(account: Account, roots: list[Task], force: Force) -> BuildResult:
    """The build of ``roots`` that ``account`` was opened for. However it ends, its listeners are told.

    Raises as ``build`` does.
    """
    if attempts.preparing:
        raise RuntimeError(
            "a worker process imports the program that has started it, and that begins a build as it is imported: put "
            'the build under `if __name__ == "__main__":`'
        )
    account.started_build(roots)
    timer = None
    if account.timeout is not None:
        timer = asyncio.get_running_loop().call_later(account.timeout, account.expire)
    try:
        account.force(await forced(force, roots, account.done.done))
        found = await _carry_out(Executor.current(), account, roots)
    except asyncio.CancelledError:
        account.finished_build("cancelled")
        raise
    except BaseException:
        account.finished_build("failed")
        raise
    finally:
        if timer is not None:
            timer.cancel()
    if account.why is not None or account.fail_fast:  # else every node has its end
        account.nodes = ended(account.nodes)
        found = ended(found)
    result = BuildResult(account, found, account.nodes)
    account.finished_build(result.status)
    return result


async def plan(tasks: Task | Iterable[Task], *, force: Force = False, only: Only | None = None) -> Plan:
    """What ``build(tasks)`` would do now, and why. Asks what is complete; runs and writes nothing.

    Raises ``PlanError`` if the graph cannot be built, ``TypeError`` for what is not a task.
    """
    # An executor of its own: nobody may join nodes that are never going to run.
    executor = Executor(asyncio.get_running_loop(), Hub())
    roots = tasks_in(tasks)
    account = open_account("plan", only=only)
    account.force(await forced(force, roots, account.done.done))
    await _carry_out(executor, account, roots, dry=True)
    return Plan(account.nodes)


def run(tasks: Task | Iterable[Task], **options: Unpack[BuildOptions]) -> BuildResult:
    """``build`` for code without an event loop; the arguments, the result and the errors are the same.

    Raises ``RuntimeError`` where a loop is running: use ``await build(...)`` there.
    """
    if _loop_is_running():
        raise RuntimeError(
            "asyncflow.run() was called where an event loop is already running (a notebook, an async app): "
            "use `await build(...)`"
        )
    return asyncio.run(build(tasks, **options))


def _loop_is_running() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


async def _carry_out(executor: Executor, account: Account, structure: Any, *, dry: bool = False) -> list[Node]:
    """A build from its beginning to its end: the nodes asked for. ``account.nodes`` are all it met."""
    if not dry and not healing.healed():  # else what was all but published would be made again
        await in_thread(healing.heal)
    demand = account.demand = executor.open(account, structure, dry=dry)
    abandoned = False
    try:
        await account.done
    except GeneratorExit:
        abandoned = True  # thrown away, perhaps with its loop: it cannot wait for anything any more
        raise
    finally:
        roots = demand.roots[:]
        account.nodes = reachable(roots) if demand.build.joined else demand.build.nodes
        stopping = executor.close(demand)
        if stopping and not abandoned:
            await finish(executor.gone(demand, stopping))
    if account.why is None:  # one that was stopped says so, whatever its unfinished plan had met
        _refuse(demand)
    return roots


async def await_on(account: Account, structure: Any) -> Any:
    """What ``await`` gives for the tasks in ``structure``, by a build on ``account``; raises as that does."""
    structure = settle(structure)
    roots = await _carry_out(Executor.current(), account, structure)
    return answer(structure, roots)


async def _await_outside(structure: Any) -> Any:
    return await await_on(open_account("await"), structure)


_task.await_outside = _await_outside


def _refuse(demand: Demand) -> None:
    if demand.problems:
        raise PlanError.of([problem for _, problem in demand.problems])


def tasks_in(tasks: Any) -> list[Task]:
    """The tasks asked for. Raises ``TypeError`` for what is not a task."""
    if tasks is None:
        raise TypeError("None is not a task")
    found = list(leaves(tasks))
    for task in found:
        if not isinstance(task, Task):
            advice = "; construct it with its parameters" if isinstance(task, type) else ""
            raise TypeError(f"{task!r} is not a task{advice}")
    return found


# Waiting for several -------------------------------------------------------------------------------------

A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")


@overload
async def gather(a: Waits[A], /) -> tuple[A]: ...
@overload
async def gather(a: Waits[A], b: Waits[B], /) -> tuple[A, B]: ...
@overload
async def gather(a: Waits[A], b: Waits[B], c: Waits[C], /) -> tuple[A, B, C]: ...
@overload
async def gather(a: Waits[A], b: Waits[B], c: Waits[C], d: Waits[D], /) -> tuple[A, B, C, D]: ...
@overload
async def gather(*tasks: Waits[A]) -> tuple[A, ...]: ...
async def gather(*tasks: Any) -> tuple[Any, ...]:
    """``await`` several tasks at once: their outputs or values, in order.

    Returns, or raises the first failure in that order, when all of them have ended.
    """
    outcome: tuple[Any, ...] = await wait_for(tuple(tasks_in(tasks)))
    return outcome


async def value(task: Waits[A]) -> A:
    """``await task`` (or ``await target.write(...)``) as a coroutine, for ``TaskGroup.create_task`` and its like."""
    return await task
