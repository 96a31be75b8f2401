"""Hamilton, its async driver: a node is a function, its dependencies are its arguments.

It has no targets: a node returns its value. The clock includes building the driver, which is where it plans.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from hamilton import ad_hoc_utils, async_driver
from hamilton.function_modifiers import parameterize, source, value

from .protocol import SLEEP, WIDTH, Timed, edges, main


def make(functions: Callable[[], Sequence[Any]], wanted: Callable[[], list[str]]) -> Timed:
    async def run() -> int:
        module = ad_hoc_utils.create_temporary_module(*functions())
        driver = await async_driver.Builder().with_modules(module).build()
        return len(await driver.execute(wanted()))

    return lambda: {"made": asyncio.run(run())}


def wide(n: int) -> Timed:
    async def leaf(n: int) -> int:
        return n

    names = [f"leaf_{i}" for i in range(n)]
    return make(lambda: [parameterize(**{name: {"n": value(i)} for i, name in enumerate(names)})(leaf)], lambda: names)


def sleeping(n: int) -> Timed:
    async def leaf(n: int) -> int:
        await asyncio.sleep(SLEEP)
        return n

    names = [f"leaf_{i}" for i in range(n)]
    return make(lambda: [parameterize(**{name: {"n": value(i)} for i, name in enumerate(names)})(leaf)], lambda: names)


def chain(n: int) -> Timed:
    async def link_0() -> int:
        return 0

    async def link(before: int) -> int:
        return before + 1

    links = {f"link_{i}": {"before": source(f"link_{i - 1}")} for i in range(1, n)}
    return make(lambda: [link_0, parameterize(**links)(link)], lambda: [f"link_{n - 1}"])


def layers(n: int) -> Timed:
    async def first(n: int) -> int:
        return n

    async def cell(a: int, b: int, c: int) -> int:
        return a

    def sources(layer: int, column: int) -> dict[str, Any]:
        names = zip("abc", edges(layer, column), strict=True)
        return {name: source(f"cell_{below}_{beside}") for name, (below, beside) in names}

    top = n // WIDTH
    firsts = {f"cell_0_{column}": {"n": value(column)} for column in range(WIDTH)}
    cells = {
        f"cell_{layer}_{column}": sources(layer, column) for layer in range(1, top) for column in range(WIDTH)
    }
    wanted = [f"cell_{top - 1}_{column}" for column in range(WIDTH)]
    return make(lambda: [parameterize(**firsts)(first), parameterize(**cells)(cell)], lambda: wanted)


if __name__ == "__main__":
    main({"wide": wide, "sleeping": sleeping, "chain": chain, "layers": layers})
