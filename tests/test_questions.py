"""How often the engine asks whether something is there: exact counts, one by one and in bulk."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Awaitable, Iterator, Sequence
from contextvars import ContextVar
from typing import Any, ClassVar

import pytest

from asyncflow import BuildResult, Flow, MemoryTarget, Target, Task, TaskFailed, WrapperTask, build, gather
from asyncflow import questions as engine
from asyncflow.attempt import current

questions: Counter[str] = Counter()
there: set[str] = set()
gate: list[asyncio.Event] = []


class Counted(Target):
    """In a store where every question is counted; ``put`` publishes through the attempt, as handles do."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.key = "counted:" + name

    async def exists(self) -> bool:
        return self.look()

    def look(self) -> bool:
        questions[self.name] += 1
        return self.name in there

    def put(self) -> None:
        attempt = current.get()
        assert attempt is not None
        attempt.begin_publish()
        there.add(self.name)
        attempt.end_publish(self.key, visible=True)


class CountedInThread(Counted):
    def exists(self) -> bool:  # type: ignore[override]
        return self.look()


class CountedInBulk(Counted):
    @classmethod
    async def exists_many(cls, targets: Sequence[Counted]) -> list[bool]:
        return [target.look() for target in targets]


class CountedInBulkInThread(CountedInThread):
    @classmethod
    def exists_many(cls, targets: Sequence[Counted]) -> list[bool]:
        return [target.look() for target in targets]


class Promised(Counted):
    """A plain def that gives a bare coroutine."""

    def exists(self) -> Awaitable[bool]:  # type: ignore[override]
        return Counted._exists(self)  # type: ignore[no-any-return]


@pytest.fixture(params=[Counted, CountedInThread, CountedInBulk, CountedInBulkInThread, Promised])
def kind(request: pytest.FixtureRequest) -> Iterator[type[Counted]]:
    questions.clear()
    there.clear()
    gate[:] = [asyncio.Event(), asyncio.Event()]
    Thing.kind = request.param
    yield request.param
    MemoryTarget.clear()


class Thing(Task):
    kind: ClassVar[type[Counted]] = Counted
    name: str

    def output(self) -> Any:
        return self.kind(self.name)


class Publishes(Thing):
    async def run(self) -> None:
        self.output().put()


class PublishesInThread(Thing):
    def run(self) -> None:
        self.output().put()


class Writes(Thing):
    """Says nothing of what it has made."""

    async def run(self) -> None:
        there.add(self.name)


class WritesInThread(Thing):
    def run(self) -> None:
        there.add(self.name)


class Above(Thing):
    def requires(self) -> list[Thing]:
        return [Publishes(name=self.name + part) for part in "ab"]

    async def run(self) -> None:
        self.output().put()


@pytest.mark.parametrize(("task", "count"), [(Publishes, 1), (PublishesInThread, 1), (Writes, 2), (WritesInThread, 2)])
async def test_missing_tasks(kind: type[Counted], task: type[Thing], count: int) -> None:
    """Once before; after the body only where it has not published through a handle of its own."""
    assert len((await build([task(name=name) for name in "abc"])).ran) == 3
    assert questions == dict.fromkeys("abc", count)


async def test_complete_tasks_and_what_is_below_them(kind: type[Counted]) -> None:
    there.update("xy")
    assert len((await build([Above(name="x"), Above(name="y")])).skipped) == 2
    assert questions == {"x": 1, "y": 1}


async def test_a_graph(kind: type[Counted]) -> None:
    there.add("xa")
    result = await build([Above(name="x"), Above(name="x"), Publishes(name="xb")])
    assert len(result.ran) == 2
    assert questions == {"x": 1, "xa": 1, "xb": 1}


async def test_a_wrapper_has_no_question_of_its_own(kind: type[Counted]) -> None:
    class All(WrapperTask):
        def requires(self) -> list[Thing]:
            return [Publishes(name=name) for name in "ab"]

    assert (await build(All())).ok
    assert questions == {"a": 1, "b": 1}


async def test_a_forced_task_is_not_asked_about(kind: type[Counted]) -> None:
    there.update("ab")
    assert len((await build([Publishes(name=name) for name in "ab"], force=True)).ran) == 2
    assert not questions


async def test_what_this_build_has_made_or_found_or_seen_fail(kind: type[Counted]) -> None:
    class Fails(Thing):
        async def run(self) -> None:
            raise ValueError

    class Asks(Task):
        def requires(self) -> list[Thing]:
            return [Publishes(name="made"), Publishes(name="found")]

        async def run(self) -> None:
            for _ in range(3):
                await gather(Publishes(name="made"), Publishes(name="found"), Publishes(name="new"))
                with pytest.raises(TaskFailed):
                    await Fails(name="fails")

    there.add("found")
    assert len((await build(Asks())).skipped) == 1
    assert questions == {"made": 1, "found": 1, "new": 1, "fails": 1}


class Slow(Thing):
    async def run(self) -> None:
        gate[0].set()
        await gate[1].wait()
        if self.name == "fails":
            raise ValueError
        self.output().put()


async def test_two_builds_that_share_a_task(kind: type[Counted]) -> None:
    first = asyncio.create_task(build(Slow(name="s")))
    await gate[0].wait()
    second = asyncio.create_task(build([Slow(name="s"), Publishes(name="p")]))
    while "p" not in there:  # or "s" may end between the look for it and its claim, and it is looked for again
        await asyncio.sleep(0)
    gate[1].set()
    assert (await first).ok
    assert (await second).ok
    assert questions == {"s": 1, "p": 1}


async def test_two_builds_that_plan_one_task_at_one_moment(kind: type[Counted]) -> None:
    one, other = await asyncio.gather(build(Publishes(name="s")), build(Publishes(name="s")))
    assert one.ok
    assert other.ok
    assert questions == {"s": 1}


@pytest.mark.parametrize("name", ["s", "fails"])
async def test_what_this_build_has_shared_is_final_in_it_too(kind: type[Counted], name: str) -> None:
    asked: list[int] = []

    class Asks(Task):
        async def run(self) -> None:
            for _ in range(3):
                asked.append(1)
                if name == "fails":
                    with pytest.raises(TaskFailed):
                        await Slow(name=name)
                else:
                    await Slow(name=name)

    first = asyncio.create_task(build(Slow(name=name)))
    await gate[0].wait()
    second = asyncio.create_task(build(Asks()))
    while not asked:
        await asyncio.sleep(0)
    for _ in range(5):
        await asyncio.sleep(0)
    gate[1].set()
    await first
    assert (await second).ok
    assert questions == {name: 1}


async def test_another_look_when_somebody_else_was_at_work_on_it(kind: type[Counted]) -> None:
    """Two tasks of two builds make one target: the second looks again when the first has ended."""

    class Rival(Slow): ...

    first = asyncio.create_task(build(Slow(name="s")))
    await gate[0].wait()
    second = asyncio.create_task(build(Rival(name="s")))
    while questions["s"] < 2:
        await asyncio.sleep(0)
    for _ in range(20):
        await asyncio.sleep(0)
    gate[1].set()
    assert (await first).ok
    assert (await second).counts == {"adopted": 1}
    assert questions == {"s": 3}, "one for each plan, and one more"


def test_another_look_when_another_loop_has_made_it(kind: type[Counted]) -> None:
    """Planned while it was missing; made meanwhile; found there when its turn comes."""
    entered, go = threading.Event(), threading.Event()

    class Waits(Thing):
        def requires(self) -> Any:
            return Blocks()

        async def run(self) -> None:
            self.output().put()

    class Blocks(Task):
        def run(self) -> None:
            entered.set()
            go.wait(10)

    results: list[Any] = []
    there_first = threading.Thread(target=lambda: results.append(asyncio.run(build(Waits(name="w")))))
    there_first.start()
    entered.wait(10)

    class Same(Thing):
        async def run(self) -> None:
            self.output().put()

    assert asyncio.run(build(Same(name="w"))).ok
    go.set()
    there_first.join(10)
    assert results[0][Waits(name="w")]
    assert results[0].tasks[Waits(name="w")].status == "adopted"
    assert questions == {"w": 3}


class Several(Thing):
    """Two outputs, of which its body publishes one through a handle of its own."""

    def output(self) -> Any:
        return [self.kind(self.name + "1"), self.kind(self.name + "2")]

    async def run(self) -> None:
        self.output()[0].put()
        there.add(self.name + "2")


class SeveralInThread(Several):
    def run(self) -> None:  # type: ignore[override]
        self.output()[0].put()
        there.add(self.name + "2")


@pytest.mark.parametrize("task", [Several, SeveralInThread])
async def test_after_a_body_only_what_it_has_not_published_is_asked_for(
    kind: type[Counted], task: type[Several]
) -> None:
    there.update({"a1", "b2"})
    assert len((await build([task(name="a"), task(name="b")])).ran) == 2
    in_bulk = kind._many is not None
    # In order, up to the first that is not there; in bulk all of them in one call. Then the second, after the body.
    assert questions == {"a1": 1, "a2": 2, "b1": 1, "b2": 1 + in_bulk}


class OneAfterTheOther(Thing):
    """The first can be asked in a thread, the second turns out to be for the loop."""

    def output(self) -> Any:
        return [CountedInThread("1"), Promised("2"), CountedInThread("3")]

    def run(self) -> None:
        there.update("123")


@pytest.mark.parametrize("complete", ["", "1", "12", "123"])
async def test_none_is_asked_twice_where_a_thread_hands_over_to_the_loop(complete: str) -> None:
    questions.clear()
    there.clear()
    there.update(complete)
    assert (await build(OneAfterTheOther(name="x"))).ok
    before = {"": "1", "1": "12", "12": "123", "123": "123"}[complete]
    after = "" if complete == "123" else "123"
    assert questions == Counter(before + after)


async def test_a_complete_of_its_own_is_asked_in_place_of_its_targets(kind: type[Counted]) -> None:
    class Own(Thing):
        async def complete(self) -> bool:
            questions["own " + self.name] += 1
            return True

    assert len((await build([Own(name=name) for name in "ab"])).skipped) == 2
    assert questions == {"own a": 1, "own b": 1}


async def test_bodies_that_end_at_one_moment_are_confirmed_in_one_call() -> None:
    calls: list[int] = []
    go = asyncio.Event()

    class Many(Counted):
        @classmethod
        async def exists_many(cls, targets: Sequence[Counted]) -> list[Any]:
            calls.append(len(targets))
            return [OSError("down") if there and target.name == "5" else target.name in there for target in targets]

    class Waits(Thing):
        def output(self) -> Any:
            return Many(self.name)

        async def run(self) -> None:
            if self.name == "99":
                asyncio.get_running_loop().call_soon(go.set)
            await go.wait()
            if self.name != "7":
                there.add(self.name)

    there.clear()
    result = await build([Waits(name=str(n)) for n in range(100)])
    assert calls == [100, 100]
    assert len(result.ran) == 98
    errors = {task.name: str(result.tasks[task].error) for task in result.failed}  # type: ignore[attr-defined]
    assert errors.keys() == {"5", "7"}
    assert errors["5"] == "down"
    assert "its output is not there" in errors["7"]


# Several builds of one loop --------------------------------------------------------------------------------

user: ContextVar[str] = ContextVar("user")
seen: list[tuple[str, str]] = []


class Asked(Task):
    """Complete; how it is asked is decided by ``how``."""

    who: str
    n: int

    async def run(self) -> None:
        raise AssertionError


class ByTarget(Asked):
    class Place(Target):
        def __init__(self, task: Asked) -> None:
            self.task = task
            self.key = f"{task.who} {task.n}"

        async def exists(self) -> bool:
            return await answer(self.task)

    def output(self) -> Target:
        return self.Place(self)


class ByComplete(Asked):
    async def complete(self) -> bool:
        return await answer(self)


class FromThread(Asked):
    """A plain def that gives what is to be awaited."""

    def complete(self) -> Awaitable[bool]:  # type: ignore[override]
        return answer(self)


async def answer(task: Asked) -> bool:
    seen.append((task.who, user.get("nobody")))
    for _ in range(task.n % 3):
        await asyncio.sleep(0)
    return True


@pytest.mark.parametrize("kind", [ByTarget, ByComplete, FromThread])
@pytest.mark.parametrize("flow", [False, True])
async def test_each_is_asked_in_the_context_of_its_own_build(kind: type[Asked], flow: bool) -> None:
    async def request(builds: Flow, who: str) -> None:
        user.set(who)
        tasks = [kind(who=who, n=n) for n in range(10)]
        if flow:
            await asyncio.gather(*map(builds.run, tasks))
        else:
            assert len((await build(tasks)).skipped) == 10

    seen.clear()
    async with Flow() as builds:
        await asyncio.gather(*(request(builds, f"u{n}") for n in range(8)))
    assert len(seen) == 80
    assert not [(who, found) for who, found in seen if who != found]


class Hangs(Task):
    """Nobody knows whether it is complete; if ``stubborn``, its question ignores that it is stopped."""

    n: int
    stubborn: bool = False

    async def complete(self) -> bool:
        while not gate[1].is_set():
            try:
                await gate[1].wait()
            except asyncio.CancelledError:
                if not self.stubborn:
                    raise
        return True

    async def run(self) -> None: ...


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "CHECKERS", 4)
    gate[:] = [asyncio.Event(), asyncio.Event()]
    seen.clear()


async def test_no_more_than_so_many_are_open_at_once(few: None) -> None:
    opened: list[int] = []

    class Waits(Task):
        n: int

        async def complete(self) -> bool:
            opened.append(1)
            most.append(len(opened))
            for _ in range(3):
                await asyncio.sleep(0)
            opened.pop()
            return True

        async def run(self) -> None: ...

    most: list[int] = []
    assert len((await build([Waits(n=n) for n in range(50)])).skipped) == 50
    assert max(most) == 4


async def test_those_that_are_answered_at_once_need_no_task_each() -> None:
    asking: set[Any] = set()

    class AtOnce(Task):
        n: int

        async def complete(self) -> bool:
            asking.add(asyncio.current_task())
            return True

        async def run(self) -> None: ...

    assert len((await build([AtOnce(n=n) for n in range(500)])).skipped) == 500
    assert len(asking) < 50


async def test_those_of_a_build_do_not_wait_for_those_of_another(few: None) -> None:
    first = asyncio.create_task(build([Hangs(n=n) for n in range(10)]))
    for _ in range(10):
        await asyncio.sleep(0)
    async with asyncio.timeout(30):
        assert len((await build([ByComplete(who="b", n=n) for n in range(10)])).skipped) == 10
    assert not first.done()
    gate[1].set()
    assert len((await first).skipped) == 10


@pytest.mark.parametrize("stubborn", [False, True])
async def test_those_behind_the_ones_of_a_build_that_leaves_are_asked_in_the_context_of_who_wants_them(
    few: None, stubborn: bool
) -> None:
    async def both(*, hang: bool) -> BuildResult:
        user.set("a" if hang else "b")
        hanging = [Hangs(n=n, stubborn=stubborn) for n in range(4 * hang)]
        wanted = [ByComplete(who="b", n=n) for n in range(10)]
        return await build([*hanging, *wanted], timeout=0.05 if hang else None, grace=0.05)

    first = asyncio.create_task(both(hang=True))
    for _ in range(10):
        await asyncio.sleep(0)
    async with asyncio.timeout(30):
        second = await both(hang=False)
    assert len(second.skipped) == 10
    assert (await first).status == "cancelled"
    assert seen == [("b", "b")] * 10
    gate[1].set()  # those that were given up end now


async def test_a_question_that_somebody_else_cancels_is_unknown() -> None:
    asked = asyncio.Event()

    class Slow(Target):
        key = "slow"

        async def exists(self) -> bool:
            asked.set()
            await asyncio.sleep(60)
            return False

    class Wants(Task):
        def output(self) -> Target:
            return Slow()

        async def run(self) -> None: ...

    before = asyncio.all_tasks()
    building = asyncio.create_task(build(Wants()))
    await asked.wait()
    for task in asyncio.all_tasks() - before - {building}:
        task.cancel()
    async with asyncio.timeout(20):
        result = await building
    assert result.counts == {"unknown": 1}
    assert "hook was cancelled" in str(result.tasks[Wants()].error)
