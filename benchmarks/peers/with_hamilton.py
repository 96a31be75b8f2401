"""Hamilton, its async driver: a node is an ``async def``, its dependencies are its arguments.

It has no targets: a node returns its value. The clock includes building the driver, which is where it plans; the
module of functions is there before.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterable
from types import ModuleType
from typing import Any

from hamilton import async_driver

from .protocol import SLEEP, WIDTH, Timed, edges, main


def module(functions: Iterable[str]) -> ModuleType:
    """A module of so many functions, as a user would have written it, or a program for them."""
    made = ModuleType("nodes")
    sys.modules["nodes"] = made
    exec("import asyncio\n" + "\n".join(functions), made.__dict__)
    return made


def function(name: str, body: str, *before: str) -> str:
    arguments = ", ".join(f"{other}: int" for other in before)
    return f"async def {name}({arguments}) -> int:\n    {body}\n"


def make(functions: Iterable[str], wanted: list[str]) -> Timed:
    nodes = module(functions)

    async def run() -> dict[str, Any]:
        driver = await async_driver.Builder().with_modules(nodes).build()
        return {"gave": len(await driver.execute(wanted))}

    return lambda: asyncio.run(run())


def wide(n: int) -> Timed:
    names = [f"leaf_{i}" for i in range(n)]
    return make([function(name, f"return {i}") for i, name in enumerate(names)], names)


def sleeping(n: int) -> Timed:
    names = [f"leaf_{i}" for i in range(n)]
    return make([function(name, f"await asyncio.sleep({SLEEP}); return 1") for name in names], names)


def chain(n: int) -> Timed:
    links = [function(f"link_{i}", f"return {i}", *([f"link_{i - 1}"] if i else [])) for i in range(n)]
    return make(links, [f"link_{n - 1}"])


def layers(n: int) -> Timed:
    top = n // WIDTH
    cells = [
        function(f"cell_{layer}_{column}", f"return {layer}", *[f"cell_{a}_{b}" for a, b in edges(layer, column)])
        for layer in range(top)
        for column in range(WIDTH)
    ]
    return make(cells, [f"cell_{top - 1}_{column}" for column in range(WIDTH)])


if __name__ == "__main__":
    main({"wide": wide, "sleeping": sleeping, "chain": chain, "layers": layers})
