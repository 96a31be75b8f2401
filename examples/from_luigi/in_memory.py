"""In-memory jobs: a Target of one's own, a dynamic dependency, and a listener instead of an event handler."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import asyncflow
from asyncflow import Event, IntParameter, Target, Task, TaskFinished

_data: dict[str, int] = {}  # outside the class, so that the values outlive the tasks


class MemoryTarget(Target):
    """`exists` is all that asyncflow asks of a target. (A complete one comes with it: asyncflow.MemoryTarget.)"""

    def __init__(self, path: str) -> None:
        self.path = path

    def exists(self) -> bool:
        return self.path in _data

    def put(self, value: int) -> None:
        _data[self.path] = value

    def get(self) -> int:
        return _data[self.path]


class MyTask(Task):
    x = IntParameter(default=5)
    y = IntParameter(default=45)

    def run(self) -> None:
        f = self.output()
        f.put(self.x + self.y)
        print(f.get())

    # The original named its target by the class alone: MyTask(x=1) would have found the value of MyTask(x=5)
    # and never run. The id holds the parameters too.
    def output(self) -> MemoryTarget:
        return MemoryTarget(self.task_id)


class MyTask2(Task):
    x = IntParameter(default=15)
    y = IntParameter(default=15)

    # Luigi enters this body twice: up to the yield, and again from the top. Here it goes on where it was.
    def run(self) -> Generator[Task, Any, None]:
        dyna_input = yield MyTask()
        f = self.output()
        f.put(dyna_input.get() + self.x + self.y)
        print(f.get())

    def output(self) -> MemoryTarget:
        return MemoryTarget(self.task_id)


succeeded: list[Task] = []


def on_success(event: Event) -> None:
    """Called with each thing that happens; Luigi's Event.SUCCESS is a TaskFinished of status "succeeded"."""
    if isinstance(event, TaskFinished) and event.status == "succeeded":
        succeeded.append(event.task)


if __name__ == "__main__":
    asyncflow.run(MyTask2(x=15, y=15), on_event=on_success)
    print(succeeded)
    print(_data)
