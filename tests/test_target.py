from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable
from typing import Any

import pytest

import asyncflow
from asyncflow import LocalTarget, MemoryTarget, Target, Task, TaskDefinitionError, build
from asyncflow.target import Answer, ask


class Sync(Target):
    def __init__(self, answer: Any = True) -> None:
        self.answer = answer

    def exists(self) -> bool:
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer  # type: ignore[no-any-return]


class OnLoop(Target):
    def __init__(self, answer: Any = True) -> None:
        self.answer = answer

    async def exists(self) -> bool:
        """Its own words."""
        await asyncio.sleep(0)
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer  # type: ignore[no-any-return]


class Promises(Target):
    """A plain def that returns something to be awaited."""

    def __init__(self, answer: Any = True) -> None:
        self.answer = answer

    def exists(self) -> Awaitable[bool]:
        return OnLoop(self.answer).exists()


KINDS = [Sync, OnLoop, Promises]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("answer", [True, False])
async def test_a_bool_is_the_answer(kind: Any, answer: bool) -> None:
    assert await ask(kind(answer)) is answer


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("answer", [None, 0, 1, "yes", [], object()])
async def test_anything_but_a_bool_names_the_class(kind: type[Any], answer: Any) -> None:
    with pytest.raises(TypeError, match=rf"{kind.__name__}\.exists\(\) returned .* must return a bool"):
        await ask(kind(answer))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("error", [OSError("down"), KeyError("x"), StopIteration(3)])
async def test_what_it_raises_comes_out(kind: type[Any], error: Exception) -> None:
    expected = RuntimeError if isinstance(error, StopIteration) else type(error)
    with pytest.raises(expected):
        async with asyncio.timeout(5):
            await ask(kind(error))


async def test_a_plain_exists_does_not_hold_up_the_loop() -> None:
    here = threading.get_ident()
    there: list[int] = []

    class Slow(Target):
        def exists(self) -> bool:
            there.append(threading.get_ident())
            return gate.wait(10)

    gate = threading.Event()
    asking = asyncio.create_task(ask(Slow()))
    await asyncio.sleep(0.001)
    gate.set()
    assert await asking is True
    assert there[0] != here


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("answer", "status"),
    [(True, "complete"), (False, "failed"), (OSError("down"), "unknown"), (None, "unknown"), (1, "unknown")],
)
async def test_in_a_build(kind: type[Any], answer: Any, status: str) -> None:
    ran: list[int] = []

    class Makes(Task):
        def output(self) -> Target:
            return kind(answer)  # type: ignore[no-any-return]

        def run(self) -> None:
            ran.append(1)

    result = await build(Makes())
    assert result.counts == {status: 1}
    assert len(ran) == (status == "failed")  # ran, and its output is still not there: IncompleteOutput


# A forgotten await ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("question", [OnLoop().exists, LocalTarget("/nowhere").exists, MemoryTarget("x").exists])
async def test_on_the_loop_the_truth_value_is_an_error(question: Any) -> None:
    with pytest.raises(TypeError, match=r"awaited on the event loop: write `await .*exists\(\)`"):
        bool(question())
    with pytest.raises(TypeError, match="await"):
        if not question():
            pass
    with pytest.raises(TypeError, match="await"):
        all(asked() for asked in [question])
    assert "await it" in repr(question())


async def test_awaited_it_answers_and_more_than_once() -> None:
    answer = OnLoop(False).exists()
    assert isinstance(answer, Answer)
    assert await answer is False
    assert await answer is False


@pytest.mark.parametrize("kind", [OnLoop, Sync])
def test_in_a_plain_script(kind: type[Any]) -> None:
    assert kind(True).exists()
    assert not kind(False).exists()
    assert not all(target.exists() for target in (kind(True), kind(False)))
    with pytest.raises(OSError, match="down"):
        bool(kind(OSError("down")).exists())


async def test_in_a_sync_body_it_waits_on_the_builds_loop() -> None:
    here = asyncio.get_running_loop()
    seen: list[Any] = []

    class Looks(Target):
        async def exists(self) -> bool:
            seen.append(asyncio.get_running_loop() is here)
            await asyncio.sleep(0)
            return False

    class Body(Task):
        def run(self) -> list[bool]:
            return [bool(Looks().exists()), all(t.exists() for t in (Looks(), Looks())), bool(OnLoop(True).exists())]

    body = Body()
    result = await build(body)
    assert result[body] == [False, False, True]
    assert seen == [True, True]  # all() stops at the first


async def test_in_an_async_body_the_task_fails_and_says_what_to_write() -> None:
    class Forgets(Task):
        async def run(self) -> str:
            return "there" if OnLoop().exists() else "absent"

    task = Forgets()
    result = await build(task)
    assert result.counts == {"failed": 1}
    assert "await OnLoop.exists()" in str(result.failed[task]) if isinstance(result.failed, dict) else True


def test_in_a_sync_body_of_a_sync_door() -> None:
    class Body(Task):
        def run(self) -> bool:
            return bool(OnLoop(True).exists() and LocalTarget("/").exists() and not MemoryTarget("none").exists())

    body = Body()
    assert asyncflow.run(body)[body] is True


# Classes -------------------------------------------------------------------------------------------------


def test_the_wrapped_method_looks_like_itself() -> None:
    assert OnLoop.exists.__name__ == "exists"
    assert OnLoop.exists.__qualname__ == "OnLoop.exists"
    assert OnLoop.exists.__doc__ == "Its own words."


async def test_subclasses() -> None:
    class Inherits(OnLoop): ...

    class AsksAbove(OnLoop):
        async def exists(self) -> bool:
            return not await super().exists()

    class SyncAgain(OnLoop):
        def exists(self) -> bool:  # type: ignore[override]
            return self.answer is True

    class NowOnLoop(Sync):
        async def exists(self) -> bool:  # type: ignore[override]
            return not super().exists()

    assert await ask(Inherits(False)) is False
    assert await ask(AsksAbove(False)) is True
    assert await AsksAbove(False).exists() is True
    assert await ask(SyncAgain(True)) is True
    assert SyncAgain(True).exists() is True
    assert await ask(NowOnLoop(False)) is True
    with pytest.raises(TypeError, match="await NowOnLoop"):
        bool(NowOnLoop(False).exists())


@pytest.mark.parametrize("base", [LocalTarget, MemoryTarget])
async def test_subclasses_of_ours_may_ask_above(base: Any) -> None:
    class InThread(base):  # type: ignore[misc]
        def exists(self) -> bool:
            return not super().exists()

    class Passes(base):  # type: ignore[misc]
        def exists(self) -> Any:
            return super().exists()

    class Awaits(base):  # type: ignore[misc]
        async def exists(self) -> bool:
            return not await super().exists()

    there, absent = (base("/"), base("/nowhere"))
    if base is MemoryTarget:
        MemoryTarget.clear()
        there.put(1)
    for target, answer in ((there, True), (absent, False)):
        name = target.path if base is LocalTarget else target.name
        assert await ask(target) is answer
        assert await ask(Passes(name)) is answer
        assert await Passes(name).exists() is answer
        assert await ask(InThread(name)) is not answer
        assert await ask(Awaits(name)) is not answer
        assert await Awaits(name).exists() is not answer


class SyncMixin:
    def exists(self) -> bool:
        return True


class LoopMixin:
    async def exists(self) -> bool:
        return True


async def test_exists_from_a_class_that_is_no_target() -> None:
    class One(SyncMixin, Target): ...  # type: ignore[misc]

    class Two(LoopMixin, Target): ...  # type: ignore[misc]

    class Three(LoopMixin, LocalTarget): ...  # type: ignore[misc]

    assert await ask(One()) is True
    assert await ask(Two()) is True
    assert await ask(Three("/nowhere")) is True
    with pytest.raises(TypeError, match="await Two"):
        bool(Two().exists())
    assert await LoopMixin().exists() is True  # the mixin itself has not been touched


async def test_a_class_without_exists_says_what_to_write() -> None:
    class Bare(Target): ...

    with pytest.raises(TypeError, match=r"Bare has no exists\(\); write `def exists"):
        await ask(Bare())
    with pytest.raises(TypeError, match="Bare has no exists"):
        Bare().exists()


@pytest.mark.parametrize("wrong", [True, None, "yes", 3])
def test_exists_that_cannot_be_called_is_refused_at_once(wrong: Any) -> None:
    with pytest.raises(TaskDefinitionError, match=r"Wrong\.exists is .* write `def exists"):
        type("Wrong", (Target,), {"exists": wrong})
