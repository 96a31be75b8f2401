"""Nested structures of tasks and targets: lists, tuples and dictionaries of them, as deep as one likes.

Luigi's rules: ``None`` is nothing, a dictionary counts by its values, a string is not a collection, any
other iterable is. A structure handed back to the user keeps its shape (``map_leaves``).

Tasks and targets say that they are leaves (``_leaf``), also where they can be iterated; asking the abstract base
classes of ``collections`` costs ten times as much.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

__all__ = ["leaves", "map_leaves", "settle"]

DEEPEST = 200_000


def leaves(structure: Any) -> Iterator[Any]:
    """Every leaf of ``structure``, in order; lazily, and without recursion however deep it is.

    Raises ``ValueError`` for a structure that holds itself.
    """
    if getattr(structure, "_leaf", False):
        yield structure
        return
    stack = [iter((structure,))]
    while stack:
        for item in stack[-1]:
            if getattr(item, "_leaf", False):
                yield item
                continue
            if item is None:
                continue
            inner = _children(item)
            if inner is None:
                yield item
            else:
                stack.append(inner)
                if len(stack) > DEEPEST:
                    raise ValueError(f"nested more than {DEEPEST:,} deep: does it hold itself?")
                break
        else:
            stack.pop()


def _children(item: Any) -> Iterator[Any] | None:
    if isinstance(item, (list, tuple)):
        return iter(item)
    if getattr(item, "_leaf", False):
        return None
    if isinstance(item, Mapping):
        return iter(item.values())
    if isinstance(item, (str, bytes)) or not isinstance(item, Iterable):
        return None
    children: Iterator[Any] = iter(item)
    return children


def map_leaves(structure: Any, change: Callable[[Any], Any]) -> Any:
    """``structure`` with every leaf replaced by ``change(leaf)``; lists, tuples and mappings keep their kind.

    A structure is as deep as its author wrote it, so this one recurses.
    """
    if structure is None:
        return None
    if isinstance(structure, Mapping):
        return {key: map_leaves(value, change) for key, value in structure.items()}
    if isinstance(structure, tuple):
        return _tuple(structure, [map_leaves(item, change) for item in structure])
    if _children(structure) is None:
        return change(structure)
    return [map_leaves(item, change) for item in structure]


def settle(structure: Any) -> Any:
    """``structure`` with one-time iterators (generators) below it read into lists, so it can be read again.

    The structure itself is returned, not copied, where it holds none.
    """
    if getattr(structure, "_leaf", False):
        return structure
    if isinstance(structure, Iterator):
        return [settle(item) for item in structure]
    if isinstance(structure, Mapping):
        settled = {key: settle(value) for key, value in structure.items()}
        return settled if any(settled[key] is not structure[key] for key in settled) else structure
    if isinstance(structure, (list, tuple)):
        for item in structure:
            if not getattr(item, "_leaf", False):
                break
        else:
            return structure
        items = [settle(item) for item in structure]
        if any(new is not old for new, old in zip(items, structure, strict=True)):
            return items if isinstance(structure, list) else _tuple(structure, items)
    return structure


def _tuple(model: tuple[Any, ...], items: list[Any]) -> Any:
    # A named tuple is built from its fields, a plain one from one iterable.
    return type(model)(*items) if hasattr(model, "_fields") else tuple(items)
