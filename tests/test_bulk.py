"""``exists_many``: the contract with a class of targets, how questions are gathered, and how they are let go of."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from typing import Any, ClassVar

import pytest

from asyncflow import (
    Abandoned,
    BuildResult,
    Event,
    ExternalTask,
    MemoryTarget,
    Target,
    TargetStateUnknown,
    Task,
    TaskDefinitionError,
    build,
    plan,
)
from asyncflow import bulk as module
from asyncflow.target import check_answers
from asyncflow.testing import STYLES, Outcome, SimulatedLoop, Style, explore, simulate, sweep

asked: list[list[str]] = []  # the calls of exists_many
alone: list[str] = []  # what exists() was asked about
there: set[str] = set()


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    asked.clear()
    alone.clear()
    there.clear()
    MemoryTarget.clear()
    yield
    MemoryTarget.clear()


class Stored(Target):
    """Answers on the loop."""

    def __init__(self, name: str) -> None:
        self.name = name

    async def exists(self) -> bool:
        alone.append(self.name)
        return self.name in there

    @classmethod
    async def exists_many(cls, targets: Sequence[Stored]) -> Sequence[Any]:
        await asyncio.sleep(0)
        asked.append([target.name for target in targets])
        return [target.name in there for target in targets]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r})"


class StoredBlocking(Stored):
    """Answers in a thread."""

    def exists(self) -> bool:  # type: ignore[override]
        alone.append(self.name)
        return self.name in there

    @staticmethod
    def exists_many(targets: Sequence[Stored]) -> Sequence[Any]:  # type: ignore[override]
        assert threading.current_thread() is not threading.main_thread()
        asked.append([target.name for target in targets])
        return [target.name in there for target in targets]


class StoredPromised(Stored):
    """A plain def that gives an awaitable."""

    @classmethod
    def exists_many(cls, targets: Sequence[Stored]) -> Any:  # type: ignore[override]
        return Stored.exists_many(targets)


KINDS = [Stored, StoredBlocking, StoredPromised]


class Makes(Task):
    """Makes ``name`` in a store of a kind, and says nothing of it."""

    kind: ClassVar[type[Stored]]
    name: str

    def output(self) -> Any:
        return self.kind(self.name)

    async def run(self) -> None:
        there.add(self.name)


def made_of(targets: Callable[[str], Any]) -> type[Makes]:
    class Made(Makes):
        def output(self) -> Any:
            return targets(self.name)

    return Made


def names(count: int) -> list[str]:
    return [f"{n:05}" for n in range(count)]


def unknown(result: BuildResult) -> dict[str, BaseException]:
    return {task.name: result.tasks[task].error for task in result.unknown}  # type: ignore[misc, attr-defined]


# The contract --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
async def test_what_is_asked_at_one_moment_is_one_call(kind: type[Stored]) -> None:
    there.update({"00001", "00003"})
    made = made_of(kind)
    result = await build([made(name=name) for name in names(5)])
    assert [task.name for task in result.skipped] == ["00001", "00003"]  # type: ignore[attr-defined]
    assert [task.name for task in result.ran] == ["00000", "00002", "00004"]  # type: ignore[attr-defined]
    before, *after = asked
    assert before == names(5)
    assert sorted(alone + [name for call in after for name in call]) == ["00000", "00002", "00004"], "one each, after"


@pytest.mark.parametrize("kind", KINDS)
async def test_one_that_is_alone_is_asked_by_exists(kind: type[Stored]) -> None:
    there.add("only")
    assert (await build(made_of(kind)(name="only"))).skipped
    assert (asked, alone) == ([], ["only"])


def test_a_subclass_inherits_it_is_its_own_kind_and_may_do_without() -> None:
    class Inherits(Stored): ...

    class Without(Stored):
        exists_many = None  # type: ignore[assignment]

    class ItsOwnExists(Stored):  # of which what is inherited knows nothing
        async def exists(self) -> bool:
            return not await super().exists()

    class Mixin:
        async def exists(self) -> bool:
            return True

    class Mixed(Mixin, Stored): ...

    assert Inherits._many is not None
    assert Inherits._many.__self__ is Inherits  # type: ignore[attr-defined]
    assert Without._many is None
    assert ItsOwnExists._many is None
    assert Mixed._many is None
    assert Target._many is None
    assert not hasattr(Target, "exists_many"), "nobody has it who does not write it"


def test_memory_is_asked_inline_whatever_it_offers() -> None:
    class Kept(MemoryTarget):
        @classmethod
        def exists_many(cls, targets: Any) -> Any:
            raise AssertionError

    async def main() -> None:
        Kept("00001").put(1)
        result = await build([made_of(Kept)(name=name) for name in names(2)])
        assert len(result.skipped) == 1
        assert (await build(made_of(lambda name: [Kept(name), Kept(name)])(name="00001"))).skipped

    asyncio.run(main())


@pytest.mark.parametrize("offered", [lambda targets: [], True, "yes", classmethod(3)])  # type: ignore[arg-type]
def test_one_that_cannot_be_called_on_the_class_is_refused_at_once(offered: Any) -> None:
    with pytest.raises(TaskDefinitionError, match=r"Wrong\.exists_many is .*; write `@classmethod` above"):
        type("Wrong", (Stored,), {"exists_many": offered})


async def wrong(answers: Any) -> BuildResult:
    class Wrong(Stored):
        @classmethod
        async def exists_many(cls, targets: Sequence[Stored]) -> Any:
            if isinstance(answers, BaseException):
                raise answers
            return answers

    return await build([made_of(Wrong)(name=name) for name in names(3)])


@pytest.mark.parametrize(
    ("answers", "kind", "message"),
    [
        (None, TypeError, r"Wrong\.exists_many\(\) returned None; it must return a list with one bool for each"),
        ({"a": True, "b": True, "c": True}, TypeError, r"Wrong\.exists_many\(\) returned a dict; it must"),
        ({True}, TypeError, "returned a set"),
        ("yes", TypeError, "returned a str"),
        (True, TypeError, "returned a bool"),
        (iter([True, True, True]), TypeError, "returned a list_iterator"),
        ([], ValueError, r"Wrong\.exists_many\(\) gave 0 answers to 3 targets; it must return a list with one bool"),
        ([True] * 4, ValueError, "gave 4 answers to 3 targets"),
        (OSError("down"), OSError, "down"),
        (SystemExit(3), SystemExit, "3"),
        (asyncio.CancelledError("theirs"), asyncio.CancelledError, "theirs"),
    ],
)
async def test_a_call_that_goes_wrong_leaves_all_its_targets_unknown(answers: Any, kind: Any, message: str) -> None:
    result = await wrong(answers)
    assert list(unknown(result)) == names(3)
    assert not result.ran
    for error in unknown(result).values():
        with pytest.raises(kind, match=message):
            raise error
    assert [type(error) for error in result.errors()] == [TargetStateUnknown] * 3
    assert [error.__cause__ for error in result.errors()] == list(unknown(result).values())


@pytest.mark.parametrize("answer", [None, 1, 0, "yes", [], OSError, object()])
async def test_an_answer_that_is_no_bool_names_the_class_and_the_target(answer: Any) -> None:
    result = await wrong([True, answer, False])
    assert list(unknown(result)) == ["00001"]
    with pytest.raises(
        TypeError, match=r"Wrong\.exists_many\(\) answered .* for Wrong\('00001'\); an answer is a bool"
    ):
        raise unknown(result)["00001"]
    assert (len(result.skipped), len(result.ran)) == (1, 1), "the others go on"


async def test_one_target_of_which_nothing_is_known() -> None:
    down = OSError("no route to its host")
    result = await wrong([True, down, True])
    assert unknown(result) == {"00001": down}
    assert len(result.skipped) == 2


def test_check_answers_takes_any_sequence() -> None:
    targets = [Stored("a"), Stored("b")]
    error = OSError()
    assert check_answers(Stored, targets, (True, error)) == [True, error]


# Tasks with several targets ------------------------------------------------------------------------------


async def test_all_targets_of_a_task_are_in_one_call() -> None:
    class Both(Makes):
        def output(self) -> Any:
            return {"data": Stored(self.name), "more": [Stored(self.name + "+")]}

        async def run(self) -> None:
            there.update({self.name, self.name + "+"})

    there.update({"00000", "00000+", "00001"})
    result = await build([Both(name=name) for name in names(3)])
    assert len(result.skipped) == 1
    assert len(result.ran) == 2
    assert asked[0] == [name + plus for name in names(3) for plus in ("", "+")]


@pytest.mark.parametrize(
    ("answers", "status"),
    [
        ([True, True], "complete"),
        ([False, OSError()], "succeeded"),
        ([OSError(), False], "unknown"),
        ([True, False], "succeeded"),
        ([True, OSError()], "unknown"),
    ],
)
@pytest.mark.parametrize("bulk", [True, False])
async def test_the_verdict_is_the_same_as_one_by_one(answers: list[Any], status: str, bulk: bool) -> None:
    class Told(Target):
        def __init__(self, answer: Any) -> None:
            self.answer = answer

        async def exists(self) -> bool:
            if isinstance(self.answer, BaseException) and not there:
                raise self.answer
            return bool(self.answer) or bool(there)

        if bulk:

            @classmethod
            async def exists_many(cls, targets: Sequence[Told]) -> Any:
                return [bool(there) or target.answer for target in targets]

    result = await build(made_of(lambda _: [Told(answer) for answer in answers])(name="x"))
    assert result.counts == {status: 1}


@pytest.mark.parametrize("on_loop", [True, False])
async def test_what_can_be_asked_in_bulk_comes_first_and_spares_the_others(on_loop: bool) -> None:

    class InThread(Target):
        def __init__(self, name: str) -> None:
            self.name = name

        def exists(self) -> bool:
            alone.append(self.name)
            return self.name in there

    class OnLoop(InThread):
        async def exists(self) -> bool:  # type: ignore[override]
            return super().exists()

    Single = OnLoop if on_loop else InThread

    def output(name: str) -> list[Target]:
        return [
            Stored(name + "a"),
            Stored(name + "b"),
            MemoryTarget("m" + name),
            Single(name + "c"),
            Stored(name + "d"),
        ]

    for name in "012":
        MemoryTarget("m" + name).put(1)
    there.update(name + part for name, parts in (("0", "abcd"), ("1", "acd"), ("2", "abd")) for part in parts)
    result = await plan([made_of(output)(name=name) for name in "012"])
    assert [item.action for item in result.items] == ["skip", "run", "run"]
    assert asked == [["0a", "0b", "0d", "1a", "1b", "1d", "2a", "2b", "2d"]]
    assert sorted(alone) == ["0c", "2c"]


async def test_two_classes_of_one_task_are_asked_one_after_the_other() -> None:
    class Other(StoredBlocking): ...

    there.update({"a", "b", "c", "d"})
    result = await build(made_of(lambda _: [Stored("a"), Other("c"), Stored("b"), Other("d")])(name="x"))
    assert result.skipped
    assert asked == [["a", "b"], ["c", "d"]]


async def test_a_mixed_task_of_which_something_is_unknown() -> None:
    class Down(Stored):
        @classmethod
        async def exists_many(cls, targets: Any) -> Any:
            return [True, OSError("down")]

    MemoryTarget("m").put(1)
    result = await build(made_of(lambda name: [MemoryTarget("m"), Down("a"), Down("b")])(name="x"))
    assert str(unknown(result)["x"]) == "down"


# How many calls ------------------------------------------------------------------------------------------


async def test_ten_thousand_tasks_are_a_handful_of_calls() -> None:
    there.update(names(10_000))
    made = made_of(Stored)

    class Root(Makes):
        def requires(self) -> Any:
            return [made(name=name) for name in names(10_000)]

        def output(self) -> Any:
            return MemoryTarget("root")

        async def run(self) -> None:
            self.output().put(1)

    result = await build(Root(name="root"))
    assert len(result.skipped) == 10_000
    assert sorted(name for call in asked for name in call) == names(10_000)
    assert len(asked) <= 5
    assert not alone


async def test_no_call_is_larger_than_it_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST", 10)
    there.update(names(95))
    made = made_of(Stored)
    tasks = [made(name=name) for name in names(60)]
    threes = made_of(lambda name: [Stored(name)] * 3)
    large = made_of(lambda name: [Stored(other) for other in names(95)])
    result = await build([*tasks, threes(name="00001"), *[threes(name=f"0000{n}") for n in range(2, 6)]])
    assert result.counts == {"complete": 65}
    assert sorted(map(len, asked)) == [6, 9, *[10] * 6]
    asked.clear()
    assert (await build(large(name="x"))).skipped
    assert list(map(len, asked)) == [*[10] * 9, 5]


async def test_calls_open_at_once_are_bounded_and_what_waits_is_one_call() -> None:
    gate = asyncio.Event()
    most = open_ = 0

    class Slow(Stored):
        @classmethod
        async def exists_many(cls, targets: Sequence[Stored]) -> Any:
            nonlocal most, open_
            open_ += 1
            most = max(most, open_)
            await gate.wait()
            open_ -= 1
            return await Stored.exists_many(targets)

    made = made_of(Slow)

    class Asks(Task):
        async def run(self) -> None:
            waves = []
            for wave in range(10):
                waves.append(asyncio.ensure_future(build([made(name=f"{wave}-{n}") for n in range(2)])))
                for _ in range(10):
                    await asyncio.sleep(0)
            gate.set()
            await asyncio.wait(waves)

    there.update(f"{wave}-{n}" for wave in range(10) for n in range(2))
    assert (await build(Asks())).counts == {"complete": 20, "succeeded": 1}
    assert most == module.CALLS
    assert sorted(map(len, asked)) == [2, 2, 2, 2, 12]


request: ContextVar[str] = ContextVar("request", default="none")


@pytest.mark.parametrize("blocking", [True, False])
async def test_a_call_sees_the_context_of_its_build(blocking: bool) -> None:
    seen: list[tuple[str, int]] = []

    class OnLoop(Stored):
        @classmethod
        async def exists_many(cls, targets: Any) -> Any:
            seen.append((request.get(), len(targets)))
            return [True] * len(targets)

    class InThread(Stored):
        @classmethod
        def exists_many(cls, targets: Any) -> Any:  # type: ignore[override]
            seen.append((request.get(), len(targets)))
            return [True] * len(targets)

    made = made_of(InThread if blocking else OnLoop)

    async def one(number: int) -> None:
        request.set(f"r{number}")
        await build([made(name=f"{number}-{n}") for n in range(number + 2)])

    await asyncio.gather(one(0), one(1))
    assert sorted(seen) == [("r0", 2), ("r1", 3)]


async def test_a_plan_that_is_long_does_not_keep_others_waiting_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TURNS", 3)
    there.update({"a", "b"})
    heard = asyncio.Event()

    class Heard(Stored):
        @classmethod
        async def exists_many(cls, targets: Any) -> Any:
            heard.set()
            return [True] * len(targets)

    class Endless(Task):
        """Names tasks until the question of the others has been asked."""

        def requires(self) -> Iterator[Any]:
            n = 0
            while not heard.is_set():
                n += 1
                assert n < 10_000_000
                yield Plain(n=n % 1000)

        async def run(self) -> None: ...

    class Plain(Task):
        n: int

        async def run(self) -> None: ...

    made = made_of(Heard)
    assert (await build([made(name="a"), made(name="b"), Endless()])).ok
    assert heard.is_set()


# Leaving -------------------------------------------------------------------------------------------------


class Hangs(Stored):
    began: ClassVar[asyncio.Event]
    go: ClassVar[asyncio.Event]
    ended: ClassVar[list[str]] = []

    @classmethod
    async def exists_many(cls, targets: Sequence[Stored]) -> Any:
        cls.began.set()
        try:
            await cls.go.wait()
        except asyncio.CancelledError:
            cls.ended.append("cancelled")
            raise
        cls.ended.append("answered")
        return await super().exists_many(targets)


@pytest.fixture
def hangs() -> type[Hangs]:
    Hangs.began, Hangs.go = asyncio.Event(), asyncio.Event()
    Hangs.ended.clear()
    return Hangs


@pytest.mark.parametrize("mixed", [True, False])
async def test_a_call_nobody_wants_is_cancelled_before_its_build_returns(hangs: type[Hangs], mixed: bool) -> None:
    made = made_of((lambda name: [MemoryTarget("m"), Hangs(name), Hangs(name + "+")]) if mixed else Hangs)
    MemoryTarget("m").put(1)
    building = asyncio.create_task(build([made(name=name) for name in names(3)]))
    await hangs.began.wait()
    building.cancel()
    await asyncio.wait([building])
    assert building.cancelled()
    assert hangs.ended == ["cancelled"]


async def test_a_call_is_cancelled_once() -> None:
    began, unwinding, go = asyncio.Event(), asyncio.Event(), asyncio.Event()
    cancels: list[int] = []

    class Unwinds(Stored):
        @classmethod
        async def exists_many(cls, targets: Sequence[Stored]) -> Any:
            began.set()
            try:
                await asyncio.Event().wait()
            finally:
                cancels.append(1)
                unwinding.set()
                try:
                    await go.wait()
                except asyncio.CancelledError:
                    cancels.append(2)
                    raise

    building = asyncio.create_task(build([made_of(Unwinds)(name=name) for name in names(3)]))
    await began.wait()
    building.cancel()
    await unwinding.wait()
    other = asyncio.create_task(build(made_of(MemoryTarget)(name="x")))  # when it ends, it looks for what to stop
    for _ in range(20):
        await asyncio.sleep(0)
    go.set()
    await asyncio.wait([building, other])
    assert cancels == [1]


async def test_a_call_that_another_build_wants_goes_on(hangs: type[Hangs]) -> None:
    made = made_of(hangs)
    there.update(names(4))
    leaves = asyncio.create_task(build([made(name=name) for name in names(4)]))
    await hangs.began.wait()
    stays = asyncio.create_task(build(made(name="00002")))
    for _ in range(3):
        await asyncio.sleep(0)
    leaves.cancel()
    for _ in range(5):
        await asyncio.sleep(0)
    assert leaves.cancelled()
    assert hangs.ended == []
    hangs.go.set()
    assert (await stays).skipped
    assert hangs.ended == ["answered"]


async def test_what_was_dropped_before_the_call_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CALLS", 0)  # nothing goes out yet
    made = made_of(Stored)
    there.update(names(6))

    class Asks(Task):
        async def run(self) -> None:
            leaves = asyncio.create_task(build([made(name=name) for name in names(4)]))
            stays = asyncio.create_task(build([made(name=name) for name in names(6)[2:]]))
            for _ in range(10):
                await asyncio.sleep(0)
            leaves.cancel()
            await asyncio.wait([leaves])
            monkeypatch.setattr(module, "CALLS", 1)
            await build([made(name="x")])  # the next question takes those with it
            assert len((await stays).skipped) == 4

    assert (await build(Asks())).ok
    assert asked[0] == [*names(6)[2:], "x"]


async def test_a_call_that_does_not_stop_is_named_once_and_left_behind(hangs: type[Hangs]) -> None:
    release = asyncio.Event()
    began = asyncio.Event()
    ended: list[int] = []

    class Stubborn(Stored):
        @classmethod
        async def exists_many(cls, targets: Sequence[Stored]) -> Any:
            began.set()
            while not release.is_set():
                try:
                    await release.wait()
                except asyncio.CancelledError:
                    continue
            ended.append(1)
            return [True] * len(targets)

    made = made_of(Stubborn)
    events: list[Event] = []
    other = asyncio.create_task(build([made_of(hangs)(name=name) for name in "ab"], on_event=events.append))
    await hangs.began.wait()
    loop = asyncio.get_running_loop()
    begun = loop.time()
    building = asyncio.create_task(build([made(name=name) for name in names(3)], grace=0.05, on_event=events.append))
    await began.wait()
    building.cancel()
    await asyncio.wait([building])
    assert building.cancelled()
    assert loop.time() - begun < 5
    hangs.go.set()
    await other  # ends while it still hangs, and has nothing to do with it
    release.set()
    while not ended:
        await asyncio.sleep(0)
    await asyncio.sleep(0)
    given_up = [event for event in events if isinstance(event, Abandoned)]
    assert [event.task for event in given_up] == [made(name=name) for name in names(3)]
    assert {event.stack for event in given_up} == {("in Stubborn.exists_many()",)}


async def test_a_single_question_that_was_given_up_is_named_by_its_own_build_alone(hangs: type[Hangs]) -> None:
    release, began = asyncio.Event(), asyncio.Event()
    events: list[Event] = []

    class Stubborn(Target):
        async def exists(self) -> bool:
            began.set()
            while not release.is_set():
                try:
                    await release.wait()
                except asyncio.CancelledError:
                    continue
            return True

    other = asyncio.create_task(build([made_of(hangs)(name=name) for name in "ab"], on_event=events.append, grace=0.05))
    await hangs.began.wait()
    asks = made_of(lambda _: Stubborn())(name="x")
    building = asyncio.create_task(build(asks, grace=0.05, on_event=events.append))
    await began.wait()
    building.cancel()
    await asyncio.wait([building])
    hangs.go.set()
    await other
    release.set()
    for _ in range(5):
        await asyncio.sleep(0)
    assert [event.task for event in events if isinstance(event, Abandoned)] == [asks]


async def test_a_body_that_leaves_while_its_outputs_are_asked_for(hangs: type[Hangs]) -> None:
    class Short(Makes):
        timeout = 0.02

        def output(self) -> Any:
            return Late(self.name)

    class Long(Makes):
        def output(self) -> Any:
            return Late(self.name)

    class Late(Stored):
        @classmethod
        async def exists_many(cls, targets: Sequence[Stored]) -> Any:
            if there:
                hangs.began.set()
                await hangs.go.wait()
            return await Stored.exists_many(targets)

    building = asyncio.create_task(build([Short(name="a"), Long(name="b"), Long(name="c")]))
    await hangs.began.wait()
    await asyncio.sleep(0.1)  # longer than its timeout
    hangs.go.set()
    result = await asyncio.wait_for(building, 5)
    assert result.failed == (Short(name="a"),)
    assert len(result.ran) == 2


async def test_of_a_large_call_some_are_named(caplog: pytest.LogCaptureFixture) -> None:
    release, began = asyncio.Event(), asyncio.Event()
    events: list[Event] = []

    class Stubborn(Stored):
        @classmethod
        async def exists_many(cls, targets: Sequence[Stored]) -> Any:
            began.set()
            while not release.is_set():
                try:
                    await release.wait()
                except asyncio.CancelledError:
                    continue
            return [True] * len(targets)

    made = made_of(Stubborn)
    building = asyncio.create_task(build([made(name=name) for name in names(1234)], grace=0, on_event=events.append))
    await began.wait()
    building.cancel()
    await asyncio.wait([building])
    release.set()
    for _ in range(5):
        await asyncio.sleep(0)
    given_up = [event for event in events if isinstance(event, Abandoned)]
    assert len(given_up) == module.NAMED == 10
    assert given_up[0].stack == ("in Stubborn.exists_many(), with 1,224 tasks more",)


async def test_a_call_in_a_thread_does_not_hold_up_a_build_that_is_cancelled(abandoned: Callable[..., None]) -> None:
    began, release = threading.Event(), threading.Event()

    class Blocks(StoredBlocking):
        @staticmethod
        def exists_many(targets: Any) -> Any:  # type: ignore[override]
            loop.call_soon_threadsafe(entered.set)
            began.set()
            release.wait(30)
            return [True] * len(targets)

    abandoned(threads=1)
    loop, entered = asyncio.get_running_loop(), asyncio.Event()
    building = asyncio.create_task(build([made_of(Blocks)(name=name) for name in names(3)]))
    await entered.wait()
    building.cancel()
    await asyncio.wait([building], timeout=5)
    assert building.cancelled()
    release.set()


async def test_a_call_cancelled_by_somebody_else_is_an_unknown_answer(hangs: type[Hangs]) -> None:
    building = asyncio.create_task(build([made_of(hangs)(name=name) for name in names(3)]))
    await hangs.began.wait()
    [call] = asyncio.all_tasks() - {building, asyncio.current_task()}
    call.cancel()
    result = await asyncio.wait_for(building, 5)
    assert list(unknown(result)) == names(3)
    assert "Hangs.exists_many() was cancelled" in str(unknown(result)["00000"])


@pytest.mark.parametrize("style", STYLES)
async def test_cancelled_at_every_point(style: Style) -> None:
    running: Counter[str] = Counter()

    class Steps(Stored):
        @classmethod
        async def exists_many(cls, targets: Sequence[Stored]) -> Any:
            running["calls"] += 1
            try:
                for _ in range(3):
                    await asyncio.sleep(0)
                return [True] * len(targets)
            finally:
                await asyncio.sleep(0)
                running["calls"] -= 1

    made = made_of(lambda name: [Steps(name), Steps(name + "+")])
    mixed = made_of(lambda name: [Steps(name), Steps(name + "+"), MemoryTarget("m")])
    MemoryTarget("m").put(1)

    async def body() -> None:
        result = await build([*(made(name=name) for name in names(3)), mixed(name="m")])
        assert len(result.skipped) == 4

    async def check(outcome: Outcome) -> None:
        assert not running["calls"], f"{outcome}: a call outlived its build"

    assert await sweep(body, check, style) >= 1


def test_any_order() -> None:
    """Latencies and failures by seed; tasks that ask again as others end; one call a class and wave at most."""

    async def main() -> None:
        chance = SimulatedLoop.running().random
        there.clear()
        asked.clear()
        world = {name: chance.choice([True, True, False, OSError(name)]) for name in names(40)}

        class Far(Stored):
            @classmethod
            async def exists_many(cls, targets: Sequence[Stored]) -> Any:
                asked.append([target.name for target in targets])
                await asyncio.sleep(chance.uniform(0, 3))
                return [world[target.name] for target in targets]

            async def exists(self) -> bool:
                answer = world[self.name]
                alone.append(self.name)
                await asyncio.sleep(chance.uniform(0, 1))
                if isinstance(answer, OSError):
                    raise answer
                return answer  # type: ignore[no-any-return]

        class Node(ExternalTask):
            name: str

            def output(self) -> Any:
                return Far(self.name)

        alone.clear()
        result = await build([Node(name=name) for name in chance.choices(names(40), k=30)])
        for task, one in result.tasks.items():
            answer = world[task.name]  # type: ignore[attr-defined]
            assert one.status == ("unknown" if answer not in (True, False) else "complete" if answer else "missing")
        questions = Counter([*alone, *(name for call in asked for name in call)])
        assert set(questions.values()) == {1}
        assert len(asked) + len(alone) == 1

    explore(main, 50)


def test_threads_of_a_simulated_loop() -> None:
    async def main() -> None:
        there.update(names(5))
        result = await build([made_of(StoredBlocking)(name=name) for name in names(5)])
        assert len(result.skipped) == 5

    simulate(main, seed=1)
