"""Which tasks a build is forced to run (``force=``), and which are all it may run (``only=``)."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from time import perf_counter
from typing import Any, Literal, TypeAlias

from . import registry
from ._task import Task
from .errors import ConfigError
from .tree import leaves

__all__ = ["Force", "Only", "forced", "selected"]

Force: TypeAlias = bool | Literal["upstream"] | Task | Iterable[Task]
"""False; True: the tasks asked for; "upstream": they and all they require; tasks: those and what requires them."""
Only: TypeAlias = "Task | type[Task] | str | Iterable[Task | type[Task] | str]"
"""Tasks, task classes, or families by name."""

SLICE = 0.005  # seconds

Test = Callable[[Task], bool]


async def forced(force: Force, roots: list[Task]) -> Test | None:
    """Whether a task is to run although it is complete; None if none is. Raises ``ConfigError``."""
    if force is False:
        return None
    if force == "upstream":
        return lambda task: True
    if force is True:
        tasks = set(roots)
        for task in roots:
            if task._definition.wrapper:  # it stands for what it requires
                tasks.update(await _below(task, lambda task: task._definition.wrapper))
        return tasks.__contains__
    chosen = set(leaves(force))
    for task in chosen:
        if not isinstance(task, Task):
            raise ConfigError(f'build(force={force!r}): expected True, "upstream", or tasks; {task!r} is none')
    return (await _downstream(chosen, roots)).__contains__


async def _below(task: Task, descend: Test) -> set[Task]:
    seen = {task}
    queue = deque([task])
    deadline = perf_counter() + SLICE
    while queue:
        for other in _requirements(queue.popleft()):
            if other not in seen:
                seen.add(other)
                if descend(other):
                    queue.append(other)
        if perf_counter() > deadline:
            await asyncio.sleep(0)
            deadline = perf_counter() + SLICE
    return seen


async def _downstream(chosen: set[Task], roots: list[Task]) -> set[Task]:
    """``chosen``, and what leads from ``roots`` to one of them. Complete tasks are descended into as well."""
    dependents: dict[Task, list[Task]] = {}
    seen = set(roots)
    queue = deque(seen)
    deadline = perf_counter() + SLICE
    while queue:
        task = queue.popleft()
        for other in _requirements(task):
            dependents.setdefault(other, []).append(task)
            if other not in seen:
                seen.add(other)
                queue.append(other)
        if perf_counter() > deadline:
            await asyncio.sleep(0)
            deadline = perf_counter() + SLICE
    found = set(chosen)
    queue = deque(chosen)
    while queue:
        for task in dependents.get(queue.popleft(), ()):
            if task not in found:
                found.add(task)
                queue.append(task)
    return found


def _requirements(task: Task) -> list[Task]:
    if not task._definition.has_requires:
        return []
    try:
        return [other for other in leaves(task.requires()) if isinstance(other, Task)]
    except Exception:
        return []  # the plan will say what is wrong with it


def selected(only: Only | None) -> Test | None:
    """Whether a task may run; None if every task may. Raises ``ConfigError``, ``TaskNotFound``."""
    if only is None:
        return None
    choices: list[Any] = [only] if isinstance(only, (str, type, Task)) or not isinstance(only, Iterable) else [*only]
    classes: list[type] = []
    tasks: set[Task] = set()
    for choice in choices:
        if isinstance(choice, str):
            classes.append(registry.get_task_class(choice))
        elif isinstance(choice, type) and issubclass(choice, Task):
            classes.append(choice)
        elif isinstance(choice, Task):
            tasks.add(choice)
        else:
            raise ConfigError(f"build(only=...): expected tasks, task classes or their names, not {choice!r}")
    kinds = tuple(classes)
    return lambda task: isinstance(task, kinds) or task in tasks
