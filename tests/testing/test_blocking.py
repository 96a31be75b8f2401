"""``no_blocking``: red when a step holds a loop for too long, and only then."""

from __future__ import annotations

import asyncio
import time

import pytest

from asyncflow import Task, build, guard, run
from asyncflow.testing import LoopBlockedError, no_blocking

HOLD = 0.3  # seconds


class Holds(Task):
    seconds: float = HOLD

    async def run(self) -> None:
        time.sleep(self.seconds)


class Sleeps(Task):
    async def run(self) -> None:
        await asyncio.sleep(HOLD)


async def test_it_is_red_and_says_who_where_and_how_long() -> None:
    with pytest.raises(LoopBlockedError) as caught, no_blocking():
        await build([Holds(), Sleeps()])
    [block] = caught.value.blocks
    assert block.task == Holds()
    assert HOLD / 2 < block.seconds < HOLD + 1
    assert isinstance(caught.value, AssertionError)
    message = str(caught.value)
    assert "longer than 0.1 s" in message
    assert f"{block.seconds:.2f} s by {Holds()!r}, at {__file__}:" in message
    assert message.endswith("in Holds.run")


async def test_it_is_green_where_nothing_blocks() -> None:
    with no_blocking():
        assert (await build(Sleeps())).ok


def test_it_stands_around_code_that_runs_a_loop_of_its_own() -> None:
    with pytest.raises(LoopBlockedError), no_blocking():
        run(Holds())


async def test_a_block_outside_of_it_is_not_its_concern() -> None:
    await build(Holds())
    with no_blocking():
        await build(Sleeps())
    await build(Holds())


async def test_a_higher_limit_leaves_room() -> None:
    with no_blocking(limit=5 * HOLD):
        await build(Holds())
    with pytest.raises(LoopBlockedError), no_blocking(limit=HOLD / 2):
        await build(Holds())


async def test_a_lower_limit_sees_more() -> None:
    with pytest.raises(LoopBlockedError), no_blocking(limit=0.02):
        await build(Holds(seconds=0.06))
    assert guard._limit == guard.LIMIT


async def test_a_block_that_is_not_over_for_the_loop_is_seen() -> None:
    building = asyncio.create_task(build(Sleeps()))
    await asyncio.sleep(0.05)
    with pytest.raises(LoopBlockedError) as caught, no_blocking():
        time.sleep(HOLD)
    assert "code outside of any task" in str(caught.value)
    await building


async def test_what_the_block_raises_comes_first() -> None:
    with pytest.raises(ZeroDivisionError), no_blocking():
        await build(Holds())
        raise ZeroDivisionError


@pytest.mark.parametrize("limit", [0, -1, float("nan")])
def test_a_limit_that_is_none(limit: float) -> None:
    with pytest.raises(ValueError, match="expected a positive number of seconds"), no_blocking(limit=limit):
        pass
