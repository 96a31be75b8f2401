"""What a run looks like at one moment: counted when somebody asks, so it costs nobody else anything."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from ._task import Task
from .account import Account
from .errors import describe
from .events import BuildStatus, Status
from .graph import FAILED, MISSING, RUNNING, SUSPENDED, UNKNOWN, Node, status
from .parameters.frozen import FrozenDict
from .result import reachable

__all__ = ["RunSnapshot", "RunStatus", "TaskAtWork", "take"]

RunStatus: TypeAlias = Literal["running"] | BuildStatus
"""What ``run.status`` may be."""


@dataclass(frozen=True, slots=True)
class TaskAtWork:
    """A task whose body has been entered and has not ended."""

    task: Task
    status: Status
    """``running``, or ``suspended``: it waits for tasks it has asked for, or for its next attempt."""
    duration: float
    """Seconds since its attempt began."""
    progress: float | None
    """What the body has told by ``self.progress(fraction)`` last."""
    message: str

    def to_dict(self) -> dict[str, Any]:
        """As values that JSON has."""
        shown = {"status": self.status, "duration": self.duration, "progress": self.progress, "message": self.message}
        return {"task": self.task.task_id, **shown}


@dataclass(frozen=True, slots=True)
class RunSnapshot:
    """One run at one moment."""

    run_id: str
    status: RunStatus
    tags: Mapping[str, str]
    tasks: tuple[Task, ...]
    """Those the run was started for."""
    started: float
    """Seconds since the epoch."""
    duration: float
    """Seconds since then, or until it ended."""
    counts: Mapping[Status, int]
    """How many of the tasks that are known by now have which status."""
    at_work: tuple[TaskAtWork, ...]
    """In the order they were met."""
    errors: Mapping[Task, BaseException]
    """Of the tasks that failed by themselves, are missing or cannot be looked at."""
    why: str | None
    """Why it was stopped (``cancelled``), or could not be made at all: the ``PlanError`` that ``await run`` raises."""

    def to_dict(self) -> dict[str, Any]:
        """As values that JSON has: a task is its id, an error its class and message on one line."""
        return {
            "run_id": self.run_id,
            "status": self.status,
            "tags": dict(self.tags),
            "tasks": [task.task_id for task in self.tasks],
            "started": self.started,
            "duration": self.duration,
            "counts": dict(self.counts),
            "at_work": [task.to_dict() for task in self.at_work],
            "errors": {task.task_id: describe(error) for task, error in self.errors.items()},
            "why": self.why,
        }


def take(
    account: Account, tasks: Sequence[Task], tags: Mapping[str, str], error: BaseException | None = None
) -> RunSnapshot:
    """The snapshot of a run, which ``error`` has ended if it could not be made. Raises nothing."""
    nodes = _nodes(account)
    counts: Counter[Status] = Counter(status(node.state) for node in nodes)
    now = account.now()
    return RunSnapshot(
        run_id=account.run_id,
        status=account.status or "running",
        tags=tags,
        tasks=tuple(tasks),
        started=account.started,
        duration=(account.ended or now) - account.started,
        counts=FrozenDict[Status, int](counts),
        at_work=tuple(_at_work(node, now) for node in nodes if node.state in (RUNNING, SUSPENDED)),
        errors=FrozenDict(
            (node.task, node.error)
            for node in nodes
            if node.state in (FAILED, MISSING, UNKNOWN) and node.error is not None
        ),
        why=_why(account, error),
    )


def _why(account: Account, error: BaseException | None) -> str | None:
    if error is not None:
        return describe(error)
    return account.why if account.status == "cancelled" else None


def _nodes(account: Account) -> Sequence[Node]:
    demand = account.demand
    if account.status is not None or demand is None:
        return account.nodes
    return reachable(demand.roots) if demand.build.joined else list(demand.build.nodes)


def _at_work(node: Node, now: float) -> TaskAtWork:
    owner: Account = node.build.owner
    attempt = node.attempt
    fraction, message = (None, "") if attempt is None or attempt.progress is None else attempt.progress
    since = owner.epoch + node.build.times[2 * node.index]
    return TaskAtWork(node.task, status(node.state), max(0.0, now - since), fraction, message)
