"""What becomes of the nodes of a demand that is dropped: forgotten, or handed over to those who still want them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from .graph import DELIVERED, FINAL, LEFT, NONE, RUNNING, SUSPENDED, Build, Demand, Node
from .places import Places
from .sharing import Sharing

__all__ = ["Leaving"]


class Leaving:
    """Wants, taken back. ``forget(node)`` is called with each node that nobody wants any more."""

    def __init__(self, sharing: Sharing, places: Places, forget: Callable[[Node], None]) -> None:
        self._sharing = sharing
        self._places = places
        self._forget = forget
        self.orphans: dict[Node, None] = {}  # still wanted, and perhaps on the account of a build that has left

    def unwant(self, demand: Demand) -> None:
        """Take the demand's wants back, as far down as counts reach zero, without recursion."""
        stack, demand.roots = demand.roots, []
        for root in stack:
            if root.roots_of:
                root.roots_of.pop(demand, None)
        self._take_back(stack, demand.build)

    def let_go(self, node: Node) -> None:
        """``node`` has its end before all that it required has: it does not wait for that any more."""
        deps, node.deps, node.waiting = node.deps, NONE, 0
        for dep in deps:
            if node in dep.dependents:
                dep.dependents.remove(node)
        self._take_back(list(deps), node.build)

    def _take_back(self, stack: list[Node], build: Build) -> None:
        kept: list[Node] = []
        while stack:
            node = stack.pop()
            node.wanted -= 1
            if node.wanted or self._sharing.keep(node):
                kept.append(node)
                continue
            stack += node.deps
            for child in node.children:
                if child.state == DELIVERED:  # the others leave when the body has been stopped
                    child.state = LEFT
                    stack += child.roots
                    child.roots = []
            if node.build is not build and node.state in (RUNNING, SUSPENDED):
                self._places.move(node, build)  # who was the last to want it waits until it has stopped
            self._forget(node)
        self.orphans.update((node, None) for node in kept if node.build.closed)

    def orphan(self, build: Build) -> None:
        """``build`` has left: what is still wanted of what it has made goes to those who want it.

        Also what it did not want itself any more, and so was not reached by taking back what it did.
        """
        for node in build.nodes:
            if node.build is build and node.wanted and node.state < FINAL:
                self.orphans[node] = None

    def hand_over(self) -> None:
        """What a build that has left paid for, and others still want, goes to the account of one of those."""
        stack = list(self.orphans)
        self.orphans.clear()
        while stack:
            node = stack.pop()
            if not node.build.closed or not node.wanted:
                continue
            heir = next((build for build in _wanting(node) if not build.closed), None)
            if heir is None:
                continue  # its own dependents are handed over first, and come back to it
            self._places.move(node, heir)
            stack += node.deps
            for demand in node.children:
                if demand.state != LEFT:
                    stack += demand.roots


def _wanting(node: Node) -> Iterator[Build]:
    for demand in node.roots_of:
        yield demand.build
    for other in node.dependents:
        if other.wanted and other.state < FINAL:
            yield other.build
