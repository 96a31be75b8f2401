from __future__ import annotations

import asyncio
import gc
import os
import queue
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from asyncflow import threads
from asyncflow.threads import Pool, lend, trim

PATIENCE = 10.0  # seconds: a limit for the hanging case, never waited for


def idle() -> int:
    return len(threads._idle)


def settled(count: int) -> None:
    """Wait until `count` threads are idle."""
    deadline = threading.Event()
    for _ in range(2000):
        if idle() == count:
            return
        deadline.wait(0.001)
    raise AssertionError(f"{idle()} idle threads, expected {count}")


@pytest.fixture(autouse=True)
def _nobody_idle() -> None:
    trim()


def run_in_lent(job: Callable[[], object]) -> threading.Thread:
    done = threading.Event()
    found: list[threading.Thread] = []

    def whole() -> None:
        found.append(threading.current_thread())
        job()
        done.set()

    lend(whole)
    assert done.wait(PATIENCE)
    return found[0]


def test_an_idle_thread_is_used_again_and_is_a_daemon() -> None:
    first = run_in_lent(lambda: None)
    settled(1)
    assert run_in_lent(lambda: None) is first
    assert first.daemon


def test_every_job_has_a_thread_of_its_own() -> None:
    barrier = threading.Barrier(5)
    ended = threading.Barrier(5)

    def job() -> None:
        barrier.wait(PATIENCE)
        ended.wait(PATIENCE)

    for _ in range(4):
        lend(job)
    barrier.wait(PATIENCE)  # all four are at work at once
    ended.wait(PATIENCE)
    settled(4)


def test_trim_sends_idle_threads_home() -> None:
    thread = run_in_lent(lambda: None)
    settled(1)
    trim()
    thread.join(PATIENCE)
    assert not thread.is_alive()
    assert idle() == 0


def test_an_idle_thread_leaves_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "IDLE", 0.01)
    thread = run_in_lent(lambda: None)
    thread.join(PATIENCE)
    assert not thread.is_alive()
    assert idle() == 0


def test_a_thread_whose_patience_ends_as_it_is_lent_out_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    class Impatient:
        """The first wait is over before the job has arrived."""

        def __init__(self) -> None:
            self._queue = SimpleQueue()
            self._first = True
            self.put = self._queue.put

        def get(self, timeout: float) -> Any:
            if self._first:
                self._first = False
                raise queue.Empty
            return self._queue.get(timeout=timeout)

    SimpleQueue = queue.SimpleQueue
    monkeypatch.setattr(queue, "SimpleQueue", Impatient)
    run_in_lent(lambda: None)
    settled(1)


def test_lending_and_leaving_over_and_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "IDLE", 0.0001)
    for _ in range(200):
        run_in_lent(lambda: None)


def test_an_idle_thread_keeps_nothing_of_its_last_job() -> None:
    class Big:
        pass

    big = Big()
    gone = weakref.ref(big)
    run_in_lent(lambda big=big: None)  # type: ignore[misc]
    del big
    settled(1)
    gc.collect()
    assert gone() is None


# Pool ----------------------------------------------------------------------------------------------------


def test_results_and_errors_arrive() -> None:
    pool = Pool(2)
    assert pool.submit(divmod, 7, 2).result(PATIENCE) == (3, 1)
    assert pool.submit(int, "ff", base=16).result(PATIENCE) == 255
    for kind in (LookupError, SystemExit, KeyboardInterrupt):
        with pytest.raises(kind):
            pool.submit(_raise, kind("x")).result(PATIENCE)
    assert list(pool.map(abs, [-1, -2])) == [1, 2]


def _raise(error: BaseException) -> None:
    raise error


def test_a_result_is_told_when_the_call_has_been_let_go() -> None:
    """What it held may be the caller's last: a forgotten handle, which removes its temporary as it goes."""

    class Held:
        def __call__(self) -> str:
            return "result"

    told: list[object] = []
    heard = threading.Event()

    def hear(_: object) -> None:
        told.append(held())
        heard.set()

    go = threading.Event()
    pool = Pool(1)
    pool.submit(go.wait, PATIENCE)
    call = Held()
    held = weakref.ref(call)
    future = pool.submit(call)
    del call
    future.add_done_callback(hear)
    go.set()
    assert heard.wait(PATIENCE)
    assert told == [None]
    assert future.result() == "result"


async def test_stop_iteration_does_not_hang_the_loop() -> None:
    with pytest.raises(RuntimeError, match=r"next.*raised StopIteration"):
        async with asyncio.timeout(PATIENCE):
            await asyncio.get_running_loop().run_in_executor(Pool(1), next, iter(()))


def test_never_more_than_the_limit_at_work_and_in_order() -> None:
    pool = Pool(3)
    lock = threading.Lock()
    at_work = most = 0
    order: list[int] = []

    def call(number: int) -> None:
        nonlocal at_work, most
        with lock:
            at_work += 1
            most = max(most, at_work)
            order.append(number)
        together.wait(PATIENCE)
        with lock:
            at_work -= 1

    together = threading.Barrier(3)
    futures = [pool.submit(call, number) for number in range(12)]
    for future in futures:
        future.result(PATIENCE)
    assert most == 3
    assert [sorted(order[i : i + 3]) for i in range(0, 12, 3)] == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9, 10, 11]]
    assert len(set(order)) == 12


def test_a_cancelled_call_is_not_made() -> None:
    pool = Pool(1)
    gate = threading.Event()
    first = pool.submit(gate.wait, PATIENCE)
    made: list[int] = []
    second = pool.submit(made.append, 2)
    third = pool.submit(made.append, 3)
    assert second.cancel()
    gate.set()
    third.result(PATIENCE)
    assert first.result() is True
    assert made == [3]


def test_the_pool_gives_its_threads_back() -> None:
    pool = Pool(4)
    for future in [pool.submit(abs, -1) for _ in range(50)]:
        future.result(PATIENCE)
    for _ in range(2000):
        if pool._working == 0:
            break
        threading.Event().wait(0.001)
    assert pool._working == 0


def test_no_thread_to_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    pool = Pool(2)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="can't start"):
            pool.submit(abs, -1)
    assert pool.submit(abs, -2).result(PATIENCE) == 2  # and the refused call does not haunt it
    gate = threading.Event()
    entered = threading.Event()

    def wait() -> None:
        entered.set()
        gate.wait(PATIENCE)

    first = pool.submit(wait)
    entered.wait(PATIENCE)
    trim()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        second = pool.submit(abs, -3)  # the thread that is at work comes to it
    gate.set()
    assert second.result(PATIENCE) == 3
    first.result(PATIENCE)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_has_threads_of_its_own() -> None:
    code = """
import os, threading
from asyncflow import threads
gate = threading.Event()
for _ in range(20):                       # the pool is full, and its lock and queue are in use
    threads.files.submit(gate.wait)
done = threading.Event()
threads.lend(done.set); done.wait(10)     # and one thread is idle
with threads._lock, threads.files._lock:  # held in the parent at the moment of the fork
    child = os.fork()
if child == 0:
    assert threads._idle == []
    ok = threads.files.submit(abs, -7).result(10) == 7
    os._exit(0 if ok else 1)
status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
gate.set()
assert threads.files.submit(abs, -8).result(10) == 8
raise SystemExit(status)
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, timeout=30)


def test_asyncio_run_does_not_wait_for_a_thread() -> None:
    """A call that never ends holds up neither the end of the loop nor of the interpreter."""
    code = """
import asyncio, threading
from asyncflow import threads
entered = threading.Event()
def never():
    entered.set()
    threading.Event().wait()
async def main():
    asyncio.get_running_loop().run_in_executor(threads.files, never)
    while not entered.is_set():
        await asyncio.sleep(0)
asyncio.run(main())
print("ended")
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, timeout=20, capture_output=True, text=True)
    assert done.stdout == "ended\n"
    assert done.stderr == ""


def test_a_call_that_ends_after_its_loop_says_nothing() -> None:
    code = """
import asyncio, threading
from asyncflow import threads
from asyncflow.shield import finish
import asyncflow.shield as shield
shield.PATIENCE = 0.01
gate, entered, ended = threading.Event(), threading.Event(), threading.Event()
def slow():
    entered.set(); gate.wait(); ended.set()
async def hop():
    await asyncio.get_running_loop().run_in_executor(threads.files, slow)
async def main():
    task = asyncio.create_task(finish(hop()))
    while not entered.is_set():
        await asyncio.sleep(0)
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        pass
asyncio.run(main())
gate.set()
assert ended.wait(10)
threads.files.submit(abs, -1).result(10)
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, timeout=20, capture_output=True, text=True)
    assert done.stderr == ""
