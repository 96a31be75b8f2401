"""The shielded step, and the harness that cancels at every suspension point."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import anyio
import pytest

from asyncflow import shield
from asyncflow.shield import finish
from asyncflow.testing import STYLES, Outcome, Style, sweep

# The harness ---------------------------------------------------------------------------------------------


async def test_the_harness_visits_every_suspension() -> None:
    seen: list[int] = []

    async def three() -> None:
        reached = 0
        try:
            for _ in range(3):
                reached += 1
                await asyncio.sleep(0)
            reached += 1
        finally:
            seen.append(reached)

    for style in STYLES:
        if style in {"timeout", "anyio"}:
            continue  # those are a turn of the loop later than a bare yield
        seen.clear()
        outcomes: list[Outcome] = []
        assert await sweep(three, outcomes.append, style) == 3
        assert seen == [1, 2, 3, 4]
        assert [outcome.cancelled for outcome in outcomes] == [True, True, True, False]


@pytest.mark.parametrize("style", STYLES)
async def test_the_harness_sees_a_swallowed_cancel(style: Style) -> None:
    async def swallows() -> None:
        try:
            await asyncio.sleep(0.001)
        except asyncio.CancelledError:
            if style == "anyio":  # the scope asks again
                await asyncio.wait([asyncio.get_running_loop().create_future()], timeout=0)

    if style == "anyio":
        assert await sweep(swallows, lambda outcome: None, style) >= 1
    else:
        with pytest.raises(AssertionError, match="swallowed"):
            await sweep(swallows, lambda outcome: None, style)


# The step ------------------------------------------------------------------------------------------------


async def test_the_step_gives_its_result_and_its_error() -> None:
    async def good() -> int:
        await asyncio.sleep(0)
        return 7

    async def bad() -> int:
        raise LookupError("no")

    assert await finish(good()) == 7
    with pytest.raises(LookupError):
        await finish(bad())


@pytest.mark.parametrize("style", STYLES)
async def test_a_cancel_comes_out_after_the_step_has_ended(style: Style) -> None:
    ended = 0

    async def step() -> None:
        nonlocal ended
        for _ in range(5):
            await asyncio.sleep(0)
        ended += 1

    runs = 0

    async def case() -> None:
        nonlocal runs
        runs += 1
        await finish(step())
        await asyncio.sleep(0)

    def check(outcome: Outcome) -> None:
        assert ended == runs, outcome

    assert await sweep(case, check, style) >= 2


async def test_the_first_of_several_cancels_comes_out_and_all_are_counted() -> None:
    gate = asyncio.Event()
    task = asyncio.create_task(finish(gate.wait()))
    await asyncio.sleep(0)
    for reason in ("first", "second", "third"):
        task.cancel(reason)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    assert not task.done()
    gate.set()
    with pytest.raises(asyncio.CancelledError, match="first"):
        await task
    assert task.cancelling() == 3


async def test_an_error_of_a_cancelled_step_is_not_logged() -> None:
    gate = asyncio.Event()
    steps: list[Any] = []

    async def step() -> None:
        steps.append(asyncio.current_task())
        await gate.wait()
        raise OSError("disk")

    task = asyncio.create_task(finish(step()))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.sleep(0)
    gate.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not steps[0]._log_traceback  # what asyncio looks at when the task is thrown away


async def test_timeout_inside_timeout() -> None:
    done = False

    async def step() -> None:
        nonlocal done
        await asyncio.sleep(0.01)
        done = True

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(5):
            async with asyncio.timeout(0):
                await finish(step())
    assert done


async def test_a_cancelled_anyio_scope_does_not_spin() -> None:
    """A cancelled scope delivers its cancel once a turn to a task that waits natively: nothing may come through."""
    gate = asyncio.Event()
    woken = 0
    wait = asyncio.wait

    async def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal woken
        woken += 1
        return await wait(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patch, anyio.CancelScope() as scope:
        patch.setattr(asyncio, "wait", counted)
        scope.cancel()
        asyncio.get_running_loop().call_later(0.02, gate.set)
        await finish(gate.wait())
    assert woken <= 2


async def test_patience_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shield, "PATIENCE", 0.01)
    gate = asyncio.Event()
    task = asyncio.create_task(finish(gate.wait()))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    (left,) = shield._given_up
    gc.collect()
    assert not left.done()  # held, so that it is not collected half-way
    gate.set()
    await left
    assert not shield._given_up


def test_the_end_of_asyncio_run_does_not_cancel_a_step(abandoned: Callable[..., None]) -> None:
    ended = threading.Event()

    async def step() -> None:
        await asyncio.sleep(0.01)
        ended.set()

    left: list[asyncio.Task[None]] = []

    async def main() -> None:
        left.append(asyncio.create_task(finish(step())))
        await asyncio.sleep(0)

    abandoned(tasks=2)
    asyncio.run(main())
    assert ended.is_set()
    assert left[0].cancelled()


@pytest.mark.parametrize("first", ["", "import anyio"])
def test_what_anyio_loads_with_a_scope_is_not_loaded_for_it(first: str) -> None:
    code = (
        f"import asyncio, sys\n{first}\nbefore = {{name for name in sys.modules if name.startswith('anyio')}}\n"
        "from asyncflow.shield import finish\n"
        "async def step(): await asyncio.sleep(0); return 7\n"
        "assert asyncio.run(finish(step())) == 7\n"
        "assert not {name for name in sys.modules if name.startswith('anyio')} - before\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)
