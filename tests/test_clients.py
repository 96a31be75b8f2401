"""Shared clients: one for each loop and key, closed when nobody wants them any more."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from asyncflow import clients
from asyncflow.testing import no_leaks


class Shop:
    """Opens clients, and notes those it has closed."""

    def __init__(self, *, failing: int = 0, slow: bool = False) -> None:
        self.opened = 0
        self.closed: list[int] = []
        self.failing = failing
        self.slow = slow

    async def __call__(self) -> Client:
        self.opened += 1
        mine = self.opened
        if self.slow:
            await asyncio.sleep(0.01)
        if mine <= self.failing:
            raise ConnectionError(f"attempt {mine}")
        return Client(self, mine)


class Client:
    def __init__(self, shop: Shop, number: int) -> None:
        self.shop = shop
        self.number = number

    async def close(self) -> None:
        await asyncio.sleep(0)
        self.shop.closed.append(self.number)


async def once(shop: Shop, key: str = "key") -> int:
    async with clients.use(key, shop) as client:
        await asyncio.sleep(0)
        return client.number


async def test_one_client_for_all_who_want_it_at_once() -> None:
    shop = Shop(slow=True)
    assert set(await asyncio.gather(*[once(shop) for _ in range(50)])) == {1}
    assert shop.opened == 1
    assert await once(shop, "another") == 2
    assert not shop.closed


async def test_leaks_are_looked_for_when_the_idle_have_been_closed() -> None:
    shop = Shop()
    async with no_leaks(), clients.use("used", shop):
        await once(shop, "idle")
        await clients.close_idle()
        assert shop.closed == [2]
    assert shop.closed == [2, 1]


def test_the_end_of_the_loop_closes_them() -> None:
    shop = Shop()
    for n in range(1, 3):
        assert asyncio.run(once(shop)) == n
        assert shop.closed == list(range(1, n + 1))


def test_the_end_of_the_loop_closes_those_in_use_too(abandoned: Callable[..., None]) -> None:
    abandoned(tasks=1)
    shop = Shop()

    async def main() -> None:
        async def use() -> None:
            async with clients.use("key", shop):
                await asyncio.sleep(3600)

        tasks.append(asyncio.ensure_future(use()))
        await asyncio.sleep(0.001)

    tasks: list[asyncio.Task[None]] = []
    asyncio.run(main())
    assert shop.closed == [1]


async def test_one_that_could_not_be_opened_is_tried_again() -> None:
    shop = Shop(failing=2, slow=True)
    outcomes = await asyncio.gather(*[once(shop) for _ in range(5)], return_exceptions=True)
    assert [str(outcome) for outcome in outcomes] == ["attempt 1", "attempt 2", "3", "3", "3"]


async def test_whoever_opens_it_may_be_cancelled() -> None:
    shop = Shop(slow=True)
    first, second = asyncio.ensure_future(once(shop)), asyncio.ensure_future(once(shop))
    await asyncio.sleep(0.001)
    first.cancel()
    assert await second == 2
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_one_that_is_idle_for_long_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clients, "IDLE", 0.02)
    shop = Shop()
    await once(shop)
    await asyncio.sleep(0.012)
    await once(shop)  # it was idle for less
    await asyncio.sleep(0.012)
    assert not shop.closed
    async with clients.use("key", shop):
        await asyncio.sleep(0.05)  # in use
        assert not shop.closed
    while not shop.closed:
        await asyncio.sleep(0.005)
    assert await once(shop) == 2


async def test_a_client_that_is_renewed_is_closed_when_its_users_have_left() -> None:
    shop = Shop()
    async with clients.use("key", shop) as stale:
        await clients.renew("key", stale)
        assert await once(shop) == 2
        await clients.renew("key", stale)  # somebody else has been quicker
        assert await once(shop) == 2
        assert not shop.closed
    assert shop.closed == [1]
    async with clients.use("key", shop) as stale:
        pass
    await clients.renew("key", stale)
    assert shop.closed == [1, 2]


async def test_one_that_does_not_close_well_is_no_ones_trouble() -> None:
    class Broken:
        async def close(self) -> None:
            raise RuntimeError("not closed")

    async def broken() -> Broken:
        return Broken()

    async with clients.use("key", broken):
        pass
    await clients.close_idle()


def test_nothing_holds_a_loop_that_is_gone() -> None:
    asyncio.run(once(Shop()))
    loop = asyncio.new_event_loop()
    loop.run_until_complete(once(Shop()))
    loop.close()  # in no orderly way: its clients cannot be closed any more
    assert loop in clients._of_loops
    asyncio.run(once(Shop()))
    assert not clients._of_loops
