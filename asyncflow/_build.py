"""The doors: ``build``, ``plan``, ``run``, and ``await task`` outside a build."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Generator, Iterable
from typing import Any, Protocol, TypeVar, overload

from . import _task
from ._plan import Plan
from ._task import Task, wait_for
from .account import Account
from .attempt import inside
from .errors import ConfigError, PlanError
from .events import Event
from .executor import Executor
from .graph import Demand, Node
from .hub import Hub
from .outcomes import answer
from .result import BuildResult, reachable
from .shield import finish
from .tree import leaves, settle

__all__ = ["build", "gather", "plan", "run", "value"]

T_co = TypeVar("T_co", covariant=True)

CONCURRENCY = 1000
THREADS = 32
GRACE = 1.0


async def build(
    tasks: Task | Iterable[Task],
    *,
    concurrency: int = CONCURRENCY,
    threads: int = THREADS,
    grace: float = GRACE,
    on_event: Callable[[Event], object] | None = None,
) -> BuildResult:
    """Make ``tasks`` and everything they require, each thing once, as concurrently as the graph allows.

    Args:
        tasks: one task, or several.
        concurrency: how many bodies may be at work at once; one that waits for other tasks does not count.
        threads: how many of them may be sync bodies, each of which keeps a thread busy.
        grace: seconds that bodies have for stopping when the build is cancelled; what has not stopped then
            is left behind, can publish nothing any more, and is named in an ``Abandoned`` event.
        on_event: called on the loop with each ``Event``; what it raises is logged.

    Inside the body of a task the build joins the one that runs the body, under that one's options.

    Returns a ``BuildResult`` also when tasks failed: ask it, or call its ``raise_for_failure()``.

    Raises ``PlanError`` if the graph cannot be built (nothing has run then), ``ConfigError`` for an option
    that is out of range, ``TypeError`` for what is not a task. Cancelling the call cancels the build, and
    returns when nothing that only it wanted is alive.
    """
    roots = _tasks(tasks)
    account = _account(concurrency, threads, grace, on_event)
    attempt = inside()
    if attempt is not None:
        demand, _ = await attempt.engine.ask(attempt, roots)
        _refuse(demand)
        return BuildResult(account, demand.roots[:], reachable(demand.roots))
    account.started_build(roots)
    try:
        found = await _carry_out(Executor.current(), account, roots)
    except asyncio.CancelledError:
        account.finished_build("cancelled")
        raise
    except PlanError:
        account.finished_build("failed")
        raise
    result = BuildResult(account, found, account.nodes)
    account.finished_build(result.status)
    return result


async def plan(tasks: Task | Iterable[Task]) -> Plan:
    """What ``build(tasks)`` would do now, and why. Asks what is complete; runs and writes nothing.

    Raises ``PlanError`` if the graph cannot be built, ``TypeError`` for what is not a task.
    """
    # An executor of its own: nobody may join nodes that are never going to run.
    executor = Executor(asyncio.get_running_loop(), Hub())
    account = _account()
    await _carry_out(executor, account, _tasks(tasks), dry=True)
    return Plan(account.nodes)


def run(
    tasks: Task | Iterable[Task],
    *,
    concurrency: int = CONCURRENCY,
    threads: int = THREADS,
    grace: float = GRACE,
    on_event: Callable[[Event], object] | None = None,
) -> BuildResult:
    """``build`` for code without an event loop; the arguments, the result and the errors are the same.

    Raises ``RuntimeError`` where a loop is running: use ``await build(...)`` there.
    """
    if _loop_is_running():
        raise RuntimeError(
            "asyncflow.run() was called where an event loop is already running (a notebook, an async app): "
            "use `await build(...)`"
        )
    return asyncio.run(build(tasks, concurrency=concurrency, threads=threads, grace=grace, on_event=on_event))


def _loop_is_running() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


async def _carry_out(executor: Executor, account: Account, structure: Any, *, dry: bool = False) -> list[Node]:
    """A build from its beginning to its end: the nodes asked for. ``account.nodes`` are all it met."""
    demand = executor.open(account, structure, dry=dry)
    try:
        await account.done
    finally:
        roots = demand.roots[:]
        account.nodes = reachable(roots) if demand.build.joined else demand.build.nodes
        stopping = executor.close(demand)
        if stopping:
            await finish(executor.gone(demand, stopping))
    _refuse(demand)
    return roots


async def _await_outside(structure: Any) -> Any:
    structure = settle(structure)
    roots = await _carry_out(Executor.current(), _account(), structure)
    return answer(structure, roots)


_task.await_outside = _await_outside


def _refuse(demand: Demand) -> None:
    if demand.problems:
        raise PlanError.of([problem for _, problem in demand.problems])


def _account(
    concurrency: int = CONCURRENCY,
    threads: int = THREADS,
    grace: float = GRACE,
    on_event: Callable[[Event], object] | None = None,
) -> Account:
    for name, count in (("concurrency", concurrency), ("threads", threads)):
        if not isinstance(count, int) or isinstance(count, bool) or count < 1:
            raise ConfigError(f"build({name}={count!r}): expected a whole number of at least 1")
    if not isinstance(grace, (int, float)) or isinstance(grace, bool) or not 0 <= grace < float("inf"):
        raise ConfigError(f"build(grace={grace!r}): expected a number of seconds, 0 or more")
    if on_event is not None and (not callable(on_event) or inspect.iscoroutinefunction(on_event)):
        raise ConfigError(f"build(on_event={on_event!r}): expected a plain function that takes one event")
    return Account(concurrency=concurrency, threads=threads, grace=grace, on_event=on_event)


def _tasks(tasks: Any) -> list[Task]:
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


class _Waits(Protocol[T_co]):
    def __await__(self) -> Generator[Any, Any, T_co]: ...


@overload
async def gather(a: _Waits[A], /) -> tuple[A]: ...
@overload
async def gather(a: _Waits[A], b: _Waits[B], /) -> tuple[A, B]: ...
@overload
async def gather(a: _Waits[A], b: _Waits[B], c: _Waits[C], /) -> tuple[A, B, C]: ...
@overload
async def gather(a: _Waits[A], b: _Waits[B], c: _Waits[C], d: _Waits[D], /) -> tuple[A, B, C, D]: ...
@overload
async def gather(*tasks: _Waits[A]) -> tuple[A, ...]: ...
async def gather(*tasks: Any) -> tuple[Any, ...]:
    """``await`` several tasks at once: their outputs or values, in order.

    Returns, or raises the first failure in that order, when all of them have ended.
    """
    outcome: tuple[Any, ...] = await wait_for(tuple(_tasks(tasks)))
    return outcome


async def value(task: _Waits[A]) -> A:
    """``await task`` as a coroutine, for ``TaskGroup.create_task`` and ``asyncio.create_task``."""
    return await task
