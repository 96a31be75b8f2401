"""Who makes which target: the lock per target, inside one scheduler.

A *flight* (one run, its value shared) is keyed by the task; a *lock* by the target. Nodes claim the keys of
the targets they would make when they are planned. A claim nobody else has is the lock; where two tasks of
different builds claim one target, only one of them runs at a time, and the other looks again afterwards.
Holding is being at work, and all keys are taken in one step, so locks cannot be taken in a wrong order.
"""

from __future__ import annotations

from .graph import CANCELLING, LOCKING, RUNNING, SUSPENDED, Node

__all__ = ["Claims"]


class Claims:
    """The claims on the targets of one scheduler."""

    __slots__ = ("_by_key",)

    def __init__(self) -> None:
        self._by_key: dict[str, Node | list[Node]] = {}

    def add(self, node: Node) -> Node | None:
        """Claim ``node.keys``; the task of the same build that would make one of them too, if there is one."""
        rival = None
        for key in node.keys:
            held = self._by_key.setdefault(key, node)
            if held is node:
                continue
            others = held if isinstance(held, list) else [held]
            self._by_key[key] = [*others, node]
            for other in others:
                if other.build is node.build and not other.flags & CANCELLING:
                    rival = other
        return rival

    def hold(self, node: Node) -> bool:
        """Whether ``node`` may run now: none of its targets is being made by another task."""
        for key in node.keys:
            held = self._by_key[key]
            if held is not node and isinstance(held, list) and any(map(_at_work, held)):
                return False
        return True

    def holders(self, node: Node) -> list[Node]:
        """The nodes that are making a target of ``node`` now: what it waits for while it is locked out."""
        return [other for other in self._rivals(node) if other is not node and _at_work(other)]

    def locked_out(self, node: Node) -> list[Node]:
        """The nodes that wait for ``node`` to be done with a target of theirs."""
        return [other for other in self._rivals(node) if other.state == LOCKING] if _at_work(node) else []

    def _rivals(self, node: Node) -> list[Node]:
        lists = (self._by_key.get(key) for key in node.keys)
        return [other for held in lists if isinstance(held, list) for other in held]

    def release(self, node: Node) -> list[Node]:
        """Give up ``node``'s claims; the nodes that were locked out by it and may look again."""
        waiting: list[Node] = []
        for key in node.keys:
            held = self._by_key.get(key)
            if held is node:
                del self._by_key[key]
            elif isinstance(held, list) and node in held:
                held.remove(node)
                waiting += [other for other in held if other.state == LOCKING and other not in waiting]
                if len(held) == 1:
                    self._by_key[key] = held[0]
        node.keys = ()
        return waiting

    def clear(self) -> None:
        """Give up every claim."""
        self._by_key.clear()

    def __len__(self) -> int:
        return len(self._by_key)


def _at_work(node: Node) -> bool:
    return node.state in (RUNNING, SUSPENDED)
