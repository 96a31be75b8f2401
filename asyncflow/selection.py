"""Which tasks a build is forced to run (``force=``), and which are all it may run (``only=``)."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
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


async def forced(force: Force, roots: list[Task], over: Callable[[], bool]) -> Test | None:
    """Whether a task is to run although it is complete; None if none is. Raises ``ConfigError``.

    Looks through what ``roots`` require, in slices; stops early if it is ``over``.
    """
    if force is False:
        return None
    if force == "upstream":
        return lambda task: True
    if force is True:
        tasks = set(roots)
        wrappers = [task for task in roots if _stands_for_others(task)]
        async for _, other in _edges(wrappers, _stands_for_others, over):
            tasks.add(other)
        return tasks.__contains__
    chosen = set(leaves(force))
    for task in chosen:
        if not isinstance(task, Task):
            raise ConfigError(f'build(force={force!r}): expected True, "upstream", or tasks; {task!r} is none')
    return (await _downstream(chosen, roots, over)).__contains__


def _stands_for_others(task: Task) -> bool:
    return task._definition.wrapper


async def _downstream(chosen: set[Task], roots: list[Task], over: Callable[[], bool]) -> set[Task]:
    """``chosen``, and what leads from ``roots`` to one of them. Complete tasks are descended into as well."""
    dependents: dict[Task, list[Task]] = {}
    async for task, other in _edges(roots, lambda _: True, over):
        dependents.setdefault(other, []).append(task)
    found = set(chosen)
    queue = deque(chosen)
    while queue:
        for task in dependents.get(queue.popleft(), ()):
            if task not in found:
                found.add(task)
                queue.append(task)
    return found


async def _edges(roots: list[Task], descend: Test, over: Callable[[], bool]) -> AsyncIterator[tuple[Task, Task]]:
    """What ``roots`` require, and what those require as far as ``descend`` says: each task with each requirement."""
    seen = set(roots)
    queue = deque(seen)
    deadline = perf_counter() + SLICE
    while queue:
        task = queue.popleft()
        for other in _requirements(task):
            yield task, other
            if other not in seen and descend(other):
                seen.add(other)
                queue.append(other)
            if perf_counter() > deadline:
                await asyncio.sleep(0)
                if over():
                    return
                deadline = perf_counter() + SLICE


def _requirements(task: Task) -> Iterator[Task]:
    try:
        for other in leaves(task.requires()):
            if isinstance(other, Task):
                yield other
    except (Exception, SystemExit, KeyboardInterrupt):
        return  # the plan will say what is wrong with it


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
