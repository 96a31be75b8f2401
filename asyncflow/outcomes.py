"""What came of a node, in the words of its users: a value or output, or an exception."""

from __future__ import annotations

from typing import Any

from .errors import MissingInput, PlanError, TaskCancelled, TaskFailed, UpstreamFailed, describe
from .graph import BLOCKED, CANCELLED, EXCLUDED, MISSING, THERE, UNKNOWN, Demand, Node
from .tree import map_leaves

__all__ = ["answer", "failure", "root_cause", "settled", "value_of"]


def value_of(node: Node) -> Any:
    """The output of a task that has one, else its value."""
    return node.value if node.output is None else node.output


def answer(structure: Any, roots: list[Node]) -> Any:
    """``structure`` with its tasks, which are those of ``roots`` in order, replaced by their outcome.

    Raises the failure of the first that failed, with a note about the others.
    """
    failed = [node for node in roots if node.state > THERE]
    if failed:
        error = failure(failed[0])
        if len(failed) > 1:
            error.add_note(f"{len(failed)} of the {len(roots)} tasks asked for together did not succeed")
        raise error
    nodes = iter(roots)
    return map_leaves(structure, lambda _: value_of(next(nodes)))


def settled(demand: Demand, structure: Any) -> Any:
    """What a body gets for ``structure``, the tasks of a settled ``demand``. Raises ``PlanError``, or as ``answer``."""
    problems = [problem for _, problem in demand.problems]
    # One that was found to be wrong before, when somebody else asked for it.
    for root in demand.roots:
        problems += [problem for node, problem in root.demand.problems if node is root and problem not in problems]
    if problems:
        raise PlanError.of(problems)
    return answer(structure, demand.roots)


def root_cause(node: Node) -> Node:
    """The dependency at which the chain of blocked nodes from ``node`` down begins; ``node`` itself if it does."""
    while node.state == BLOCKED and node.cause is not None:
        node = node.cause
    return node


def failure(node: Node) -> TaskFailed | TaskCancelled:
    """The exception that stands for ``node`` where somebody waits for it."""
    task = node.task
    if node.state == CANCELLED:
        return TaskCancelled(task)
    cause = root_cause(node)
    error: TaskFailed
    if node.state == BLOCKED:
        # Thrown into its body and not caught there, or met before it ran.
        origin = node.error.task if isinstance(node.error, TaskFailed) else cause.task
        error = UpstreamFailed(task, f"{task!r} did not run to its end: {origin!r} {_what(cause)}")
    else:
        error = TaskFailed(task, f"{task!r} {_what(node)}")
    error.__cause__ = original(cause)
    return error


def original(node: Node) -> BaseException | None:
    """What went wrong at ``node`` itself."""
    if node.state == MISSING:
        if node.flags & EXCLUDED:
            return MissingInput(f"{node.task!r} is not among the `only` tasks of this build, and is not complete")
        return MissingInput(f"{node.task!r} is external, and its output is missing: {node.output!r}")
    if node.state == BLOCKED and isinstance(node.error, TaskFailed):
        return node.error.__cause__ or node.error
    return node.error


def _what(node: Node) -> str:
    if node.state == MISSING and node.flags & EXCLUDED:
        return "is not among the `only` tasks of this build, and is not complete"
    if node.state == MISSING:
        return f"is external and missing: {node.output!r}"
    if node.state == CANCELLED:
        return "was cancelled"
    if node.state == UNKNOWN:
        return f"is in an unknown state: {describe(node.error)}"
    return f"failed: {describe(original(node))}"
