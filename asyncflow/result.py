"""What came of a build: ``BuildResult``, and one ``TaskResult`` for each of its tasks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from . import graph
from .account import Account
from .errors import AsyncflowError, BuildFailed, TargetStateUnknown, describe
from .events import BuildStatus, FinalStatus
from .graph import Node, final_status
from .outcomes import failure, original, root_cause, value_of

if TYPE_CHECKING:
    from ._task import Task

__all__ = ["AttemptResult", "BuildResult", "TaskResult"]


@dataclass(frozen=True, slots=True)
class AttemptResult:
    """One attempt at a task. Times are in seconds since the epoch; ``error`` is what its body raised, if it did."""

    started: float
    finished: float
    error: BaseException | None

    def to_dict(self) -> dict[str, Any]:
        """The attempt as JSON-ready values."""
        error = None if self.error is None else describe(self.error)
        return {"started": self.started, "finished": self.finished, "error": error}


@dataclass(frozen=True, slots=True)
class TaskResult:
    """What came of one task in one build. Times are in seconds, ``started`` and ``finished`` since the epoch."""

    task: Task
    status: FinalStatus
    reason: str | None
    """Why it had to run: ``output missing``, ``no output``, ``complete() is False``, ``forced``; None if it had not."""
    value: Any
    """What ``run()`` returned, for a task without an output."""
    output: Any
    """Its target or targets, as ``output()`` gave them; None for a task without."""
    error: BaseException | None
    """What its body raised, or why its state is unknown or its input missing."""
    blocked_by: Task | None
    """The task at the root of the failure that kept this one from running to its end."""
    attempts: tuple[AttemptResult, ...]
    """Every attempt that was made, in order; none if it did not run."""
    started: float | None
    """When the last attempt began."""
    finished: float | None

    @property
    def duration(self) -> float:
        """Seconds between the start of the last attempt and its end; 0 if it did not run."""
        return 0.0 if self.started is None or self.finished is None else self.finished - self.started


class BuildResult:
    """What came of a build. True if every task that was asked for is there.

    ``result[task]`` is the task's target, or its value if it has none; it raises ``KeyError`` for a task the
    build did not meet, and the task's failure if it failed.
    """

    def __init__(self, account: Account, roots: Sequence[Node], nodes: Sequence[Node]) -> None:
        self._account = account
        self._roots = roots
        self._nodes = nodes
        self.run_id = account.run_id
        self.started = account.started
        """When the build was asked for, in seconds since the epoch."""
        self.status: BuildStatus = _status(roots, nodes, stopped=account.why is not None)
        self.why = account.why if self.status == "cancelled" else None
        """What stopped it, if it was stopped: its timeout, or ``run.cancel()``."""
        self.finished = account.now()
        """When it had ended, in seconds since the epoch."""

    @property
    def ok(self) -> bool:
        """Whether every task that was asked for is there."""
        return self.status == "succeeded"

    def __bool__(self) -> bool:
        return self.ok

    @property
    def duration(self) -> float:
        """Seconds from the call to the end."""
        return self.finished - self.started

    @cached_property
    def _by_task(self) -> dict[Task, Node]:
        return {node.task: node for node in self._nodes}

    def __getitem__(self, task: Task) -> Any:
        node = self._by_task[task]
        if node.state > graph.THERE:
            raise failure(node)
        return value_of(node)

    @cached_property
    def tasks(self) -> Mapping[Task, TaskResult]:
        """Every task the build met, in the order it met them."""
        return {task: self._result(node) for task, node in self._by_task.items()}

    def _result(self, node: Node) -> TaskResult:
        started, finished = (
            time + self._account.epoch if time else None
            for time in node.build.times[2 * node.index : 2 * node.index + 2]
        )
        epoch = self._account.epoch
        attempts = [
            AttemptResult(start + epoch, end + epoch, error) for start, end, error in node.build.failures.get(node, ())
        ]
        if started is not None and finished is not None:
            error = node.error
            # One that was given up between two attempts has none but those.
            if not attempts or started > attempts[-1].started:
                attempts.append(AttemptResult(started, finished, error))
        blocker = None
        if node.state == graph.BLOCKED:
            blocker = getattr(node.error, "task", None) or root_cause(node).task
        return TaskResult(
            node.task,
            final_status(node.state),
            node.reason if started is not None else None,
            node.value,
            node.output,
            original(node) if node.state != graph.BLOCKED else None,
            blocker,
            tuple(attempts),
            started,
            finished,
        )

    @cached_property
    def counts(self) -> Mapping[FinalStatus, int]:
        """How many tasks ended in each status; statuses without any are left out."""
        counts = Counter(node.state for node in self._by_task.values())
        return {final_status(state): counts[state] for state in sorted(counts)}

    def _with(self, *states: int) -> tuple[Task, ...]:
        return tuple(task for task, node in self._by_task.items() if node.state in states)

    @property
    def ran(self) -> tuple[Task, ...]:
        """The tasks whose body ran here and succeeded."""
        return self._with(graph.SUCCEEDED)

    @property
    def skipped(self) -> tuple[Task, ...]:
        """The tasks that were complete already."""
        return self._with(graph.COMPLETE, graph.ADOPTED)

    @property
    def failed(self) -> tuple[Task, ...]:
        """The tasks whose body failed: the root causes only."""
        return self._with(graph.FAILED)

    @property
    def blocked(self) -> tuple[Task, ...]:
        """The tasks that could not run to their end because of one that failed or is missing."""
        return self._with(graph.BLOCKED)

    @property
    def missing(self) -> tuple[Task, ...]:
        """What is not there, and not this build's to make: it is external, or not among the ``only`` tasks."""
        return self._with(graph.MISSING)

    @property
    def unknown(self) -> tuple[Task, ...]:
        """The tasks of which it could not be established whether they are complete."""
        return self._with(graph.UNKNOWN)

    @property
    def exit_code(self) -> int:
        """What the command line exits with: 0 all there, 1 a task failed, 4 something unknown, 3 an input missing."""
        if self.ok:
            return 0
        return next((code for tasks, code in ((self.failed, 1), (self.unknown, 4), (self.missing, 3)) if tasks), 1)

    def errors(self) -> Iterator[Exception]:
        """One exception for each root cause: ``TaskFailed``, ``MissingInput`` or ``TargetStateUnknown``."""
        for node in self._by_task.values():
            if node.state == graph.FAILED:
                yield failure(node)
            elif node.state == graph.MISSING:
                error = original(node)
                assert isinstance(error, AsyncflowError)
                yield error
            elif node.state == graph.UNKNOWN:
                unknown = TargetStateUnknown(f"cannot tell whether {node.task!r} is complete: {describe(node.error)}")
                unknown.__cause__ = node.error
                yield unknown

    def raise_for_failure(self) -> None:
        """Raise ``BuildFailed``, a group with one exception for each root cause, unless the build succeeded."""
        if not self.ok:
            errors = list(self.errors()) or [failure(node) for node in self._roots if node.state > graph.THERE]
            raise BuildFailed(f"build {self.run_id} {self.status}: {self.summary()}", errors)

    def summary(self) -> str:
        """``3 succeeded, 1 failed, 2 blocked in 0.9 s``."""
        counts = ", ".join(f"{count:,} {status}" for status, count in self.counts.items()) or "nothing to do"
        return f"{counts} in {self.duration:.2g} s" if self.duration < 10 else f"{counts} in {self.duration:,.0f} s"

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON-ready values; tasks stand as their ids."""
        return {
            "schema": 1,
            "run_id": self.run_id,
            "status": self.status,
            "why": self.why,
            "started": self.started,
            "finished": self.finished,
            "counts": dict(self.counts),
            "tasks": [
                {
                    "task": str(result.task),
                    "task_id": result.task.task_id,
                    "status": result.status,
                    "reason": result.reason,
                    "output": None if result.output is None else repr(result.output),
                    "error": None if result.error is None else describe(result.error),
                    "blocked_by": None if result.blocked_by is None else result.blocked_by.task_id,
                    "started": result.started,
                    "finished": result.finished,
                    "attempts": [attempt.to_dict() for attempt in result.attempts],
                }
                for result in self.tasks.values()
            ],
        }

    def to_json(self) -> str:
        """``to_dict()`` as one JSON document."""
        import json

        return json.dumps(self.to_dict())

    def __repr__(self) -> str:
        return f"<BuildResult {self.run_id} {self.status}: {self.summary()}>"


def _status(roots: Sequence[Node], nodes: Sequence[Node], *, stopped: bool) -> BuildStatus:
    if all(node.state <= graph.THERE for node in roots):
        return "succeeded"
    if stopped:
        return "cancelled"
    states = {node.state for node in nodes}
    if states & {graph.FAILED, graph.UNKNOWN}:
        return "failed"
    if graph.MISSING in states:
        return "incomplete"
    # Blocked, and nothing here says by what: by a failure inside a flight of another build.
    return "failed" if graph.BLOCKED in states and graph.CANCELLED not in states else "cancelled"


def ended(nodes: Sequence[Node]) -> list[Node]:
    """``nodes`` as they are for a build that was stopped: what goes on for others has been cancelled for this one."""
    return [node if node.state >= graph.FINAL else _left(node) for node in nodes]


def _left(node: Node) -> Node:
    build = graph.Build(graph.Budget(0, ()))
    build.times.extend((node.build.times[2 * node.index], 0.0))
    node, original = copy(node), node
    if original in original.build.failures:
        build.failures[node] = original.build.failures[original][:]
    node.build, node.index, node.state = build, 0, graph.CANCELLED
    return node


def reachable(roots: Sequence[Node]) -> list[Node]:
    """Every node below ``roots``, themselves included, static and dynamic dependencies alike."""
    seen = dict.fromkeys(roots)
    stack = list(roots)
    while stack:
        node = stack.pop()
        below = [*node.deps, *(root for demand in node.children for root in demand.roots)]
        fresh = [other for other in below if other not in seen]
        seen.update(dict.fromkeys(fresh))
        stack += fresh
    return list(seen)
