"""Planning: is each wanted task complete, and if not, what does it require?

All of it runs in slices of the executor's turn. What can be answered at once is; sync hooks go to threads
(``hooks.py``), async ones to checker tasks: the first checker works through the queue, and each starts the
next one before it does, so there are as many as there are questions that have to wait, and one if none has.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from typing import Any

from ._options import DEFAULTS, Options
from ._task import Task
from .account import Account
from .clock import meter
from .errors import ConfigError, PlanError
from .graph import BYPASSED, EXCLUDED, FINAL, FORCED, LOCKING, NEW, WRAPPER, Node
from .hooks import Hooks
from .scheduler import Scheduler
from .target import Target, ask, check_answer
from .tree import leaves, settle

__all__ = ["Planner"]

CHECKERS = 1000  # async questions open at once
SLICE = 0.005  # seconds a checker works before it lets others in


class Planner:
    """Answers the scheduler's checks."""

    def __init__(self, loop: asyncio.AbstractEventLoop, scheduler: Scheduler, wake: Callable[[], None]) -> None:
        self._loop = loop
        self._meter = meter(loop)
        self._scheduler = scheduler
        self._wake = wake
        self._hooks = Hooks(loop, self._from_thread)
        self._expanding: deque[tuple[Node, Iterator[Any]]] = deque()
        self._questions: deque[tuple[Node, Awaitable[Any] | None]] = deque()
        self._checkers: dict[asyncio.Task[None], Node | None] = {}

    def step(self, deadline: float) -> bool:
        """Work until there is nothing to do now, or ``deadline`` (by the loop's ``meter``); True: there is more."""
        checks = self._scheduler.checks
        count = 0
        while True:
            while self._expanding:
                node, tasks = self._expanding[0]
                if not node.build.owner.context.run(self._expand, node, tasks, deadline):
                    return True
            if not checks:
                return False
            node = checks.popleft()
            if node.state == NEW or node.state == LOCKING:
                node.build.owner.context.run(self._check, node)  # user code sees its build's context variables
            count += 1
            if not count & 15 and self._meter() > deadline:
                return bool(checks or self._expanding)

    # Complete? ---------------------------------------------------------------------------------------

    def _check(self, node: Node) -> None:
        task = node.task
        definition = task._definition
        if node.state == NEW:
            node.lane = definition.lane
            if definition.options is not DEFAULTS:
                try:
                    node.options = definition.options or Options(task, repr(task))
                except BaseException as error:
                    return self._scheduler.invalid(node, _raised(task, "its options", error))
            account: Account = node.build.owner
            if account.particular and _forced(account, task) and account.selects(task):
                node.flags |= FORCED
            if definition.has_output:
                try:
                    node.output = _frozen(task, task.output())
                except BaseException as error:
                    return self._scheduler.invalid(node, _raised(task, "output", error))
        output = node.output
        if node.flags & FORCED:
            self._missing(node, "forced")
        elif task._complete is not None:
            if task._complete_on_loop:
                self._ask(node)
            else:
                self._hooks.ask(node)
        elif definition.wrapper:
            node.flags |= WRAPPER
            self._missing(node, "wrapper")
        elif output is None:
            if definition.external:
                problem = PlanError(f"{task!r} is external and has no output(): nothing says whether it is there")
                self._scheduler.invalid(node, problem)
            else:
                self._missing(node, "no output")
        elif isinstance(output, Target) and output._how == "inline":
            try:
                answer = check_answer(output, "exists", output._exists())
            except BaseException as error:
                return self._scheduler.unknown(node, error)
            self._answered(node, answer)
        elif any(target._how == "loop" for target in leaves(output)):
            self._ask(node)
        else:
            self._hooks.ask(node)
        return None

    def _answered(self, node: Node, answer: Any) -> None:
        if node.state >= FINAL:
            return
        if isinstance(answer, BaseException):
            self._scheduler.unknown(node, answer)
        elif answer:
            account: Account = node.build.owner
            if node.state == NEW and account.particular and _forced(account, node.task):
                node.flags |= BYPASSED  # forced, and not selected: what is both may be below it
                self._missing(node, "complete")
            else:
                self._scheduler.complete(node)
        elif node.task._definition.external:
            self._scheduler.absent(node)
        else:
            self._missing(node, "complete() is False" if node.task._complete is not None else "output missing")

    def _missing(self, node: Node, reason: str) -> None:
        task = node.task
        if node.state == NEW:
            node.reason = reason
            definition = task._definition
            if not definition.has_run and not definition.wrapper:
                problem = PlanError(
                    f"{task!r} has no run(): write it, or derive from ExternalTask (made elsewhere) or WrapperTask "
                    "(stands for what it requires)"
                )
                return self._scheduler.invalid(node, problem)
            if node.output is not None:
                try:
                    node.keys = _keys(node.output)
                except BaseException as error:
                    return self._scheduler.invalid(node, _raised(task, "output", error))
            if node.build.owner.particular and not definition.wrapper and not node.build.owner.selects(task):
                node.flags |= EXCLUDED
            if not node.keys:
                node.keys = (task,)  # nothing says what it makes: nobody else is making this task
            self._scheduler.missing(node)
            if not definition.has_requires:
                self._scheduler.expanded(node)
            else:
                self._expanding.append((node, _required(node)))
        else:
            self._scheduler.missing(node)
        return None

    # What does it require? ---------------------------------------------------------------------------

    def _expand(self, node: Node, tasks: Iterator[Any], deadline: float) -> bool:
        """Go on naming the dependencies of ``node``, the first in the queue; False when time is up."""
        depend = self._scheduler.depend
        count = 0
        try:
            for task in tasks:
                if not isinstance(task, Task):
                    raise _NotATask(task)
                if not depend(node, task):
                    break
                count += 1
                if not count & 63 and self._meter() > deadline:
                    return False
        except BaseException as error:
            self._expanding.popleft()
            self._scheduler.invalid(node, _raised(node.task, "requires", error))
            return True
        self._expanding.popleft()
        self._scheduler.expanded(node)
        return True

    # Questions for the loop --------------------------------------------------------------------------

    def _ask(self, node: Node, begun: Awaitable[Any] | None = None) -> None:
        self._questions.append((node, begun))
        if len(self._questions) == 1:
            self._start_checker()

    def _start_checker(self) -> None:
        if len(self._checkers) < CHECKERS:
            context = self._questions[0][0].build.owner.context
            task = asyncio.Task(self._work(), loop=self._loop, context=context.copy())
            self._checkers[task] = None
            task.add_done_callback(self._checker_ended)

    def _checker_ended(self, task: asyncio.Task[None]) -> None:
        del self._checkers[task]
        if not task.cancelled():
            task.exception()  # seen: every answer has been given to its node
        if self._questions and not self._checkers:
            self._start_checker()

    async def _work(self) -> None:
        me = asyncio.current_task()
        assert me is not None
        if len(self._questions) > 1:
            self._start_checker()
        deadline = self._meter() + SLICE
        while self._questions:
            node, begun = self._questions.popleft()
            if node.state < FINAL:
                self._checkers[me] = node
                try:
                    answer = await (_complete(node) if begun is None else begun)
                except BaseException as error:
                    if isinstance(error, asyncio.CancelledError) and me.cancelling():
                        raise
                    answer = error  # of no interest any more if the node has its end; never passed on to the loop
                self._checkers[me] = None
                self._answered(node, answer)
                self._wake()
            elif isinstance(begun, Coroutine):
                begun.close()
            if self._meter() > deadline:
                await asyncio.sleep(0)
                deadline = self._meter() + SLICE

    def _from_thread(self, node: Node, answer: Any) -> None:
        if hasattr(answer, "__await__"):
            self._ask(node, _checked(node, answer))
        else:
            self._answered(node, answer)
        self._wake()

    def stop(self) -> list[asyncio.Task[None]]:
        """Cancel the questions nobody wants answered any more, once; the checkers that are on their way out."""
        stopped = [task for task, node in self._checkers.items() if node is not None and node.state >= FINAL]
        while self._questions and self._questions[0][0].state >= FINAL:
            _, begun = self._questions.popleft()
            if isinstance(begun, Coroutine):
                begun.close()
        if not self._questions:
            # Those that were just started would find nothing to ask, but they would be alive for a moment.
            stopped += [task for task, node in self._checkers.items() if node is None]
        for task in stopped:
            if not task.cancelling():
                task.cancel()
        return stopped

    def asks_for(self, checker: asyncio.Future[Any]) -> Task | None:
        """The task whose completeness ``checker`` still asks about."""
        node = self._checkers.get(checker)  # type: ignore[call-overload]
        return None if node is None else node.task

    def close(self) -> None:
        """The last build has ended."""
        self._hooks.close()


def _forced(account: Account, task: Task) -> bool:
    return task._definition.has_run and not task._definition.external and account.forces(task)


async def _complete(node: Node) -> bool:
    task = node.task
    if task._complete is not None:
        return check_answer(task, "complete", await task._complete())
    for target in leaves(node.output):
        if not await ask(target):
            return False
    return True


async def _checked(node: Node, answer: Awaitable[Any]) -> bool:
    return check_answer(node.task, "complete", await answer)


def _required(node: Node) -> Iterator[Any]:
    """What ``requires()`` gives, leaf by leaf; its structure is kept for ``input()``."""
    structure = node.task.requires()
    if isinstance(structure, Iterator):
        node.structure = kept = []
        for item in structure:
            kept.append(settle(item))
            yield from leaves(kept[-1])
    else:
        node.structure = structure = settle(structure)
        yield from leaves(structure)


def _frozen(task: Task, output: Any) -> Any:
    """``output`` if it is made of targets; None if there are none in it."""
    if isinstance(output, Target):
        return output
    output = settle(output)
    empty = True
    for target in leaves(output):
        empty = False
        if not isinstance(target, Target):
            advice = f"LocalTarget({target!r})" if isinstance(target, str) else "LocalTarget(path)"
            raise _NotATarget(
                f"{type(task).__name__}.output() returned {target!r} ({type(target).__name__}); "
                f"return a target, e.g. {advice}"
            )
    return None if empty else output


def _keys(output: Any) -> tuple[str, ...]:
    if isinstance(output, Target):
        key = output.key
        return () if key is None else (key,)
    return tuple(dict.fromkeys(target.key for target in leaves(output) if target.key is not None))


class _NotATarget(PlanError):
    pass


class _NotATask(PlanError):
    def __init__(self, leaf: object) -> None:
        super().__init__("not a task")
        self.leaf = leaf


def _raised(task: Task, hook: str, error: BaseException) -> PlanError:
    if isinstance(error, (_NotATarget, ConfigError)):
        return PlanError(str(error))
    if isinstance(error, _NotATask):
        leaf = error.leaf
        advice = (
            "construct it with its parameters"
            if isinstance(leaf, type)
            else (
                "a target is made by a task: require that task, or an ExternalTask around the target"
                if isinstance(leaf, Target)
                else "return a task, or a list, tuple or dict of tasks"
            )
        )
        return PlanError(f"{type(task).__name__}.requires() gave {leaf!r}, which is not a task; {advice}")
    problem = PlanError(f"{task!r}.{hook}() raised {type(error).__name__}: {error}")
    problem.__cause__ = error
    return problem
