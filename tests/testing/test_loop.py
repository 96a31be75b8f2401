"""The simulated loop: time that costs nothing, an order drawn from a seed, and threads that are waited for."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Generator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from asyncflow import Event, LocalTarget, MemoryTarget, Target, Task, TaskFailed, build, gather, threads
from asyncflow.executor import Executor
from asyncflow.testing import SimulatedLoop, Standstill, explore, simulate
from asyncflow.testing import loop as loop_module

HOUR = 3600.0


def now() -> float:
    return SimulatedLoop.running().time()


def runs(main: Callable[[], Coroutine[Any, Any, Any]], seeds: int = 50) -> list[Any]:
    """What ``main()`` returns, seed by seed."""
    return [simulate(main, seed=seed) for seed in range(seeds)]


# Virtual time ---------------------------------------------------------------------------------------------


class Flaky(Task):
    """Comes through at the last of six attempts, an hour after the one before."""

    attempts: int = 6

    async def run(self) -> int:
        for attempt in range(1, self.attempts):
            try:
                if attempt < self.attempts:
                    raise ConnectionError
            except ConnectionError:
                await asyncio.sleep(HOUR)
        return self.attempts


def test_five_retries_with_an_hour_of_back_off_take_no_time() -> None:
    async def main() -> Any:
        result = await build(Flaky())
        assert result[Flaky()] == 6
        assert now() == 5 * HOUR
        return result

    begun = time.perf_counter()
    result = simulate(main)
    assert time.perf_counter() - begun < 0.1
    assert result.tasks[Flaky()].duration == 5 * HOUR
    assert result.duration == pytest.approx(5 * HOUR)


def test_events_have_the_times_of_the_simulation() -> None:
    async def main() -> list[Event]:
        events: list[Event] = []
        await build(Flaky(), on_event=events.append)
        return events

    first, *_, last = simulate(main)
    assert last.time - first.time == pytest.approx(5 * HOUR)


def test_timers_ring_in_the_order_of_time_and_to_the_moment() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        rung: list[tuple[str, float]] = []
        for name, when in (("c", 0.3), ("a", 0.1), ("d", 1e9), ("b", 0.1 + 0.1)):
            loop.call_at(when, lambda name=name: rung.append((name, loop.time())))
        loop.call_later(0.15, rung.append, "cancelled").cancel()
        await asyncio.sleep(2e9)
        assert rung == [("a", 0.1), ("b", 0.2), ("c", 0.3), ("d", 1e9)]
        assert loop.time() == 2e9

    explore(main, 20)


def test_a_timer_that_is_due_rings_though_others_are_busy() -> None:
    async def main() -> None:
        rung = asyncio.Event()
        asyncio.get_running_loop().call_later(0, rung.set)
        while not rung.is_set():
            await asyncio.sleep(0)

    explore(main, 20)


def test_timeouts_are_virtual_too() -> None:
    async def main() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(60):
                await asyncio.sleep(61)
        assert now() == 60
        async with asyncio.timeout(60):
            await asyncio.sleep(59)

    explore(main, 20)


def test_many_cancelled_timers_are_taken_away() -> None:
    async def main() -> None:
        loop = SimulatedLoop.running()
        keep = loop.call_later(HOUR, int)
        for _ in range(1000):
            loop.call_later(2 * HOUR, int).cancel()
        await asyncio.sleep(1)
        assert loop._scheduled == [keep]
        keep.cancel()
        await asyncio.sleep(2 * HOUR)
        assert not loop._scheduled
        assert loop._timer_cancelled_count == 0

    simulate(main)


# The order ------------------------------------------------------------------------------------------------


def noting(names: str, seen: list[str], steps: int = 1) -> list[Coroutine[Any, Any, None]]:
    async def one(name: str) -> None:
        for _ in range(steps):
            seen.append(name)
            await asyncio.sleep(0)

    return [one(name) for name in names]


def test_steps_that_are_ready_together_come_in_any_order() -> None:
    async def main() -> str:
        seen: list[str] = []
        await asyncio.gather(*noting("abc", seen))
        return "".join(seen)

    assert set(runs(main, 100)) == {"abc", "acb", "bac", "bca", "cab", "cba"}


def test_a_task_may_be_slow_and_none_is_forgotten() -> None:
    """One of two that take steps without end gets several ahead, and the other one gets its turn."""

    async def main() -> int:
        seen: list[str] = []
        await asyncio.gather(*noting("ab", seen, steps=20))
        lead = most = 0
        for name in seen:
            lead += 1 if name == "a" else -1
            most = max(most, lead)
        return most

    leads = runs(main, 100)
    assert max(leads) > 2
    assert max(leads) < 20


def test_timers_due_at_one_moment_ring_in_any_order() -> None:
    async def main() -> str:
        seen: list[str] = []
        for name in "abc":
            asyncio.get_running_loop().call_at(5.0, seen.append, name)
        await asyncio.sleep(6)
        return "".join(seen)

    assert len(set(runs(main, 100))) == 6


def test_plain_callbacks_keep_their_order() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        seen: list[int] = []
        steps: list[str] = []
        tasks: list[asyncio.Task[None]] = []
        for n in range(10):
            loop.call_soon(seen.append, n)
            tasks += [loop.create_task(coro) for coro in noting("a", steps, steps=3)]
        await asyncio.sleep(1)
        assert seen == sorted(seen)
        assert len(seen) == 10
        assert len(steps) == 3 * len(tasks) == 30

    explore(main, 100)


def test_a_step_overtakes_no_callback_that_was_there_before_it() -> None:
    async def main() -> bool:
        loop = asyncio.get_running_loop()
        seen: list[str] = []
        loop.call_soon(seen.append, "before")
        step = loop.create_task(noting("s", seen)[0])
        loop.call_soon(seen.append, "after")
        await asyncio.sleep(0)
        assert seen[0] == "before", "sleep(0) lets in what is ready"
        await step
        await asyncio.sleep(1)
        return seen.index("s") < seen.index("after")

    assert set(runs(main, 100)) == {True, False}


def test_a_method_of_a_task_is_a_plain_callback_and_not_its_step() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        seen: list[str] = []
        victim = loop.create_task(asyncio.Event().wait())
        loop.call_soon(seen.append, "before")
        loop.call_soon(victim.cancel)
        loop.call_soon(lambda: seen.append(f"after {victim.cancelling()}"))
        with pytest.raises(asyncio.CancelledError):
            await victim
        await asyncio.sleep(1)
        assert seen == ["before", "after 1"]

    explore(main, 50)


def test_python_tasks_are_told_from_callbacks_as_those_in_c_are() -> None:
    async def main() -> str:
        seen: list[str] = []
        await asyncio.gather(
            *(asyncio.tasks._PyTask(coro) for coro in noting("abc", seen))  # type: ignore[attr-defined]
        )
        return "".join(seen)

    assert asyncio.tasks._PyTask is not asyncio.Task  # type: ignore[attr-defined]
    assert set(runs(main, 5)) == {"abc"}, "not an asyncio.Task: its steps are callbacks like any other"


def test_what_is_ready_is_not_lost_when_a_callback_stops_the_loop() -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    for seed in range(50):
        loop = SimulatedLoop(seed)
        seen: list[int] = []
        for n in range(5):
            loop.call_soon(seen.append, n)
        loop.call_soon(interrupt)
        loop.call_soon(seen.append, 5)
        loop.call_soon(loop.stop)
        with pytest.raises(KeyboardInterrupt):
            loop.run_forever()
        loop.run_forever()
        loop.close()
        assert seen == [0, 1, 2, 3, 4, 5]


def test_a_stopped_loop_stops_at_once() -> None:
    loop = SimulatedLoop(0)
    loop.stop()
    loop.run_forever()
    loop.close()


# The same seed, the same trace ----------------------------------------------------------------------------


class Unit(Task):
    """Waits, asks for others, and waits again, by chance."""

    n: int
    universe: int

    def output(self) -> MemoryTarget:
        return MemoryTarget(f"trace/{self.universe}/{self.n}")

    def requires(self) -> list[Unit]:
        return [Unit(n=n, universe=self.universe) for n in {self.n // 2, self.n // 3} - {self.n}]

    async def run(self) -> None:
        chance = SimulatedLoop.running().random
        await asyncio.sleep(chance.choice([0, 0, 1, 2, chance.random()]))
        if self.n > 3 and chance.random() < 0.5:
            try:
                await gather(*(Unit(n=n, universe=self.universe) for n in (self.n - 1, self.n - 2)))
            except TaskFailed:
                await asyncio.sleep(chance.random())
        if chance.random() < 0.1:
            raise ValueError(self.n)
        self.output().put(self.n)


class Slow(MemoryTarget):
    """Answers on the loop, after a while."""

    async def exists(self) -> bool:  # type: ignore[override]
        await asyncio.sleep(SimulatedLoop.running().random.random())
        return self.name in self._values


class Remote(Unit):
    def output(self) -> Slow:
        return Slow(f"trace/{self.universe}/{self.n}")


async def traced() -> list[str]:
    """Everything that is heard of two builds of one graph, one of which is cancelled on the way."""
    MemoryTarget.clear()
    loop = SimulatedLoop.running()
    trace: list[str] = []

    def note(name: str, event: Event) -> None:
        task = getattr(event, "task", "")
        trace.append(f"{loop.time()} {name} {type(event).__name__} {task} {getattr(event, 'status', '')}")

    async def one(name: str, wanted: list[Task]) -> None:
        try:
            await build(wanted, concurrency=5, on_event=partial(note, name))
        except asyncio.CancelledError:
            trace.append(f"{loop.time()} {name} cancelled")

    stays = asyncio.create_task(one("stays", [Unit(n=17, universe=1), Remote(n=12, universe=1)]))
    leaves = asyncio.create_task(one("leaves", [Unit(n=20, universe=1)]))
    await asyncio.sleep(loop.random.random() * 3)
    leaves.cancel()
    await asyncio.wait([stays, leaves])
    MemoryTarget.clear()
    return trace


def test_the_same_seed_gives_the_same_trace() -> None:
    first = runs(traced, 100)
    again = runs(traced, 100)
    for seed, (one, other) in enumerate(zip(first, again, strict=True)):
        assert one == other, f"seed {seed}"
    assert len({tuple(trace) for trace in first}) == 100, "every seed should have a trace of its own"
    assert max(map(len, first)) > 40


def test_the_trace_is_the_same_in_another_process(tmp_path: Path) -> None:
    """The order of a set of strings differs from process to process, that of a set of objects from run to run."""
    (tmp_path / "traced.py").write_text(Path(__file__).read_text(encoding="utf-8"))
    code = (
        "import hashlib, traced; from asyncflow.testing import simulate\n"
        "print(hashlib.sha256(repr([simulate(traced.traced, seed=s) for s in range(20)]).encode()).hexdigest())"
    )
    digests = set()
    for salt in ("1", "2"):
        environment = {"PYTHONHASHSEED": salt, "PYTHONPATH": str(Path(loop_module.__file__).parents[2])}
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stderr
        digests.add(done.stdout)
    assert len(digests) == 1


def test_a_sweep_of_cancels_over_a_set_of_tasks_leaves_the_order_to_the_seed() -> None:
    async def main() -> str:
        seen: list[str] = []

        async def one(name: str) -> None:
            try:
                await asyncio.Event().wait()
            finally:
                seen.append(name)

        async def group() -> None:
            async with asyncio.TaskGroup() as tasks:
                # Tasks of varying size, so that their addresses, and with them the set's order, differ each time.
                for name in "abcdefghij":
                    ballast.append(bytearray(random.randrange(10_000)))
                    tasks.create_task(one(name))
                await asyncio.sleep(1)
                raise LookupError

        with pytest.raises(ExceptionGroup):
            await group()
        return "".join(seen)

    ballast: list[bytearray] = []
    assert len({simulate(main, seed=7) for _ in range(20)}) == 1
    assert len(set(runs(main, 20))) > 10


def test_chance_of_the_tests_own_leaves_the_order_alone() -> None:
    async def main(draws: int) -> str:
        for _ in range(draws):
            SimulatedLoop.running().random.random()
        seen: list[str] = []
        await asyncio.gather(*noting("abcdef", seen, steps=3))
        return "".join(seen)

    assert simulate(partial(main, 0), seed=3) == simulate(partial(main, 10), seed=3)


def test_the_engine_takes_its_time_from_the_loop() -> None:
    async def main() -> None:
        loop, executor = SimulatedLoop.running(), Executor.current()
        assert executor._clock == loop.clock
        assert executor._meter == executor._planner._meter == executor._planner._hooks._crew._meter == loop.meter
        await build(Flaky())  # and the executor is gone

    simulate(main)


def test_slices_of_the_engines_work_end_by_the_seed() -> None:
    async def main() -> list[bool]:
        loop = SimulatedLoop.running()
        return [loop.meter() > loop.time() + 0.005 for _ in range(100)]

    assert simulate(main, seed=1) == simulate(main, seed=1)
    assert {True, False} == set(simulate(main, seed=1))
    assert len(set(map(tuple, runs(main, 10)))) == 10


# Threads --------------------------------------------------------------------------------------------------


def work() -> None:
    """Keep a thread at work for longer than the loop needs to go round."""
    threading.Event().wait(0.02)


async def meanwhile(body: Callable[[], Coroutine[Any, Any, float]]) -> None:
    """Time has not moved when ``body()`` ends, although a timer was set."""
    ticks: list[float] = []
    timer = asyncio.get_running_loop().call_later(0.001, lambda: ticks.append(now()))
    assert await body() == 0.0
    assert not ticks
    timer.cancel()


class Busy(Task):
    n: int = 0

    def run(self) -> int:
        work()
        return self.n


def test_time_stands_still_while_a_sync_body_is_at_work() -> None:
    async def body() -> float:
        (await build([Busy(n=n) for n in range(3)])).raise_for_failure()
        return now()

    explore(partial(meanwhile, body), 3)


def test_time_stands_still_while_asyncios_threads_are_at_work() -> None:
    async def body() -> float:
        await asyncio.to_thread(work)
        await asyncio.get_running_loop().run_in_executor(None, work)
        return now()

    explore(partial(meanwhile, body), 3)


class Blocking(Target):
    """Its ``exists`` blocks its thread for a while."""

    def exists(self) -> bool:
        work()
        return True


class Checked(Task):
    def output(self) -> Blocking:
        return Blocking()

    async def run(self) -> None: ...


def test_time_stands_still_while_a_sync_hook_is_at_work() -> None:
    async def body() -> float:
        assert (await build(Checked())).counts == {"complete": 1}
        return now()

    explore(partial(meanwhile, body), 3)


def test_time_stands_still_while_a_file_is_written(tmp_path: Path) -> None:
    class Written(Task):
        n: int

        def output(self) -> LocalTarget:
            return LocalTarget(tmp_path / f"{self.n}")

        async def run(self) -> None:
            async with self.output().open("w") as file:
                await file.write("whole")

    async def body() -> float:
        seed = SimulatedLoop.running().seed
        (await build([Written(n=n + 10 * seed) for n in range(5)])).raise_for_failure()
        return now()

    explore(partial(meanwhile, body), 5)
    assert len(list(tmp_path.iterdir())) == 25


class Hour(Task):
    n: int = 0

    async def run(self) -> int:
        await asyncio.sleep(HOUR)
        return self.n


TIMES: list[float] = []


class Asking(Task):
    """A sync generator: at work, parked for an hour, at work, parked for another one, at work."""

    def run(self) -> Generator[Any, Any, int]:
        loop = LOOPS[-1]
        total = 0
        for n in range(2):
            work()
            TIMES.append(loop.time())
            total += yield Hour(n=n)
            work()
            TIMES.append(loop.time())
        return total


LOOPS: list[SimulatedLoop] = []


def test_a_parked_sync_generator_is_not_at_work() -> None:
    async def main() -> None:
        TIMES.clear()
        LOOPS.append(SimulatedLoop.running())
        asyncio.get_running_loop().call_later(2 * HOUR + 1, int)  # what time would jump to, were it to jump
        assert (await build(Asking()))[Asking()] == 1
        assert TIMES == [0.0, HOUR, HOUR, 2 * HOUR]
        assert now() == 2 * HOUR
        LOOPS.clear()

    explore(main, 10)


def test_a_parked_sync_generator_that_is_cancelled_is_counted_out() -> None:
    async def main() -> None:
        LOOPS.append(SimulatedLoop.running())
        call = asyncio.create_task(build(Asking()))
        await asyncio.sleep(HOUR / 2)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert now() == HOUR / 2
        await asyncio.sleep(HOUR)
        assert now() == 1.5 * HOUR
        LOOPS.clear()

    explore(main, 10)


class Far(Target):
    """Its ``exists`` takes a minute, on the loop."""

    async def exists(self) -> bool:
        await asyncio.sleep(60)
        return True


class AsksFar(Task):
    def run(self) -> bool:
        return bool(Far().exists())


def test_a_thread_that_waits_for_an_answer_from_the_loop_is_not_at_work() -> None:
    async def main() -> None:
        assert (await build(AsksFar()))[AsksFar()] is True
        assert now() == 60

    explore(main, 10)


def test_threads_of_asyncios_pool_are_waited_for_at_the_end() -> None:
    rung: list[float] = []
    ended: list[float] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        entered = threading.Event()

        def call() -> None:
            entered.set()
            work()
            ended.append(loop.time())

        loop.call_later(1, lambda: rung.append(loop.time()))
        future = loop.run_in_executor(None, call)
        entered.wait()
        future.cancel()  # nobody waits for it any more, but the end of the loop does

    simulate(main)
    assert ended == [0.0]
    assert not rung


def test_a_thread_for_ever_at_work_is_named(abandoned: Callable[..., None]) -> None:
    abandoned(1, tasks=1)
    gate = threading.Event()

    def never_returns() -> None:
        gate.wait()

    loop = SimulatedLoop(0, patience=0.05)
    waits = loop.create_task(asyncio.sleep(1))
    loop.run_in_executor(None, never_returns)
    try:
        with pytest.raises(Standstill, match=r"for 0\.05 s of real time(.*\n)*.*never_returns"):
            loop.run_until_complete(waits)
    finally:
        gate.set()
        waits.cancel()
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


def test_a_thread_the_loop_knows_nothing_of_may_call_in() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        called = asyncio.Event()
        thread = threading.Timer(0.02, loop.call_soon_threadsafe, [called.set])
        thread.start()
        await called.wait()
        thread.join()

    simulate(main)


def test_a_thread_may_end_after_its_loop() -> None:
    gate, ended = threading.Event(), threading.Event()

    def job() -> None:
        gate.wait()
        ended.set()

    async def main() -> None:
        threads.lend(job)

    simulate(main)
    gate.set()
    assert ended.wait(10)


# What does not move ---------------------------------------------------------------------------------------


def test_a_standstill_names_who_waits_and_where(abandoned: Callable[..., None]) -> None:
    abandoned(tasks=3)

    async def main() -> None:
        lock = asyncio.Lock()

        async def takes_it() -> None:
            await lock.acquire()

        await asyncio.sleep(5)
        async with asyncio.TaskGroup() as group:
            group.create_task(takes_it(), name="first")
            group.create_task(takes_it(), name="second")

    with pytest.raises(Standstill, match="stands still at 5 s") as standstill:
        simulate(main)
    message = str(standstill.value)
    assert ("first: " in message) != ("second: " in message)
    assert "takes_it" in message
    assert f"{__file__}:" in message


def test_sockets_are_real() -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.read())
        writer.close()
        await writer.wait_closed()

    async def main() -> bytes:
        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        async with server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            writer.write(b"x" * 1_000_000)
            writer.write_eof()
            answer = await reader.read()
            writer.close()
            await writer.wait_closed()
        return answer

    assert runs(main, 5) == [b"x" * 1_000_000] * 5
