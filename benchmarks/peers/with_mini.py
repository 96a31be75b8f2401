"""The floor, asked as the engines are: its memory, and its time at sizes that want a process of their own."""

from __future__ import annotations

import asyncio
from typing import Any

from .. import mini
from .protocol import Timed, main


def make(root: type[mini.Leaf], n: int) -> Timed:
    def timed() -> dict[str, Any]:
        asyncio.run(mini.build(root(n)))
        return {"made": len(mini.STORE)}

    return timed


def wide(n: int) -> Timed:
    return make(mini.Root, n)


def chain(n: int) -> Timed:
    return make(mini.Link, n - 1)


if __name__ == "__main__":
    main({"wide": wide, "chain": chain})
