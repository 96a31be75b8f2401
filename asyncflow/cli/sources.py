"""The tasks in the Python files of this directory, told from their text: nothing is imported."""

from __future__ import annotations

import ast
import os
from collections.abc import Iterator
from typing import NamedTuple

__all__ = ["Found", "tasks_here"]

_BASES = frozenset({"Task", "ExternalTask", "WrapperTask"})


class Found(NamedTuple):
    """A task, as one would give it to ``run``, and the first line of its docstring."""

    reference: str
    summary: str


def tasks_here() -> Iterator[Found]:
    """The tasks of every file that mentions asyncflow; a file that cannot be read has none."""
    for file in sorted(os.listdir()):
        if not file.endswith(".py"):
            continue
        try:
            with open(file, "rb") as stream:
                text = stream.read()
            tree = ast.parse(text) if b"asyncflow" in text else ast.Module([], [])
        except (OSError, SyntaxError, ValueError, RecursionError):
            continue
        yield from (Found(f"{file}:{name}", summary) for name, summary in _tasks(tree))


def _tasks(tree: ast.Module) -> Iterator[tuple[str, str]]:
    tasks = set(_BASES)
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            is_task = any(_last_name(base) in tasks for base in node.bases)
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            is_task = any(_last_name(item) == "task" for item in node.decorator_list)
        else:
            continue
        if is_task:
            tasks.add(node.name)
            if not node.name.startswith("_"):
                yield node.name, (ast.get_docstring(node) or "").partition("\n")[0]


def _last_name(node: ast.expr) -> str | None:
    if isinstance(node, ast.Call):
        node = node.func
    if isinstance(node, ast.Subscript):
        node = node.value
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else None
