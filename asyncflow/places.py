"""Who may run next: the places of each build, and the queues before them.

A body takes a place of its build and one of its lane. It gives both back while it waits for other tasks, and
when it ends.
"""

from __future__ import annotations

from collections.abc import Callable

from .graph import DELIVERED, READY, RUNNING, SETTLED, Build, Demand, Node

__all__ = ["Places"]


class Places:
    """The places of all builds of one scheduler. ``may_run(node)`` says whether nobody else is making it."""

    def __init__(self, may_run: Callable[[Node], bool]) -> None:
        self.builds: list[Build] = []
        self._may_run = may_run
        self._turn = 0  # whose turn it is among the builds

    def queue(self, node: Node, *, first: bool = False) -> None:
        """``node`` may run as soon as there is a place for it."""
        node.state = READY
        ready = node.build.lanes[node.lane].ready
        if first:
            ready.appendleft(node)
        else:
            ready.append(node)

    def queue_answer(self, demand: Demand, node: Node) -> None:
        """The body of ``node`` may go on with the answer to ``demand`` as soon as there is a place for it."""
        node.build.lanes[node.lane].resumes.append(demand)

    def take(self, node: Node) -> None:
        """``node`` takes its place, whether there is one or not."""
        node.state = RUNNING
        node.build.running += 1
        node.build.lanes[node.lane].running += 1

    def give_back(self, node: Node) -> None:
        """``node`` gives its place back."""
        node.build.running -= 1
        node.build.lanes[node.lane].running -= 1

    def deliver(self, demand: Demand) -> None:
        """A body gets the answer to ``demand``; after its last one it is at work again."""
        demand.state = DELIVERED
        node = demand.parent
        assert node is not None
        node.outstanding -= 1
        if not node.outstanding:
            self.take(node)

    def next(self) -> Node | Demand | None:
        """The next thing there is a place for, which it has then: a node to start, or a demand to answer."""
        builds = self.builds
        for _ in range(len(builds)):
            self._turn = (self._turn + 1) % len(builds)
            build = builds[self._turn]
            if build.running < build.concurrency:
                step = self._next_of(build)
                if step is not None:
                    return step
        return None

    def _next_of(self, build: Build) -> Node | Demand | None:
        for lane in build.lanes:
            if lane.running >= lane.limit:
                continue
            # Bodies that were entered come first: they hold locks and memory.
            while lane.resumes:
                demand = lane.resumes.popleft()
                if demand.state == SETTLED:
                    self.deliver(demand)
                    return demand
            while lane.ready:
                node = lane.ready.popleft()
                if node.state != READY:
                    continue  # cancelled while it waited
                if not self._may_run(node):
                    continue
                self.take(node)
                return node
        return None

    def move(self, node: Node, heir: Build) -> None:
        """``node`` goes from the account of its build to that of ``heir``, with its place and its times."""
        build = node.build
        at_work = node.state == RUNNING
        if at_work:
            self.give_back(node)
        times = build.times[2 * node.index : 2 * node.index + 2]
        node.build, node.index = heir, len(heir.nodes)
        heir.nodes.append(node)
        heir.times.extend(times)
        if at_work:
            self.take(node)
        elif node.state == READY:
            self.queue(node)
        for demand in node.children:
            demand.build = heir
            if demand.state == SETTLED:
                self.queue_answer(demand, node)
