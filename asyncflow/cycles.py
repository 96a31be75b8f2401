"""Are there tasks that wait for each other? Asked of every plan before any of it runs.

The static part is one depth-first walk over the nodes that no plan has verified yet, so each node is walked
once in its life. A cycle that a body closes at run time has to lead back to that body through nodes that
were verified before: that part is one search from both ends, which costs what the smaller end costs.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from ._task import Task
from .graph import DELIVERED, FINAL, LOCKING, NONE, ON_PATH, VERIFIED, WAITING, Demand, Node
from .hub import Hub, at_work

__all__ = ["above", "find_cycles", "find_way", "tasks_of", "ways_abroad"]

SLICE = 500  # edges walked between two looks at the clock


def find_cycles(demand: Demand, found: list[list[Node]], order: list[Node], hub: Hub) -> Iterator[None]:
    """Append to ``found`` the path of every cycle that ``demand`` closes; pauses at each ``yield``.

    Marks the nodes it walked as VERIFIED, and appends those that require something to ``order``, each after what
    it requires. Has to be run to its end, and one at a time per scheduler.
    """
    border: list[Node] = []  # verified nodes the new ones wait for
    steps = 0
    if demand.parent is None:  # nobody asks for its border
        yield from _verify_from_below(demand.fresh, order)
    # A demand that has left names no roots any more, but others may want what it was planning.
    path: list[Node] = []
    ways = [iter(demand.roots or demand.fresh)]
    while ways:
        for node in ways[-1]:
            steps += 1
            if not steps % SLICE:
                yield
            if node.state >= FINAL:
                continue
            if node.flags & VERIFIED:
                border.append(node)
            elif node.flags & ON_PATH:
                found.append([*path[path.index(node) :], node])
            elif node.deps:
                node.flags |= ON_PATH
                path.append(node)
                ways.append(iter(node.deps))
                break
            elif node.state >= WAITING:
                node.flags |= VERIFIED
        else:
            ways.pop()
            if path:
                node = path.pop()
                node.flags &= ~ON_PATH
                order.append(node)
                if node.state >= WAITING:  # one that another plan is still expanding is walked again by that plan
                    node.flags |= VERIFIED
    if demand.parent is not None and demand.roots:
        parent = demand.parent
        if parent in demand.roots:
            found.append([parent, parent])
        elif border and (way := find_way(border, parent, hub)):
            found.append([parent, *_lead_in(demand, way[0]), *way])


def _verify_from_below(fresh: list[Node], order: list[Node]) -> Iterator[None]:
    """The same for nodes whose dependencies have all been verified, without a path to keep.

    Most graphs are met from the top down, so that this leaves nothing for the walk.
    """
    steps = 0
    for node in reversed(fresh):
        steps += 1 + len(node.deps)
        if steps > SLICE:
            steps = 0
            yield
        if node.state != WAITING:
            continue
        for dep in node.deps:
            if dep.state < FINAL and not dep.flags & VERIFIED:
                break
        else:
            node.flags |= VERIFIED
            if node.deps:
                order.append(node)


def _abroad(node: Node, other: Node) -> bool:
    return node.build.home is not other.build.home


def _after(node: Node) -> Iterator[Node]:
    """What ``node`` waits for in its own loop."""
    if node.state == LOCKING and node.holder is not None and not _abroad(node, node.holder):
        yield node.holder
    for dep in node.deps:
        if dep.state < FINAL:
            yield dep
    for demand in node.children:
        if demand.state < DELIVERED:
            for root in demand.roots:
                if root.state < FINAL:
                    yield root


def _before(node: Node, hub: Hub | None) -> Iterator[Node]:
    """What waits for ``node`` in its own loop; without the ``hub``, less what waits for its locks."""
    yield from node.dependents
    if hub is not None and at_work(node):
        for other in hub.waiting_for(node):
            if not _abroad(node, other):
                yield other
    for demand in node.roots_of:
        if demand.parent is not None:
            yield demand.parent


def find_way(sources: list[Node], goal: Node, hub: Hub) -> list[Node] | None:
    """A way along "waits for" from one of ``sources`` to ``goal``, looked for from both ends in turn."""
    down: dict[Node, Node | None] = dict.fromkeys(sources)  # node -> the one it was reached from
    up: dict[Node, Node | None] = {goal: None}
    forward, backward = deque(down), deque(up)
    meeting = goal if goal in down else None
    while meeting is None and forward and backward:
        node = forward.popleft()
        for other in _after(node):
            if other not in down:
                down[other] = node
                forward.append(other)
                if other in up:
                    meeting = other
        node = backward.popleft()
        for other in _before(node, hub):
            if other not in up:
                up[other] = node
                backward.append(other)
                if other in down:
                    meeting = other
    if meeting is None:
        return None
    return [*reversed(_trail(meeting, down)), *_trail(meeting, up)[1:]]


def ways_abroad(source: Node) -> Iterator[list[Node]]:
    """The way along "waits for" from ``source`` to each node that waits for one of another loop."""
    origin: dict[Node, Node | None] = {source: None}
    queue = deque(origin)
    while queue:
        node = queue.popleft()
        if node.state == LOCKING and node.holder is not None and _abroad(node, node.holder):
            yield list(reversed(_trail(node, origin)))
        for other in _after(node):
            if other not in origin:
                origin[other] = node
                queue.append(other)


def above(node: Node) -> Iterator[Node]:
    """Every node of the same loop that waits for ``node``, directly or not."""
    seen = {node}
    stack = [node]
    while stack:
        for other in _before(stack.pop(), None):
            if other not in seen:
                seen.add(other)
                stack.append(other)
                yield other


def _trail(node: Node, origin: dict[Node, Node | None]) -> list[Node]:
    trail = [node]
    while (back := origin[trail[-1]]) is not None:
        trail.append(back)
    return trail


def _lead_in(demand: Demand, goal: Node) -> list[Node]:
    """The way from one of the demand's roots to ``goal``, without ``goal``, through nodes met just now."""
    origin: dict[Node, Node | None] = dict.fromkeys(demand.roots)
    queue = deque(origin)
    while queue and goal not in origin:
        node = queue.popleft()
        for dep in node.deps:
            if dep not in origin:
                origin[dep] = node
                queue.append(dep)
    return list(reversed(_trail(goal, origin)))[:-1] if goal in origin else NONE


def tasks_of(path: list[Node]) -> list[Task]:
    """The tasks along a path of nodes."""
    return [node.task for node in path]
