"""The cancel sweep finds what it is there to find: a cancel that is swallowed, a step half done, a body without end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

import pytest

from asyncflow.testing import STYLES, Outcome, SimulatedLoop, Style, Suspensions, explore, sweep

styles = pytest.mark.parametrize("style", STYLES)


async def waits(times: int) -> None:
    for _ in range(times):
        future = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(lambda f=future: f.done() or f.set_result(None))
        await future


def nothing(outcome: Outcome) -> None: ...


@styles
async def test_every_suspension_is_cancelled_once(style: Style) -> None:
    outcomes: list[Outcome] = []
    assert await sweep(lambda: waits(4), outcomes.append, style) == 4
    assert [(one.style, one.point, one.reached) for one in outcomes] == [
        *((style, point, True) for point in range(1, 5)),
        (style, 5, False),
    ]
    assert not outcomes[-1].cancelled
    # A timeout that expires as the body takes its last step comes too late.
    assert [one.cancelled for one in outcomes[:3]] == [True] * 3
    assert outcomes[3].cancelled or style == "timeout"


@styles
async def test_a_body_that_never_suspends_is_never_cancelled(style: Style) -> None:
    assert await sweep(lambda: waits(0), nothing, style) == 0


@pytest.mark.parametrize("style", [style for style in STYLES if style != "anyio"])
async def test_a_cancel_that_is_swallowed_is_found(style: Style) -> None:
    async def swallows() -> None:
        try:
            await waits(2)
        except asyncio.CancelledError:
            if style == "twice":  # it comes again, in here
                try:
                    await waits(1)
                except asyncio.CancelledError:
                    pass
        await asyncio.sleep(0)

    with pytest.raises(AssertionError, match=f"{style} at suspension 1: the cancel was swallowed"):
        await sweep(swallows, nothing, style)


async def test_twice_cancels_what_the_first_cancel_has_led_to() -> None:
    swallowed: list[int] = []

    async def unwinds() -> None:
        swallowed.clear()
        for n in range(3):
            try:
                await waits(1)
            except asyncio.CancelledError:
                swallowed.append(n)
        if swallowed:
            raise asyncio.CancelledError

    found: list[list[int]] = []
    assert await sweep(unwinds, lambda outcome: found.append(swallowed[:]), "twice") == 3
    assert found == [[0, 1], [1, 2], [2], []]


async def test_an_anyio_scope_cancels_over_and_over() -> None:
    """A body that swallows one cancel gets the next."""
    seen: list[int] = []
    swallowed: list[int] = []

    async def swallows() -> None:
        seen.clear()
        for n in range(4):
            try:
                await waits(3)
            except asyncio.CancelledError:
                seen.append(n)

    await sweep(swallows, lambda outcome: swallowed.append(len(seen)), "anyio")
    assert swallowed[0] > 1
    assert swallowed[-1] == 0


@styles
async def test_what_a_cancel_leaves_half_done_is_found(style: Style) -> None:
    account: list[str] = []

    async def moves() -> None:
        account[:] = []
        account.append("taken")
        await waits(3)
        account.append("given")

    def check(outcome: Outcome) -> None:
        assert account == ["taken", "given"], f"half done, {outcome.style} at {outcome.point}"

    with pytest.raises(AssertionError, match=f"half done, {style} at 1"):
        await sweep(moves, check, style)


async def test_what_the_body_and_the_check_raise_comes_out() -> None:
    async def fails() -> None:
        await waits(1)
        raise LookupError

    async def check(outcome: Outcome) -> None:
        await asyncio.sleep(0)
        raise KeyError(outcome.point)

    with pytest.raises(LookupError):
        await sweep(fails, nothing, "native")
    with pytest.raises(KeyError, match="1"):
        await sweep(lambda: waits(1), check, "native")


async def test_a_body_without_end() -> None:
    with pytest.raises(AssertionError, match="more than 20 suspensions"):
        await sweep(lambda: waits(10**9), nothing, "native", most=20)


async def test_a_sweep_can_be_cancelled_itself() -> None:
    waiting = asyncio.Event()

    async def stays() -> None:
        waiting.set()
        await asyncio.Event().wait()

    sweeping = asyncio.create_task(sweep(stays, nothing, "late"))  # late: when the event has come, so never
    await waiting.wait()
    sweeping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sweeping


async def test_suspensions_are_counted_with_what_is_waited_for() -> None:
    seen: list[tuple[int, Any]] = []

    async def body() -> str:
        await asyncio.sleep(0)
        await waits(1)
        return "value"

    counted: Awaitable[str] = Suspensions(body(), lambda n, future: seen.append((n, future)))
    assert await counted == "value"
    assert [n for n, _ in seen] == [1, 2]
    assert seen[0][1] is None
    assert asyncio.isfuture(seen[1][1])


def test_a_sweep_in_simulated_loops() -> None:
    async def body() -> None:
        await asyncio.sleep(3600)
        async with asyncio.timeout(3600):
            await asyncio.gather(asyncio.sleep(1), asyncio.sleep(1))

    async def main() -> None:
        style = SimulatedLoop.running().random.choice(STYLES)
        assert await sweep(body, nothing, style) == 2

    explore(main, 50)
