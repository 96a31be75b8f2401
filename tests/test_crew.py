"""Calls that a loop gives to threads: told in bunches, and a slow one holds up only itself."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from asyncflow.crew import THREADS, Crew
from asyncflow.testing import leaks


class Book:
    """What a crew has told."""

    def __init__(self, crew: Crew) -> None:
        self.crew = crew
        self.results: list[Any] = []
        self.errors: list[BaseException] = []
        self.asked = 0

    def ask(self, call: Callable[[], Any]) -> None:
        self.asked += 1
        self.crew.put(call, self._told)

    def _told(self, result: Any, error: BaseException | None) -> None:
        if error is None:
            self.results.append(result)
        else:
            self.errors.append(error)

    async def all(self) -> None:
        async with asyncio.timeout(10):
            while len(self.results) + len(self.errors) < self.asked:
                await asyncio.sleep(0.001)


async def test_every_call_is_told_once_and_in_order() -> None:
    loop = asyncio.get_running_loop()
    book = Book(Crew(loop, slow=0))
    for n in range(5_000):
        book.ask(partial(abs, -n))
        if not n % 500:
            await asyncio.sleep(0)
    await book.all()
    assert book.results == list(range(5_000))


async def test_what_a_call_raises_is_told() -> None:
    book = Book(Crew(asyncio.get_running_loop(), slow=0))
    for _ in range(3):
        book.ask(partial(int, "x"))
        book.ask(partial(int, "1"))
    await book.all()
    assert book.results == [1] * 3
    assert [type(error) for error in book.errors] == [ValueError] * 3


async def test_a_slow_call_holds_up_only_itself() -> None:
    gate = threading.Event()
    book = Book(Crew(asyncio.get_running_loop(), slow=64))
    book.ask(gate.wait)
    for n in range(100):
        book.ask(partial(abs, n))
    try:
        async with asyncio.timeout(10):
            while len(book.results) < 100:
                await asyncio.sleep(0.001)
    finally:
        gate.set()
    await book.all()


async def test_no_more_threads_than_allowed_and_they_go_back() -> None:
    crew = Crew(asyncio.get_running_loop(), slow=64)
    book = Book(crew)
    gate = threading.Event()
    working, most = 0, 0
    lock = threading.Lock()

    def call() -> None:
        nonlocal working, most
        with lock:
            working += 1
            most = max(most, working)
        gate.wait()
        with lock:
            working -= 1

    for _ in range(3 * THREADS):
        book.ask(call)
    async with asyncio.timeout(10):
        while working < THREADS:
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.02)  # four ticks more
    gate.set()
    await book.all()
    assert most == THREADS
    assert not leaks.settle(lambda: [] if crew.at_rest else [crew])


async def test_results_come_in_bunches(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    calls = 0
    real = loop.call_soon_threadsafe

    def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        return real(*args, **kwargs)

    monkeypatch.setattr(loop, "call_soon_threadsafe", counted)
    book = Book(Crew(loop, slow=0))
    for n in range(1_000):
        book.ask(partial(abs, n))
    threading.Event().wait(0.05)  # the loop is busy
    await book.all()
    assert calls <= 10


async def test_one_that_cannot_be_told_does_not_keep_the_others_from_it() -> None:
    loop = asyncio.get_running_loop()
    crew = Crew(loop, slow=0)
    book = Book(crew)
    seen: list[Any] = []
    loop.set_exception_handler(lambda _, context: seen.append(context["exception"]))

    def refuse(*_: Any) -> None:
        raise ZeroDivisionError

    book.ask(partial(abs, 1))
    crew.put(partial(abs, 2), refuse)
    book.ask(partial(abs, 3))
    await book.all()
    assert book.results == [1, 3]
    assert [type(error) for error in seen] == [ZeroDivisionError]


async def test_without_a_thread_nothing_is_queued(monkeypatch: pytest.MonkeyPatch) -> None:
    crew = Crew(asyncio.get_running_loop(), slow=0)

    def none(_: Any) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr("asyncflow.crew.lend", none)
        with pytest.raises(RuntimeError, match="thread"):
            crew.put(partial(abs, 1), lambda *_: None)
    assert crew.at_rest
    book = Book(crew)
    book.ask(partial(abs, -2))
    await book.all()
    assert book.results == [2]


def test_a_loop_that_has_been_closed_hears_nothing() -> None:
    gate = threading.Event()
    crews: list[Crew] = []

    async def main() -> None:
        crews.append(Crew(asyncio.get_running_loop(), slow=0))
        crews[0].put(gate.wait, lambda *_: None)

    asyncio.run(main())
    gate.set()
    assert not leaks.settle(lambda: [] if not crews[0]._working else crews)
