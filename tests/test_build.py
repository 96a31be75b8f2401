"""The whole way: tasks in, ``build``, results out."""

from __future__ import annotations

import asyncio
import json

import pytest

import asyncflow
from asyncflow import ConfigError, MemoryTarget, Task, build, plan


class Number(Task):
    n: int

    def output(self) -> MemoryTarget:
        return MemoryTarget(f"number-{self.n}")

    async def run(self) -> None:
        await asyncio.sleep(0)
        self.output().put(self.n)


class Sum(Task):
    upto: int

    def requires(self) -> list[Number]:
        return [Number(n=n) for n in range(self.upto)]

    def output(self) -> MemoryTarget:
        return MemoryTarget(f"sum-{self.upto}")

    def run(self) -> None:
        self.output().put(sum(target.get() for target in self.input()))


@pytest.fixture(autouse=True)
def _empty_memory() -> None:
    MemoryTarget.clear()


async def test_everything_a_task_requires_is_made_before_it() -> None:
    result = await build(Sum(upto=5))
    assert result.ok
    assert bool(result)
    assert result[Sum(upto=5)].get() == 10
    assert result.counts == {"succeeded": 6}
    assert set(result.ran) == {Sum(upto=5), *(Number(n=n) for n in range(5))}


async def test_what_exists_is_not_made_again() -> None:
    await build(Sum(upto=3))
    again = await build(Sum(upto=4))
    assert again.counts == {"succeeded": 2, "complete": 3}
    assert (await build(Sum(upto=4))).ran == ()


async def test_await_outside_a_build_is_a_build() -> None:
    target = await Sum(upto=3)
    assert target.get() == 3


def test_run_is_build_without_a_loop() -> None:
    assert asyncflow.run([Sum(upto=3)])[Sum(upto=3)].get() == 3


async def test_a_result_and_a_plan_as_json() -> None:
    planned = json.loads((await plan(Sum(upto=1))).to_json())
    assert [(item["task"], item["action"]) for item in planned["items"]] == [
        ("Sum(upto=1)", "run"),
        ("Number(n=0)", "run"),
    ]
    document = json.loads((await build(Sum(upto=1))).to_json())
    assert (document["schema"], document["status"], document["counts"]) == (1, "succeeded", {"succeeded": 2})
    [first, _] = document["tasks"]
    assert first["task_id"] == Sum(upto=1).task_id
    assert first["reason"] == "output missing"
    assert first["output"] == "MemoryTarget('sum-1')"
    assert first["started"] <= first["finished"]


async def test_run_inside_a_loop_says_what_to_write() -> None:
    with pytest.raises(RuntimeError, match=r"await build"):
        asyncflow.run(Sum(upto=3))


@pytest.mark.parametrize("options", [{"concurrency": 0}, {"threads": True}, {"grace": -1}, {"on_event": 3}])
async def test_an_option_out_of_range_is_named(options: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        await build(Sum(upto=3), **options)  # type: ignore[arg-type]
