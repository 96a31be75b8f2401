"""Who hears of a node: the build that pays for it, and every other that has joined it, or something that needs it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from .graph import FINAL, RUNNING, SUSPENDED, Build, Node

__all__ = ["Followers"]

SLICE = 500  # nodes between two looks at the clock


class Followers:
    """The builds, beside its own, that are told of each node. Nothing where nobody listens, or nothing is shared."""

    def __init__(self) -> None:
        self.late: deque[tuple[Build, Node]] = deque()  # nodes at work, of which somebody has to be told only now
        self.of: dict[Node, dict[Build, None]] = {}  # looked at where every node passes by, so not through a method
        self._below: list[tuple[Build, Node]] = []  # followed, and what they wait for is not yet

    def add(self, build: Build, node: Node) -> None:
        """``build`` is told of ``node`` from now on, and of what that waits for when ``spread`` has got there."""
        if node.state >= FINAL or node.build is build:
            return
        builds = self.of.setdefault(node, {})
        if build not in builds:
            builds[build] = None
            self._below.append((build, node))
            if node.state == RUNNING or node.state == SUSPENDED:
                self.late.append((build, node))

    def inherit(self, node: Node, dep: Node) -> None:
        """``node`` waits for ``dep``: whoever hears of the one hears of the other."""
        for build in self.of.get(node, ()):
            self.add(build, dep)

    def spread(self) -> Iterator[None]:
        """Find what the followed nodes wait for; pauses at each ``yield``."""
        steps = 0
        while self._below:
            build, node = self._below.pop()
            if build.closed:
                continue
            steps += 1 + len(node.deps)
            for dep in node.deps:
                self.add(build, dep)
            for demand in node.children:
                for root in demand.roots:
                    self.add(build, root)
            if steps > SLICE:
                steps = 0
                yield

    def hearing(self, node: Node) -> list[Build]:
        """The builds that are to be told of ``node``. Any thread."""
        builds = [node.build] if node.build.listening else []
        return builds + [build for build in self.of.get(node, ()) if build is not node.build and not build.closed]

    def forget(self, node: Node) -> None:
        """It has its end, and they have been told."""
        self.of.pop(node, None)

    def clear(self) -> None:
        """Everything has its end."""
        self.of.clear()
        self._below.clear()
        self.late.clear()
