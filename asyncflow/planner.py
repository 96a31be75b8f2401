"""Planning: is each wanted task complete, and if not, what does it require?

All of it runs in slices of the executor's turn. What can be answered at once is; sync hooks go to threads
(``hooks.py``), async ones to tasks of their own (``questions.py``), and targets whose class answers many
questions at once are gathered (``bulk.py``).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ._definition import PROCESS
from ._options import DEFAULTS, Options
from ._task import Task
from .account import Account
from .bulk import Bulk
from .clock import meter
from .errors import ConfigError, PlanError
from .graph import BYPASSED, EXCLUDED, FINAL, FORCED, LOCKING, NEW, WRAPPER, Node
from .hooks import Hooks
from .questions import Questions
from .scheduler import Scheduler
from .target import Target, check_answer
from .tree import leaves, settle

__all__ = ["Planner"]


class Planner:
    """Answers the scheduler's checks."""

    def __init__(self, loop: asyncio.AbstractEventLoop, scheduler: Scheduler, wake: Callable[[], None]) -> None:
        self._meter = meter(loop)
        self._scheduler = scheduler
        self._wake = wake
        self._hooks = Hooks(loop, self._from_thread)
        self._bulk = Bulk(loop, self._from_bulk, wake, self._has_more)
        self._questions = Questions(loop, self._answered, wake)
        self._expanding: deque[Node] = deque()
        self._naming: Iterator[Any] | None = None  # what the first of them requires and has not named yet
        self.asking: Node | None = None  # whose hooks the loop is in, for the guard

    def step(self, deadline: float) -> bool:
        """Work until there is nothing to do now, or ``deadline`` (by the loop's ``meter``); True: there is more."""
        checks = self._scheduler.checks
        count = 0
        while True:
            while self._expanding:
                node = self._expanding[0]
                self.asking = node
                if not node.build.owner.context.run(self._expand, node, deadline):
                    return True
            if not checks:
                return False
            node = checks.popleft()
            if node.state == NEW or node.state == LOCKING:
                self.asking = node
                # User code sees its build's context variables.
                if not node.build.owner.context.run(self._check_and_expand, node, deadline):
                    return True
            count += 1
            if not count & 15 and self._meter() > deadline:
                return bool(checks or self._expanding)

    def _check_and_expand(self, node: Node, deadline: float) -> bool:
        """Both in one go, where the answer is known at once; False when time is up."""
        self._check(node)
        return not self._expanding or self._expand(node, deadline)

    # Complete? ---------------------------------------------------------------------------------------

    def _check(self, node: Node) -> None:
        task = node.task
        definition = task._definition
        if node.state == NEW:
            node.lane = definition.lane
            if definition.options is not DEFAULTS and not definition.wrapper:
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
            if node.options.in_process:
                from .runners.process import unfit  # loaded when first needed, by few

                node.lane = PROCESS
                problem = unfit(node)
                if problem is not None:
                    return self._scheduler.invalid(node, problem)
        output = node.output
        if node.flags & FORCED:
            self._missing(node, "forced")
        elif task._complete is not None:
            if task._complete_on_loop:
                self._questions.ask(node)
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
        elif not isinstance(output, Target):
            self._look(node)
        elif type(output)._many is not None:
            self._bulk.ask(node, (output,))
        elif output._how == "loop":
            self._questions.ask(node)
        else:
            self._hooks.ask(node)
        return None

    def _look(self, node: Node, after: type[Target] | None = None) -> None:
        """Ask about several outputs: class by class those that are asked in bulk, then the others, one by one.

        The former first, since one that is not there spares the questions that are dearer. ``after`` is the class
        whose targets are known to be there.
        """
        rows: dict[type[Target], list[Target]] = {}
        others: set[str] = set()
        for target in leaves(node.output):
            if type(target)._many is None:
                others.add(target._how)
            else:
                rows.setdefault(type(target), []).append(target)
        kinds = list(rows)
        if after is not None:
            del kinds[: kinds.index(after) + 1]
        if kinds:
            self._bulk.ask(node, rows[kinds[0]])
        elif "loop" in others:
            self._questions.ask(node)
        elif others:
            self._hooks.ask(node)
        else:
            self._answered(node, True)

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
                self._expanding.append(node)
        else:
            self._scheduler.missing(node)
        return None

    # What does it require? ---------------------------------------------------------------------------

    def _expand(self, node: Node, deadline: float) -> bool:
        """Go on naming the dependencies of ``node``, the first in the queue; False when time is up."""
        depend = self._scheduler.depend
        count = 0
        try:
            if self._naming is None:
                self._naming = _required(node)
            for task in self._naming:
                if not isinstance(task, Task):
                    raise _NotATask(task)
                if not depend(node, task):
                    break
                count += 1
                if not count & 63 and self._meter() > deadline:
                    return False
        except BaseException as error:
            self._expanding.popleft()
            self._naming = None
            self._scheduler.invalid(node, _raised(node.task, "requires", error))
            return True
        self._expanding.popleft()
        self._naming = None
        self._scheduler.expanded(node)
        return True

    # Answers -----------------------------------------------------------------------------------------

    def _from_thread(self, node: Node, answer: Any) -> None:
        if hasattr(answer, "__await__"):
            self._questions.ask(node, answer)
        else:  # what is missing is asked for its keys, which may be user code
            node.build.owner.context.run(self._answered, node, answer)
        self._wake()

    def _from_bulk(self, node: Node, targets: Sequence[Target], answer: Any) -> None:
        if answer is True and node.output is not targets[0] and node.state < FINAL:
            self._look(node, after=type(targets[0]))
        else:
            self._answered(node, answer)

    def _has_more(self) -> bool:
        return bool(self._scheduler.checks or self._expanding)

    async def exist(self, node: Node, targets: Sequence[Target]) -> list[bool | BaseException]:
        """What is known of ``targets``, outputs of ``node`` whose class answers in bulk: one answer for each."""
        return await self._bulk.exist(node, targets)

    def stop(self) -> list[asyncio.Task[None]]:
        """Cancel the questions nobody wants answered any more, once; those that are on their way out."""
        return self._questions.stop() + self._bulk.stop()

    def asks_for(self, question: asyncio.Task[Any]) -> Task | None:
        """The task whose completeness ``question`` asks about, or one of them. Any thread."""
        node = self._questions.asks_for(question) or self._bulk.asks_for(question)
        return None if node is None else node.task

    def give_up(self, question: asyncio.Future[Any]) -> list[tuple[Task, str]]:
        """A question is not waited for any longer: whom it was about, and where it is. Empty if it is no question."""
        return self._questions.give_up(question) or self._bulk.give_up(question)

    def close(self) -> None:
        """The last build has ended."""
        self._hooks.close()
        self._bulk.close()


def _forced(account: Account, task: Task) -> bool:
    return task._definition.has_run and not task._definition.external and account.forces(task)


def _required(node: Node) -> Iterator[Any]:
    """What ``requires()`` gives, leaf by leaf; its structure is kept for ``input()``."""
    structure = node.task.requires()
    if type(structure) is list:
        for item in structure:
            if not isinstance(item, Task):
                break
        else:
            node.structure = structure
            return iter(structure)  # the common case, in a fifth of the time
    if isinstance(structure, Iterator):
        return _read(node, structure)
    node.structure = structure = settle(structure)
    return leaves(structure)


def _read(node: Node, structure: Iterator[Any]) -> Iterator[Any]:
    node.structure = kept = []
    for item in structure:
        kept.append(settle(item))
        yield from leaves(kept[-1])


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
