"""What one scheduler shares with the others of its process: flights, locks, and rings that lead through them.

A node that waits for one of another loop is parked as LOCKING, without a place, and listed in ``abroad``. The
other loop's scheduler is told of nothing as long as a build of its own wants the flight. When the last of those
leaves, and somebody abroad has joined, or claims it and is going to, a *guest* build takes the flight over, with all
it has asked for; it ends with the flight, or when the last one abroad has left.

Schedulers speak to each other by ``post``: a call that is made in the other's loop, some time later. Two things
nobody says: that a loop was closed in the middle of a flight, and that a ring of waiting bodies leads through
several loops. Both last for ever, so it is enough to look now and then (``look_round``). For rings each
scheduler sends a probe along what it waits for (Chandy, Misra and Haas, "Distributed deadlock detection", 1983):
each follows its own edges only, and a probe that comes back has gone round a ring.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from typing import Any, Protocol

from .cycles import find_way, tasks_of, ways_abroad
from .errors import CycleError
from .graph import (
    BLOCKED,
    CANCELLING,
    FAILED,
    GOING,
    LOCKING,
    READY,
    SETTLED,
    SUCCEEDED,
    WAITING,
    Build,
    Demand,
    Node,
)
from .hub import Hub, at_work, shares

__all__ = ["Sharing"]

PROBES = 64  # sent in one look; the others have their turn at the next ones

_numbers = count()


class Host(Protocol):
    """What the scheduler does for it."""

    sharing: Sharing

    def look_again(self, node: Node) -> None:
        """Is the output of ``node``, which is LOCKING, there by now?"""

    def share(self, node: Node, state: int) -> None:
        """``node`` has its final ``state``, and its value or error, without having run."""

    def answer(self, demand: Demand) -> None:
        """``demand`` gets what it has got so far."""

    def adopt(self, build: Build) -> None:
        """Take a build in whose demand is there already."""

    def close(self, demand: Demand) -> None:
        """Drop the demand of a build."""


class Sharing:
    """The dealings of one scheduler with the hub.

    ``post(call, *args)`` makes ``call(*args)`` in the scheduler's own loop, from any thread. ``gone()`` says
    whether that loop will never run again.
    """

    def __init__(self, host: Host, hub: Hub, post: Callable[..., object], gone: Callable[[], bool]) -> None:
        self._host = host
        self.hub = hub
        self.post = post
        self.gone = gone
        self.number = next(_numbers)
        self.abroad: dict[Node, None] = {}  # nodes that wait for one of another loop
        self.told = False  # a body was told of a ring: it goes on, perhaps in a build that was passed over

    # Waiting for others --------------------------------------------------------------------------------

    def may_run(self, node: Node) -> bool:
        """Whether ``node`` is at work from now on. If not, it is parked, and is heard of again."""
        holder = self.hub.enter(node)
        if holder is None:
            return True
        node.state = LOCKING
        if holder is node:
            self._host.look_again(node)
            return False
        node.holder = holder
        if _of(holder) is not self:
            self.abroad[node] = None
        elif (way := find_way([holder], node, self.hub)) is not None:
            self._break(way, way)
        return False

    def leave(self, node: Node) -> None:
        """``node`` does not wait any more: it has its end."""
        holder, node.holder = node.holder, None
        self.abroad.pop(node, None)
        if holder is not None and self.hub.leave(node, holder):
            _tell(holder, Sharing.deserted, holder)

    def released(self, node: Node, holder: Node) -> None:
        """``holder``, for which ``node`` waited, has its end, or will never have one."""
        if node.holder is not holder and not (node.holder is None and node.state in (WAITING, READY)):
            return  # it has left, or was never going to wait
        node.holder = None
        self.abroad.pop(node, None)
        if shares(node, holder) and holder.state in (SUCCEEDED, FAILED, BLOCKED):
            node.value, node.error = holder.value, holder.error
            times = holder.build.times[2 * holder.index : 2 * holder.index + 2]
            node.build.times[2 * node.index : 2 * node.index + 2] = times
            self._host.share(node, holder.state)
        elif node.state == LOCKING:
            self._host.look_again(node)

    # Others waiting for us -----------------------------------------------------------------------------

    def end(self, node: Node, was_at_work: bool) -> None:
        """``node`` has its final state: give up its claims, and tell those who wait for that."""
        flights = () if was_at_work else self.hub.flights(node)
        for other in self.hub.end(node, was_at_work):
            _tell(other, Sharing.released, other, node)
        for other in flights:
            _tell(other, Sharing.deserted, other)

    def keep(self, node: Node) -> bool:
        """``node`` is wanted by no build of this loop any more. True: it goes on, for others that share it."""
        if not at_work(node) or node.flags & CANCELLING or not self.hub.shared(node):
            return False
        build = node.build
        guest = Build(build.budget)
        guest.guest = True
        guest.owner = build.owner
        guest.table = build.table  # what it asks for is planned as its own build would have it
        guest.retries = build.retries
        demand = Demand(guest)
        demand.state = GOING
        demand.roots.append(node)
        demand.remaining = node.wanted = 1
        node.roots_of = {demand: 1}
        self._host.adopt(guest)
        return True

    def deserted(self, node: Node) -> None:
        """One that shared ``node``, or was going to, has left."""
        # Not what a body that a guest pays for has asked for: that is a demand of its own.
        guest = next((demand for demand in node.roots_of if demand.build.guest and demand.parent is None), None)
        if guest is not None and not self.hub.shared(node):
            self._host.close(guest)

    def bury(self, node: Node) -> None:
        """The loop of ``node`` is gone: it publishes nothing more, and makes nothing any more."""
        if node.attempt is not None:
            node.attempt.fence()  # a thread of it may still be alive
        self.end(node, at_work(node))

    # What nobody says ----------------------------------------------------------------------------------

    def look_round(self) -> None:
        """Have loops gone that somebody here waits for? Do bodies wait for each other over several loops?"""
        for node in list(self.abroad):
            holder = node.holder
            if holder is not None and _of(holder).gone():
                self.bury(holder)
        for node in list(self.abroad)[:PROBES]:
            del self.abroad[node]
            self.abroad[node] = None  # to the end of the row
            assert node.holder is not None
            _tell(node.holder, Sharing.probe, node.holder, node, (node,))

    def probe(self, holder: Node, origin: Node, trail: tuple[Node, ...]) -> None:
        """``origin`` waits for ``holder``, which is made here, along ``trail``. Does that wait for ``origin``?"""
        if not at_work(holder):
            return
        for way in ways_abroad(holder):
            last = way[-1]
            path = (*trail, *way)
            if last is origin:
                # Each loop on the ring finds it. One of them speaks, or several bodies would be told.
                if self.number == min(_of(node).number for node in path):
                    self._break(way, path[:-1])
            elif last.holder is not None and last.holder not in trail:
                _tell(last.holder, Sharing.probe, last.holder, origin, path)

    def _break(self, way: list[Node], ring: list[Node] | tuple[Node, ...]) -> None:
        """The body of the first node on ``way`` waits for the second, and so on round: it is told so, and goes on."""
        holder, following = way[0], way[1]
        demand = next((child for child in holder.children if child.state < SETTLED and following in child.roots), None)
        if demand is not None:
            start = ring.index(holder)
            path = [*ring[start:], *ring[:start], holder]
            demand.problems.append((None, CycleError(list(_without_repeats(tasks_of(path))))))
            self._host.answer(demand)
            self.told = True


def _of(node: Node) -> Sharing:
    sharing: Sharing = node.build.home.sharing
    return sharing


def _tell(node: Node, call: Callable[..., object], *args: Any) -> None:
    """Make ``call(sharing, *args)`` in the loop of ``node``."""
    sharing = _of(node)
    sharing.post(call, sharing, *args)


def _without_repeats(path: list[Any]) -> Iterator[Any]:
    """A node that has joined a flight, and the node that flies, are one task."""
    previous = None
    for task in path:
        if task != previous:
            yield task
        previous = task
