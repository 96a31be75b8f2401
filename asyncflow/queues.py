"""Who is first: the queue before the places of a lane, and the pools of what bodies share."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from heapq import heappop, heappush
from typing import Any

__all__ = ["Key", "Pool", "Queue"]

Key = tuple[float, float, float]
"""Smaller goes first: priority, depth, remaining path, each with its sign turned."""


class Queue:
    """Smallest key first, and among equal keys first in, first out. O(1), but for a key that is new in it.

    Graphs have many nodes and few keys: a bucket for each key, and a heap of the keys alone.
    """

    __slots__ = ("_buckets", "_spare", "keys")

    def __init__(self) -> None:
        self._buckets: dict[Key, deque[Any]] = {}
        self._spare: deque[Any] | None = None  # an empty bucket: in a chain each node is alone with its key
        self.keys: list[Key] = []  # a heap: the smallest is the first; empty if the queue is

    def push(self, key: Key, item: Any, *, first: bool = False) -> None:
        """Queue ``item``; ``first``: before the others with the same key."""
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = self._buckets[key] = deque() if self._spare is None else self._spare
            self._spare = None
            heappush(self.keys, key)
        if first:
            bucket.appendleft(item)
        else:
            bucket.append(item)

    def peek(self) -> Any:
        """The first item, which stays. Raises ``IndexError`` if there is none."""
        return self._buckets[self.keys[0]][0]

    def pop(self) -> Any:
        """Take the first item out. Raises ``IndexError`` if there is none."""
        bucket = self._buckets[self.keys[0]]
        item = bucket.popleft()
        if not bucket:
            self._spare = self._buckets.pop(heappop(self.keys))
        return item

    def __iter__(self) -> Iterator[tuple[Key, Any]]:
        """Everything in it with its key, in order."""
        for key in sorted(self.keys):
            for item in self._buckets[key]:
                yield key, item


class Pool:
    """So many units of something: of a resource, given back by the body, or of a rate, given back by the clock.

    A rate is a number of starts and a ``period`` in seconds: a start takes a unit, which comes back ``period``
    later, so there are never more of them in any stretch of that length.
    """

    __slots__ = ("capacity", "free", "held", "name", "period", "spent", "waiting")

    def __init__(self, name: str, capacity: int, period: float = 0.0) -> None:
        self.name = name
        self.capacity = capacity
        self.free = capacity  # less than 0 where a body could not be made to wait
        self.period = period
        self.spent: deque[tuple[float, int]] = deque()  # when, and how many units: of a rate, in order of time
        self.held: dict[Any, int] = {}  # by bodies that wait for other tasks
        self.waiting = Queue()  # what would run if there were more
