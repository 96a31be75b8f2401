"""``simulate`` and ``explore``: many seeds, the one that fails, and that one again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from asyncflow.testing import SimulatedLoop, explore, simulate


async def nothing() -> None: ...


async def lost_update() -> None:
    account = {"balance": 0}

    async def deposit() -> None:
        balance = account["balance"]
        if SimulatedLoop.running().random.random() < 0.1:
            await asyncio.sleep(0)
        account["balance"] = balance + 1

    await asyncio.gather(deposit(), deposit())
    assert account["balance"] == 2


def test_a_failing_order_is_found_and_replayed_from_its_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AssertionError) as failure:
        explore(lost_update, 500)
    [note] = failure.value.__notes__
    seed = int(note.partition("ASYNCFLOW_SEED=")[2].partition(",")[0])
    assert f"seed={seed})" in note
    assert explore(lost_update, max(seed, 1)) == seed, "it stops at the first that fails"
    with pytest.raises(AssertionError):
        simulate(lost_update, seed=seed)
    with pytest.raises(AssertionError):
        explore(lost_update, 1, first=seed)
    monkeypatch.setenv("ASYNCFLOW_SEED", str(seed))
    with pytest.raises(AssertionError) as again:
        simulate(lost_update)
    assert again.value.__notes__ == [note]
    with pytest.raises(AssertionError):
        explore(lost_update, 500)
    monkeypatch.setenv("ASYNCFLOW_SEED", str(seed - 1))
    assert explore(lost_update, 500) == 1


def test_simulate_ends_as_asyncio_run_does(abandoned: Callable[..., None]) -> None:
    abandoned(tasks=1)
    ends: list[str] = []

    async def forgotten() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ends.append("task cancelled")

    async def numbers() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            ends.append("generator shut down")

    async def main() -> str:
        kept.append(asyncio.create_task(forgotten()))
        kept.append(generator := numbers())
        await anext(generator)
        await asyncio.sleep(0.1)
        return "value"

    kept: list[Any] = []
    assert simulate(main) == "value"
    assert ends == ["task cancelled", "generator shut down"]


async def test_simulate_refuses_to_run_inside_a_loop() -> None:
    with pytest.raises(RuntimeError, match="plain `def`"):
        simulate(nothing)


def test_simulate_says_the_seed_of_anything_raised() -> None:
    class Odd(BaseException):
        pass

    async def main() -> None:
        raise Odd

    with pytest.raises(Odd) as failure:
        simulate(main, seed=5)
    assert failure.value.__notes__ == ["simulated with seed 5; again: ASYNCFLOW_SEED=5, or simulate(..., seed=5)"]


def test_seeds_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> int:
        seeds.append(SimulatedLoop.running().seed)
        return seeds[-1]

    seeds: list[int] = []
    monkeypatch.delenv("ASYNCFLOW_SEED", raising=False)
    assert simulate(main) == 0
    assert explore(main, 3, first=10) == 3
    monkeypatch.setenv("ASYNCFLOW_SEED", "17")
    assert simulate(main) == 17
    assert simulate(main, seed=4) == 4
    assert explore(main, 3) == 1
    assert seeds == [0, 10, 11, 12, 17, 4, 17]
    monkeypatch.setenv("ASYNCFLOW_SEED", "often")
    for call in (simulate, explore):
        with pytest.raises(ValueError, match="ASYNCFLOW_SEED='often': expected a whole number"):
            call(main)


def test_no_seeds_are_no_test() -> None:
    with pytest.raises(ValueError, match="expected 1 or more"):
        explore(nothing, 0)


async def test_running_says_what_is_missing() -> None:
    with pytest.raises(RuntimeError, match="simulate"):
        SimulatedLoop.running()
