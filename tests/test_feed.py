"""What readers of a run's events get: everything in time, and one ``Lagged`` for what they were too slow for."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections import deque
from collections.abc import Iterator
from typing import Any

import pytest

from asyncflow import (
    BuildFinished,
    BuildStarted,
    ConfigError,
    Event,
    EventReader,
    Lagged,
    MemoryTarget,
    Run,
    Task,
    TaskFinished,
    TaskProgress,
    start,
)
from asyncflow.feed import KEPT, Feed
from asyncflow.testing import STYLES, Outcome, SimulatedLoop, Style, explore, simulate, sweep


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    MemoryTarget.clear()
    yield
    MemoryTarget.clear()


class Step(Task):
    n: int
    seconds: float = 0.0

    async def run(self) -> int:
        await asyncio.sleep(self.seconds)
        return self.n


class Talks(Task):
    """Tells its progress ``words`` times, with or without letting others in between."""

    words: int
    politely: bool = False

    async def run(self) -> None:
        for n in range(self.words):
            self.progress(n / self.words, str(n))
            if self.politely:
                await asyncio.sleep(0)
        await asyncio.sleep(0)


class Gate(Task):
    """Runs until the test opens it."""

    opened = asyncio.Event()

    async def run(self) -> None:
        await Gate.opened.wait()


@pytest.fixture
def gate() -> asyncio.Event:
    Gate.opened = asyncio.Event()
    return Gate.opened


def event(seq: int) -> Event:
    return BuildStarted(seq, float(seq), "r", ())


def last(seq: int) -> Event:
    return BuildFinished(seq, float(seq), "r", "succeeded", {})


async def read(reader: EventReader) -> list[Event]:
    return [event async for event in reader]


def missed(events: list[Event]) -> int:
    return sum(event.missed for event in events if isinstance(event, Lagged))


def received(events: list[Event]) -> list[int]:
    return [event.seq for event in events if not isinstance(event, Lagged)]


# All of it -----------------------------------------------------------------------------------------------


async def test_a_reader_gets_every_event_up_to_the_end() -> None:
    told: list[Event] = []
    run = start([Step(n=n) for n in range(3)], on_event=told.append)
    events = await read(run.events())
    assert events == told
    assert received(events) == list(range(1, len(events) + 1))
    assert isinstance(events[0], BuildStarted)
    assert isinstance(events[-1], BuildFinished)
    assert {event.run_id for event in events} == {run.run_id}
    assert run.done


async def test_one_that_comes_late_gets_what_is_kept() -> None:
    run = start([Step(n=n) for n in range(3)])
    early = await read(run.events())
    await run
    assert await read(run.events()) == early


def test_readers_of_all_speeds_get_the_same_in_any_order() -> None:
    async def main() -> None:
        async def reads(pause: float, since: int) -> list[Event]:
            events = []
            async for event in run.events(since=since):
                events.append(event)
                await asyncio.sleep(chance.uniform(0, pause))
            return events

        chance = SimulatedLoop.running().random
        run = start([Step(n=n, seconds=chance.uniform(0.1, 3)) for n in range(5)])
        slow, fast, resumed = await asyncio.gather(reads(5, 0), reads(0.01, 0), reads(1, 0))
        assert slow == fast == resumed
        assert received(slow) == list(range(1, 13))
        await run

    explore(main, seeds=100)


def test_a_reader_is_told_when_it_happens() -> None:
    async def main() -> None:
        now = SimulatedLoop.running().time
        run = start([Step(n=n, seconds=n) for n in (1, 2, 3)])
        ends = [(event.task, now()) async for event in run.events() if isinstance(event, TaskFinished)]
        assert ends == [(Step(n=n, seconds=n), n) for n in (1, 2, 3)]
        await run

    simulate(main)


# Too slow ------------------------------------------------------------------------------------------------


async def test_a_slow_reader_of_ten_thousand_tasks_is_told_how_much_it_missed() -> None:
    told: list[int] = []
    kept: list[int] = []

    def listen(event: Event) -> None:
        told.append(event.seq)
        kept.append(len(run._feed.kept))

    run = start([Step(n=n) for n in range(10_000)], on_event=listen)
    reader = run.events()
    first = await anext(reader)  # and now it is busy for as long as the run lasts
    await run
    events = [first, *await read(reader)]
    assert len(told) == 20_002
    assert max(kept) == KEPT
    lagged = events[1]
    assert isinstance(lagged, Lagged)
    assert lagged.missed == 20_002 - 1 - KEPT
    assert len(received(events)) + missed(events) == len(told)
    assert received(events) == [1, *told[-KEPT:]]
    assert isinstance(events[-1], BuildFinished)


def test_a_reader_that_is_slower_than_the_run_never_holds_it_up() -> None:
    async def main() -> None:
        async def reads() -> list[Event]:
            events = []
            async for event in run.events(buffer=4):
                events.append(event)
                await asyncio.sleep(10)
            return events

        run = start(Step(n=n, seconds=n) for n in range(1, 51))
        reading = asyncio.create_task(reads())
        result = await run
        assert SimulatedLoop.running().time() == 50, "as long as the slowest task takes"
        assert result.ok
        events = await reading
        assert len(received(events)) + missed(events) == 102
        assert isinstance(events[-1], BuildFinished)
        numbers = [event.seq for event in events]
        assert numbers == sorted(set(numbers)), "upwards, whatever was missed"

    simulate(main)


async def test_lagged_stands_where_the_last_event_missed_stood() -> None:
    feed = Feed(asyncio.get_running_loop())
    for seq in range(1, 11):
        feed.add(event(seq))
    reader = EventReader(feed, since=2, buffer=3)
    assert await anext(reader) == Lagged(7, 8.0, "r", 5)  # 3 to 7; its time is that of the event that follows
    assert [(await anext(reader)).seq for _ in range(3)] == [8, 9, 10]


async def test_after_lagged_comes_an_event_however_fast_they_are() -> None:
    feed = Feed(asyncio.get_running_loop())
    reader = EventReader(feed, since=0, buffer=1)
    kinds, numbers = [], []
    for seq in range(1, 21, 2):
        feed.add(event(seq))
        feed.add(event(seq + 1))
        got = await anext(reader)
        kinds.append(type(got) is Lagged)
        numbers.append(got.seq)
    assert kinds == [True, False] * 5
    assert numbers == [1, 2, 5, 6, 9, 10, 13, 14, 17, 18]


def test_one_store_for_all_does_what_a_buffer_for_each_would() -> None:
    """Against the obvious way: every reader has a queue that drops its oldest."""

    class Model:
        def __init__(self, size: int) -> None:
            self.queue: deque[int] = deque()
            self.size = size
            self.lost = 0
            self.pinned: int | None = None

        def add(self, seq: int) -> None:
            self.queue.append(seq)
            if len(self.queue) > self.size:
                self.queue.popleft()
                self.lost += 1

        def read(self) -> tuple[int, int] | None:
            """(seq, missed) of the next one."""
            if self.pinned is not None:
                seq, self.pinned = self.pinned, None
                return seq, 0
            if self.lost:
                lost, self.lost = self.lost, 0
                self.pinned = self.queue.popleft()
                return self.pinned - 1, lost
            return (self.queue.popleft(), 0) if self.queue else None

    async def main() -> None:
        chance = SimulatedLoop.running().random
        feed = Feed(asyncio.get_running_loop())
        pairs = []
        for _ in range(4):
            size = chance.choice([1, 2, 5, 30])
            pairs.append((EventReader(feed, 0, size), Model(size)))
        busy = chance.uniform(0.1, 0.9)
        seq = 0
        for _ in range(300):
            if chance.random() < busy:
                seq += 1
                feed.add(event(seq))
                for _, model in pairs:
                    model.add(seq)
            else:
                reader, model = chance.choice(pairs)
                expected = model.read()
                if expected is not None:
                    got = await anext(reader)
                    assert (got.seq, got.missed if isinstance(got, Lagged) else 0) == expected

    explore(main, seeds=300)


# Resuming ------------------------------------------------------------------------------------------------


async def test_since_goes_on_after_the_event_of_that_number() -> None:
    run = start([Step(n=n) for n in range(5)])
    events = await read(run.events())
    await run
    for known in events:
        assert await read(run.events(since=known.seq)) == events[known.seq :]


async def test_what_is_not_kept_any_more_is_told() -> None:
    run = start(Talks(words=2 * KEPT))
    await run
    events = await read(run.events(since=17))
    total = 2 * KEPT + 4
    assert isinstance(events[0], Lagged)
    assert (events[0].seq, events[0].missed) == (total - KEPT, total - KEPT - 17)
    assert received(events) == list(range(total - KEPT + 1, total + 1))
    assert await read(run.events(since=events[0].seq)) == events[1:], "one can resume after a Lagged too"


async def test_a_number_the_run_has_not_come_to_is_refused(gate: asyncio.Event) -> None:
    run = start(Gate())
    with pytest.raises(ConfigError, match=r"events\(since=1\): this run has come to 0 only"):
        run.events(since=1)
    reader = run.events()
    await anext(reader)
    assert run.events(since=1)
    gate.set()
    await run
    assert await read(run.events(since=4)) == []


@pytest.mark.parametrize("wrong", [{"since": -1}, {"since": "1"}, {"buffer": 0}, {"buffer": True}, {"buffer": 1.5}])
async def test_options_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    run = start(Step(n=1))
    with pytest.raises(ConfigError, match=r"events\((since|buffer)=.*\): expected a whole number of at least [01]"):
        run.events(**wrong)
    await run


# Leaving -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("style", STYLES)
async def test_a_reader_can_be_cancelled_anywhere_and_read_on(style: Style) -> None:
    state: dict[str, Any] = {}

    async def case() -> None:
        state["run"] = run = start(Talks(words=3, politely=True))
        state["events"] = events = []
        state["reader"] = reader = run.events()
        async for event in reader:
            events.append(event)  # noqa: PERF401  # one by one: it is cancelled between two of them

    async def check(outcome: Outcome) -> None:
        run: Run = state["run"]
        events = state["events"] + await read(state["reader"])
        assert received(events) == list(range(1, 8)), f"{outcome}: nothing is lost, nothing comes twice"
        assert (await run).ok, f"{outcome}: the run goes on"
        assert not run._feed._waiting

    assert await sweep(case, check, style) >= 3


async def test_a_reader_that_is_dropped_is_gone(gate: asyncio.Event) -> None:
    run = start(Gate())
    reader = run.events(buffer=50_000)
    await anext(reader)
    await anext(reader)
    ref = weakref.ref(reader)
    reading = asyncio.create_task(read(reader))
    await asyncio.sleep(0)
    reading.cancel()
    await asyncio.wait([reading])
    del reader, reading
    gc.collect()
    assert ref() is None
    assert not run._feed._waiting
    assert not run._feed._wide
    gate.set()
    await run


async def test_an_event_comes_as_its_reader_is_cancelled() -> None:
    feed = Feed(asyncio.get_running_loop())
    reader = EventReader(feed, 0, 10)
    reading = asyncio.create_task(read(reader))
    await asyncio.sleep(0)
    reading.cancel()
    feed.add(last(1))
    await asyncio.wait([reading])
    assert reading.cancelled()
    assert await read(reader) == [last(1)]


async def test_leaving_the_loop_needs_no_closing() -> None:
    run = start([Step(n=n) for n in range(3)])
    async for event in run.events():
        assert isinstance(event, BuildStarted)
        break
    assert not run._feed._waiting
    assert (await run).ok


async def test_aclose_ends_the_iteration_also_for_who_waits(gate: asyncio.Event) -> None:
    run = start(Gate())
    async with run.events() as reader:
        reading = asyncio.create_task(read(reader))
        other = asyncio.create_task(read(run.events()))
        await asyncio.sleep(0.01)
        assert not reading.done()
    assert len(await reading) == 2
    with pytest.raises(StopAsyncIteration):
        await anext(reader)
    await reader.aclose()
    assert not other.done()
    gate.set()
    assert len(await other) == 4
    await run


async def test_two_tasks_may_share_a_reader() -> None:
    run = start(Talks(words=20, politely=True))
    reader = run.events()
    one, two = await asyncio.gather(read(reader), read(reader))
    assert sorted(received(one + two)) == list(range(1, 25))
    await run


# How much is kept ----------------------------------------------------------------------------------------


async def test_as_much_is_kept_as_the_widest_reader_asks_for() -> None:
    feed = Feed(asyncio.get_running_loop())
    narrow, wide = EventReader(feed, 0, 10), EventReader(feed, 0, 3 * KEPT)
    widest = EventReader(feed, 0, 4 * KEPT)
    for seq in range(1, 5 * KEPT + 1):
        feed.add(event(seq))
    assert len(feed.kept) == 4 * KEPT
    await widest.aclose()
    feed.add(event(5 * KEPT + 1))
    assert len(feed.kept) == 3 * KEPT
    assert await anext(wide) == Lagged(2 * KEPT + 1, 2 * KEPT + 2, "r", 2 * KEPT + 1)
    assert (await anext(narrow)).seq == 5 * KEPT - 9
    del wide
    gc.collect()
    feed.add(event(5 * KEPT + 2))
    assert len(feed.kept) == KEPT


async def test_what_was_kept_for_a_reader_that_has_gone_goes_with_the_next_event() -> None:
    feed = Feed(asyncio.get_running_loop())
    wide = EventReader(feed, 0, 10 * KEPT)
    for seq in range(1, 2 * KEPT + 1):
        feed.add(event(seq))
    assert len(feed.kept) == 2 * KEPT
    await wide.aclose()
    feed.add(event(2 * KEPT + 1))
    assert len(feed.kept) == KEPT


async def test_a_wide_reader_misses_nothing() -> None:
    run = start(Talks(words=3 * KEPT))
    reader = run.events(buffer=10 * KEPT)
    await run
    events = await read(reader)
    assert received(events) == list(range(1, 3 * KEPT + 5))
    assert len([event for event in events if isinstance(event, TaskProgress)]) == 3 * KEPT


# Other loops ---------------------------------------------------------------------------------------------


async def test_another_loop_is_refused_while_the_run_lasts_and_served_afterwards(gate: asyncio.Event) -> None:
    outcomes: list[Any] = []

    def elsewhere() -> None:
        async def main() -> None:
            try:
                outcomes.append(len(await read(run.events())))
            except RuntimeError as error:
                outcomes.append(str(error))

        asyncio.run(main())

    run = start(Gate())
    await anext(run.events())
    for ended in (False, True):
        if ended:
            gate.set()
            await run
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
    assert outcomes == ["a run's events can be read, while it lasts, only in the event loop it was started in", 4]
