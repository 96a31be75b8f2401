"""Who is urgent: priorities, which dependencies inherit, and the longest path that hangs on a task."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from .graph import DELIVERED, FINAL, READY, Node

__all__ = ["raise_priority", "rank"]

SLICE = 500  # edges walked between two looks at the clock


def rank(order: list[Node], queue: Callable[[Node], None]) -> Iterator[None]:
    """Rank what the nodes of ``order`` require; pauses at each ``yield``.

    ``order`` has every node after those it requires, as a depth-first walk leaves them: gone through backwards,
    each is met after all that wait for it.
    """
    edges = 0
    for node in reversed(order):
        below, priority = node.rank + 1, node.priority
        for dep in node.deps:
            if dep.rank < below:  # noqa: PLR1730  # a call of max() for every edge costs more
                dep.rank = below
            if dep.priority < priority:
                raise_priority(dep, priority, queue)
        edges += len(node.deps)
        if edges > SLICE:
            edges = 0
            yield


def raise_priority(node: Node, priority: float, queue: Callable[[Node], None]) -> None:
    """``node``, and with it all it waits for, is at least as urgent as ``priority``."""
    stack = [node]
    while stack:
        node = stack.pop()
        if node.priority >= priority or node.state >= FINAL:
            continue
        node.priority = priority
        if node.state == READY:
            queue(node)  # once more; the entry under its old key will find it gone
        stack += node.deps
        for demand in node.children:
            if demand.state < DELIVERED:
                stack += demand.roots
