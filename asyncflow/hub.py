"""Who makes what, anywhere in this process: one register of claims for the builds of all loops and threads.

Nodes claim what they would make when they are planned: the keys of their targets, or the task itself where
no key says what that is. A claim nobody else has is the lock, so the common case costs one dictionary entry.
Where two nodes claim one thing only one of them is at work at a time. If the other is the same task it *joins*
this flight and shares its outcome; if it is another task that would make the same target, it waits for the
lock, and looks again afterwards. All claims of a node are taken in one step, so never in a wrong order.

A node claims what it has looked for and not found. Somebody may have made it between the look and the claim, so the
hub remembers for a while what has ended, and has those look again that looked before.

One ``threading.Lock``, short sections, and no callback in any of them. It tells who has to be told, and the
schedulers do that.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Hashable, Sequence

from .graph import EXCLUDED, FORCED, NONE, RUNNING, SUCCEEDED, SUSPENDED, Node

__all__ = ["Hub", "hub"]

LATELY = 4096  # ends that are remembered at least


class _Contest:
    """Several nodes claim one thing."""

    __slots__ = ("at_work", "nodes")

    def __init__(self, first: Node) -> None:
        self.nodes: dict[Node, None] = {first: None}
        self.at_work = first if first.state >= RUNNING else None  # also when it has its end, and has not said so yet


class _Queue:
    """Who waits for the end of one node, and how many of them share its outcome."""

    __slots__ = ("joined", "nodes")

    def __init__(self) -> None:
        self.nodes: dict[Node, bool] = {}  # in order of arrival; whether it has joined
        self.joined = 0


class _Ends:
    """What has been at work and has ended, in order. Exact for the last ``LATELY`` keys; then it says "perhaps"."""

    __slots__ = ("_begun", "_forgotten", "_newer", "_older")

    def __init__(self) -> None:
        self._newer: dict[int, int] = {}  # by the hash of the key, which keeps nothing alive
        self._older: dict[int, int] = {}
        self._begun = 0  # the time at which the newer ones began
        self._forgotten = 0  # the time of the last that is in neither

    def note(self, key: Hashable, now: int) -> None:
        """What claimed ``key`` has ended."""
        self._newer[hash(key)] = now
        if len(self._newer) == LATELY:
            self._older, self._newer = self._newer, {}
            self._forgotten, self._begun = self._begun, now

    def forget(self, now: int) -> None:
        """Free the memory: from now on it says "perhaps" of all that has been."""
        if self._newer or self._older:
            self._newer, self._older = {}, {}
            self._forgotten = self._begun = now

    def since(self, key: Hashable, time: int) -> bool:
        """Whether one that claimed ``key`` may have ended after ``time``."""
        number = hash(key)
        return time < self._forgotten or self._newer.get(number, self._older.get(number, 0)) > time


class Hub:
    """The claims of one process. Every method may be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._claims: dict[Hashable, Node | _Contest] = {}
        self._queues: dict[Node, _Queue] = {}
        self._outdated: set[Node] = set()  # a node at work has ended that claimed the same
        self.now = 0
        """The time by which ``claim`` tells whether what a node has seen still holds; it moves with every end."""
        self._ends = _Ends()

    def claim(self, node: Node) -> Sequence[Node]:
        """Claim ``node.keys``; the nodes that had claimed one of them before. It has looked after ``node.met``."""
        others: Sequence[Node] = NONE
        with self._lock:
            for key in node.keys:
                if node.met < self.now and self._ends.since(key, node.met):
                    self._outdated.add(node)
                held = self._claims.setdefault(key, node)
                if held is node:
                    continue
                if not isinstance(held, _Contest):
                    held = self._claims[key] = _Contest(held)
                others = [*others, *held.nodes]
                held.nodes[node] = None
        return others

    def enter(self, node: Node) -> Node | None:
        """``node`` is at work from now on (None), or waits for the end of the node that is returned.

        ``node`` itself is returned if somebody has been at work on what it claims since it last looked: it has
        to look again, and then to come back.
        """
        with self._lock:
            for key in node.keys:
                if self._claims[key] is not node:
                    other = self._in_the_way(node)
                    break
            else:
                other = self._in_the_way(node) if self._outdated else None
            if other is None:
                node.state = RUNNING
        return other

    def _in_the_way(self, node: Node) -> Node | None:
        contested = [held for key in node.keys if isinstance(held := self._claims[key], _Contest)]
        for contest in contested:
            other = contest.at_work
            if other is not None:
                if not at_work(other):
                    return node  # it has its end, and is about to say so in a thread of its own
                queue = self._queues.setdefault(other, _Queue())
                joins = shares(node, other)
                queue.nodes[node] = joins
                queue.joined += joins
                return other
        if node in self._outdated:
            self._outdated.discard(node)
            return node
        for contest in contested:
            contest.at_work = node
        return None

    def end(self, node: Node, was_at_work: bool) -> Sequence[Node]:
        """Give up ``node``'s claims, once it has its final state; the nodes that have waited for that.

        Also those that were only going to run, where no key says what has been made: perhaps nothing but the value is
        left of it. Where there is more, they look again as well, since the news may come too late to them.
        """
        with self._lock:
            queue = self._queues.pop(node, None) if self._queues else None
            waiting = {} if queue is None else queue.nodes
            others: list[Node] = []
            if was_at_work:
                self.now += 1
            for key in node.keys:
                if was_at_work:
                    self._ends.note(key, self.now)
                held = self._claims.get(key)
                if held is node:
                    del self._claims[key]
                elif isinstance(held, _Contest) and node in held.nodes:
                    del held.nodes[node]
                    if held.at_work is node:
                        held.at_work = None
                    if was_at_work:
                        # Those that have waited for it look again anyway.
                        late = [other for other in held.nodes if other not in waiting]
                        told = key is node.task and node.state == SUCCEEDED
                        if told:
                            others = [other for other in late if shares(other, node)]
                        if not told or node.output is not None:
                            self._outdated.update(late)
                    if not held.nodes:
                        del self._claims[key]
            if self._outdated:
                self._outdated.discard(node)
            if not self._claims:
                self._ends.forget(self.now)
            if others:
                return [*waiting, *others]
        return list(waiting) if waiting else NONE

    def leave(self, node: Node, holder: Node) -> bool:
        """``node`` does not wait for ``holder`` any more; whether it was the last that had joined it."""
        with self._lock:
            queue = self._queues.get(holder)
            if queue is None or node not in queue.nodes:
                return False
            joined = queue.nodes.pop(node)
            queue.joined -= joined
            return joined and not queue.joined

    def shared(self, node: Node) -> bool:
        """Whether somebody shares the flight of ``node``, or is going to as soon as it is its turn."""
        with self._lock:
            queue = self._queues.get(node)
            if queue is not None and queue.joined > 0:
                return True
            contests = [held for key in node.keys if isinstance(held := self._claims.get(key), _Contest)]
            return any(_would_join(other, node) for contest in contests for other in contest.nodes)

    def flights(self, node: Node) -> Sequence[Node]:
        """The nodes at work that ``node``, which is not, would join: they may be kept going for it."""
        for key in node.keys:
            if type(self._claims.get(key)) is _Contest:
                break
        else:  # nearly always, and no need to hold the lock: what it contests stays contested while it claims it
            return ()
        with self._lock:
            contests = [held for key in node.keys if isinstance(held := self._claims.get(key), _Contest)]
            found = [contest.at_work for contest in contests if contest.at_work is not None]
            return [other for other in dict.fromkeys(found) if other is not node and shares(node, other)]

    def waiting_for(self, node: Node) -> Sequence[Node]:
        """The nodes that wait for the end of ``node``."""
        with self._lock:
            queue = self._queues.get(node)
            return list(queue.nodes) if queue is not None else NONE

    def __len__(self) -> int:
        return len(self._claims) + len(self._queues) + len(self._outdated)

    def forked(self) -> None:
        """In the child of a fork: what the parent's threads were making is theirs."""
        self.__init__()  # type: ignore[misc]


def at_work(node: Node) -> bool:
    """Whether ``node`` is making its targets now."""
    return node.state == RUNNING or node.state == SUSPENDED


def _would_join(node: Node, other: Node) -> bool:
    return node is not other and shares(node, other) and node.state < RUNNING and not node.flags & EXCLUDED


def shares(node: Node, other: Node) -> bool:
    """Whether ``node`` wants just what ``other`` is doing. A forced run is not content with an unforced one."""
    return node.task == other.task and bool(other.flags & FORCED or not node.flags & FORCED)


hub = Hub()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=hub.forked)
