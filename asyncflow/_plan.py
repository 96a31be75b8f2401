"""``Plan``: what a build would do, and why, without doing any of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from . import graph
from .errors import describe
from .graph import Node

if TYPE_CHECKING:
    from ._task import Task

__all__ = ["Plan", "PlanItem"]

Action = Literal["run", "skip", "blocked", "missing", "unknown"]

_WORDS: dict[Action, str] = {"skip": "complete", "missing": "missing", "unknown": "unknown", "blocked": "blocked"}


@dataclass(frozen=True, slots=True)
class PlanItem:
    """What a build would do with one task."""

    task: Task
    action: Action
    """``run``; ``skip`` (complete); ``missing`` (absent, and external or not among the ``only`` tasks); ``unknown``;
    ``blocked`` (by one of these)."""
    reason: str

    def __str__(self) -> str:
        return f"{self.action.upper() if self.action == 'run' else self.action:<8}{self.task!r}  {self.reason}"


class Plan:
    """What a build of some tasks would do now; tasks found at run time (dynamic dependencies) are not in it."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        known: dict[Node, Action] = {}
        self.items: tuple[PlanItem, ...] = tuple(_item(node, _action(node, known)) for node in nodes)

    @property
    def to_run(self) -> tuple[Task, ...]:
        """The tasks that would run."""
        return tuple(item.task for item in self.items if item.action == "run")

    def summary(self) -> str:
        """``3 to run, 4 complete.  Nothing was executed.``"""
        counts = Counter(item.action for item in self.items)
        parts = [f"{counts['run']:,} to run"]
        parts += [f"{counts[action]:,} {word}" for action, word in _WORDS.items() if counts[action]]
        return f"{', '.join(parts)}.  Nothing was executed."

    def to_dict(self) -> dict[str, Any]:
        """The plan as JSON-ready values."""
        items = [
            {"task": str(i.task), "task_id": i.task.task_id, "action": i.action, "reason": i.reason} for i in self.items
        ]
        return {"schema": 1, "items": items}

    def to_json(self) -> str:
        """``to_dict()`` as one JSON document."""
        import json

        return json.dumps(self.to_dict())

    def __str__(self) -> str:
        return "\n".join([*(f"  {item}" for item in self.items), self.summary()])


def _item(node: Node, action: Action) -> PlanItem:
    return PlanItem(node.task, action, _reason(node, action))


def _action(node: Node, known: dict[Node, Action]) -> Action:
    """What would happen with ``node``; without recursion, since graphs are deep."""
    stack = [node]
    while stack:
        top = stack[-1]
        if top in known:
            stack.pop()
            continue
        todo = [dep for dep in top.deps if dep not in known]
        if todo and top.state < graph.FINAL:
            stack += todo
            continue
        known[top] = _from_dependencies(top, known)
        stack.pop()
    return known[node]


def _from_dependencies(node: Node, known: dict[Node, Action]) -> Action:
    if node.state == graph.MISSING:
        return "missing"
    if node.state == graph.UNKNOWN:
        return "unknown"
    if node.state <= graph.THERE and node.state >= graph.FINAL:
        return "skip"
    if node.flags & graph.EXCLUDED:
        return "skip" if node.flags & graph.BYPASSED else "missing"
    below = {known[dep] for dep in node.deps}
    if below & {"missing", "unknown", "blocked"}:
        return "blocked"
    return "skip" if node.flags & graph.WRAPPER and below <= {"skip"} else "run"


def _reason(node: Node, action: Action) -> str:
    if action == "skip":
        return "complete"
    if action == "missing" and node.flags & graph.EXCLUDED:
        return "not among the `only` tasks, and not complete"
    if action == "missing":
        return f"external, not there: {node.output!r}"
    if action == "unknown":
        return f"cannot tell whether it is complete: {describe(node.error)}"
    if action == "blocked":
        return "something it requires is missing or unknown"
    if node.reason == "output missing":
        return f"output missing: {node.output!r}"
    return node.reason or ""
