from __future__ import annotations

import asyncio
import pickle
import threading

import pytest

from asyncflow import MemoryTarget, Task, TaskCancelled, build


@pytest.fixture(autouse=True)
def _empty() -> None:
    MemoryTarget.clear()


async def test_put_get_clear() -> None:
    target = MemoryTarget("x")
    assert await target.exists() is False
    with pytest.raises(KeyError, match="nothing has been put"):
        target.get()
    target.put(None)  # None is a value
    assert await target.exists() is True
    assert target.get() is None
    target.put([1])
    assert MemoryTarget("x").get() == [1]
    MemoryTarget.clear()
    assert await target.exists() is False


def test_exists_in_a_plain_script() -> None:
    assert not MemoryTarget("x").exists()
    MemoryTarget("x").put(0)
    assert MemoryTarget("x").exists()
    assert not all(target.exists() for target in (MemoryTarget("x"), MemoryTarget("y")))


async def test_a_forgotten_await_is_an_error() -> None:
    with pytest.raises(TypeError, match="write `await MemoryTarget"):
        if MemoryTarget("x").exists():
            pass


def test_a_value_like_any_other() -> None:
    assert MemoryTarget("x") == MemoryTarget("x") != MemoryTarget("y")
    assert len({MemoryTarget("x"), MemoryTarget("x")}) == 1
    assert pickle.loads(pickle.dumps(MemoryTarget("x"))) == MemoryTarget("x")
    assert MemoryTarget("x").key == "memory:x"
    for wrong in ("", 5, None):
        with pytest.raises(TypeError, match="non-empty string"):
            MemoryTarget(wrong)  # type: ignore[arg-type]


async def test_what_a_cancelled_body_on_the_loop_puts_is_refused() -> None:
    started = asyncio.Event()
    refused: list[BaseException] = []

    class Stubborn(Task):
        def output(self) -> MemoryTarget:
            return MemoryTarget("late")

        async def run(self) -> None:
            started.set()
            try:
                await asyncio.sleep(60)
            finally:
                try:
                    self.output().put("too late")
                except TaskCancelled as error:
                    refused.append(error)

    building = asyncio.create_task(build(Stubborn()))
    await started.wait()
    building.cancel()
    with pytest.raises(asyncio.CancelledError):
        await building
    assert len(refused) == 1
    assert not await MemoryTarget("late").exists()
    again = MemoryTarget("late")
    again.put("clean")
    assert again.get() == "clean"


async def test_what_a_cancelled_body_in_a_thread_puts_is_refused() -> None:
    started, go, ended = threading.Event(), threading.Event(), threading.Event()
    refused: list[BaseException] = []

    class Stubborn(Task):
        def output(self) -> MemoryTarget:
            return MemoryTarget("late")

        def run(self) -> None:
            started.set()
            go.wait(10)
            try:
                self.output().put("too late")
            except TaskCancelled as error:
                refused.append(error)
            ended.set()

    building = asyncio.create_task(build(Stubborn(), grace=0.05))
    while not started.is_set():
        await asyncio.sleep(0.001)
    building.cancel()
    with pytest.raises(asyncio.CancelledError):
        await building
    go.set()  # it lives on, after its build has returned
    while not ended.is_set():
        await asyncio.sleep(0.001)
    assert len(refused) == 1
    assert not await MemoryTarget("late").exists()
