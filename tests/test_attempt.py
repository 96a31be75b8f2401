"""The fence: nothing of an attempt that has been cancelled is published, in whatever thread it lives on."""

from __future__ import annotations

import asyncio
import contextvars
import hashlib
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from asyncflow import Abandoned, LocalTarget, Task, TaskCancelled, TaskFinished, build
from asyncflow.attempt import Attempt, current, inside
from asyncflow.events import Event

PATIENCE = 10.0


async def until(event: threading.Event) -> None:
    async with asyncio.timeout(PATIENCE):
        while not event.is_set():
            await asyncio.sleep(0.001)


# The state machine ---------------------------------------------------------------------------------------


def an_attempt() -> Attempt:
    class Some(Task):
        def run(self) -> None: ...

    return Attempt(Some(), None, None)  # type: ignore[arg-type]


def test_a_fenced_attempt_may_not_begin() -> None:
    attempt = an_attempt()
    assert not attempt.fenced
    attempt.fence()
    attempt.fence()
    assert attempt.fenced
    with pytest.raises(TaskCancelled):
        attempt.begin_publish()
    assert attempt.publishing == 0


def test_a_publish_that_has_begun_may_end() -> None:
    attempt = an_attempt()
    attempt.begin_publish()
    attempt.begin_publish()
    attempt.fence()
    assert attempt.publishing == 2
    attempt.end_publish("a", visible=True)
    attempt.end_publish("b", visible=False)
    assert attempt.published == {"a"}
    with pytest.raises(TaskCancelled):
        attempt.begin_publish()


def test_the_fence_holds_between_threads() -> None:
    """Whoever saw the fence closed publishes nothing more: no publish begins after `fence()` has returned."""
    for _ in range(50):
        attempt = an_attempt()
        start = threading.Barrier(5)
        fenced = threading.Event()
        late: list[str] = []

        def publish() -> None:
            start.wait(PATIENCE)  # noqa: B023  # joined in this very turn
            try:
                while True:
                    closed = fenced.is_set()  # noqa: B023
                    attempt.begin_publish()  # noqa: B023
                    if closed:
                        late.append("late")  # noqa: B023
                    attempt.end_publish(None, visible=True)  # noqa: B023
            except TaskCancelled:
                pass

        crowd = [threading.Thread(target=publish) for _ in range(4)]
        for thread in crowd:
            thread.start()
        start.wait(PATIENCE)
        attempt.fence()
        fenced.set()
        for thread in crowd:
            thread.join(PATIENCE)
        assert late == []
        assert attempt.publishing == 0


# In a build ----------------------------------------------------------------------------------------------


class Stubborn(Task):
    """A sync body that cannot be stopped, and publishes when it is let go."""

    path: str
    how: str

    def output(self) -> LocalTarget:
        return LocalTarget(self.path)

    def run(self) -> None:
        started.set()
        try:
            if self.how == "handle":
                with self.output().open("w") as out:
                    out.write("too late")
                    assert go.wait(PATIENCE)
            elif self.how == "opened late":
                assert go.wait(PATIENCE)
                with self.output().open("w") as out:
                    out.write("too late")
            else:
                with self.output().temporary_path() as path:
                    Path(path).write_text("too late")
                    assert go.wait(PATIENCE)
        except BaseException as error:
            raised.append(error)
            raise
        finally:
            ended.set()


started, go, ended = threading.Event(), threading.Event(), threading.Event()
raised: list[BaseException] = []


@pytest.fixture(autouse=True)
def _fresh() -> None:
    for event in (started, go, ended):
        event.clear()
    raised.clear()


@pytest.mark.parametrize("how", ["handle", "opened late", "path"])
async def test_a_body_in_a_thread_that_goes_on_is_refused(tmp_path: Path, how: str) -> None:
    task = Stubborn(path=str(tmp_path / "out"), how=how)
    events: list[Event] = []
    building = asyncio.create_task(build(task, grace=0.1, on_event=events.append))
    await until(started)
    cancelled = time.perf_counter()
    building.cancel()
    with pytest.raises(asyncio.CancelledError):
        await building
    assert time.perf_counter() - cancelled < 0.1 + 0.5
    (left,) = (event for event in events if isinstance(event, Abandoned))
    assert left.task == task
    assert any("test_attempt.py" in line and "run" in line for line in left.stack)
    assert [event.status for event in events if isinstance(event, TaskFinished)] == ["cancelled"]

    go.set()
    await until(ended)
    assert [type(error) for error in raised] == [TaskCancelled]
    assert list(tmp_path.iterdir()) == []

    # Another build makes it as if nothing had been.
    go.set()
    raised.clear()
    result = await build(task)
    assert result.ok
    assert (tmp_path / "out").read_text() == "too late"


async def test_a_body_on_the_loop_that_swallows_its_cancel_is_refused(tmp_path: Path) -> None:
    entered, release = asyncio.Event(), asyncio.Event()
    refused: list[BaseException] = []

    class Swallows(Task):
        def output(self) -> LocalTarget:
            return LocalTarget(tmp_path / "out")

        async def run(self) -> None:
            async with self.output().open("w") as out:
                await out.write("x")
                entered.set()
                while not release.is_set():
                    try:
                        await release.wait()
                    except asyncio.CancelledError:
                        pass
                try:
                    await out.commit()
                except TaskCancelled as error:
                    refused.append(error)
                    raise

    events: list[Event] = []
    building = asyncio.create_task(build(Swallows(), grace=0.1, on_event=events.append))
    await entered.wait()
    body = next(task for task in asyncio.all_tasks() if "LoopRunner" in repr(task.get_coro()))
    building.cancel()
    with pytest.raises(asyncio.CancelledError):
        await building
    assert [event.task for event in events if isinstance(event, Abandoned)] == [Swallows()]
    release.set()
    await asyncio.wait([body])
    assert len(refused) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("where", ["loop", "thread"])
async def test_a_publish_in_flight_ends_before_the_task_is_reported_cancelled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    content = os.urandom(1000)
    seal = hashlib.sha256(content).hexdigest()

    class OnLoop(Task):
        def output(self) -> LocalTarget:
            return LocalTarget(tmp_path / seal)

        async def run(self) -> None:
            async with self.output().open("wb") as out:
                await out.write(content)

    class InThread(Task):
        def output(self) -> LocalTarget:
            return LocalTarget(tmp_path / seal)

        def run(self) -> None:
            with self.output().open("wb") as out:
                out.write(content)

    renaming, rename = threading.Event(), threading.Event()
    order: list[str] = []
    real = os.replace

    def slow(source: str, target: str) -> None:
        renaming.set()
        assert rename.wait(PATIENCE)
        real(source, target)
        order.append("published")

    def on_event(event: Event) -> None:
        if isinstance(event, TaskFinished):
            order.append("reported")

    monkeypatch.setattr(os, "replace", slow)
    task = OnLoop() if where == "loop" else InThread()
    building = asyncio.create_task(build(task, grace=5, on_event=on_event))
    await until(renaming)
    building.cancel()
    for _ in range(20):
        await asyncio.sleep(0)
    assert order == []
    rename.set()
    with pytest.raises(asyncio.CancelledError):
        await building
    assert order == ["published", "reported"]
    assert hashlib.sha256((tmp_path / seal).read_bytes()).hexdigest() == seal
    assert len(list(tmp_path.iterdir())) == 1


async def test_a_cancel_before_the_rename_keeps_it_from_happening(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fsync is slow, the cancel comes meanwhile: the rename that would follow is refused."""

    class Make(Task):
        def output(self) -> LocalTarget:
            return LocalTarget(tmp_path / "out")

        async def run(self) -> None:
            async with self.output().open("wb") as out:
                await out.write(b"x")

    syncing, sync = threading.Event(), threading.Event()
    real = os.fsync

    def slow(fd: int) -> None:
        syncing.set()
        assert sync.wait(PATIENCE)
        real(fd)

    monkeypatch.setattr(os, "fsync", slow)
    building = asyncio.create_task(build(Make(), grace=5))
    await until(syncing)
    building.cancel()
    for _ in range(5):
        await asyncio.sleep(0)
    sync.set()
    with pytest.raises(asyncio.CancelledError):
        await building
    assert list(tmp_path.iterdir()) == []


async def test_the_attempt_is_the_one_the_handle_was_opened_in(tmp_path: Path) -> None:
    """Also a thread of the body's own, one that knows nothing of the build, is fenced if the handle is the body's."""
    handed: list[Any] = []
    entered = asyncio.Event()

    class Hands(Task):
        def output(self) -> LocalTarget:
            return LocalTarget(tmp_path / "out")

        async def run(self) -> None:
            handed.append(self.output().open("w").__enter__())
            handed[0].write("x")
            entered.set()
            await asyncio.sleep(60)

    building = asyncio.create_task(build(Hands()))
    await entered.wait()
    building.cancel()
    with pytest.raises(asyncio.CancelledError):
        await building
    assert current.get() is None
    with pytest.raises(TaskCancelled):
        handed[0].commit()
    assert list(tmp_path.iterdir()) == []


async def test_publishing_twice_in_one_run(tmp_path: Path) -> None:
    class Twice(Task):
        def output(self) -> LocalTarget:
            return LocalTarget(tmp_path / "out")

        def run(self) -> None:
            for text in ("first", "second"):
                with self.output().open("w") as out:
                    out.write(text)

    assert (await build(Twice())).ok
    assert (tmp_path / "out").read_text() == "second"


async def test_inside_is_the_live_attempt_of_this_loop() -> None:
    seen: list[bool] = []
    kept: list[Callable[[], object]] = []

    class Looks(Task):
        async def run(self) -> None:
            seen.append(inside() is current.get() is not None)
            seen.append(await asyncio.to_thread(inside) is None)  # no loop there
            context = contextvars.copy_context()
            kept.append(lambda: context.run(inside))

    assert inside() is None
    assert (await build(Looks())).ok
    assert seen == [True, True]
    assert kept[0]() is None  # it has ended
