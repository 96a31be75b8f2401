"""redun: its default scheduler with a database in memory and threads; a node returns its value, which is cached."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from redun import Scheduler
from redun import task as redun_task
from redun.config import Config

from .protocol import SLEEP, WIDTH, Timed, edges, main

redun_namespace = "benchmarks"


@redun_task()
def put(n, *before):
    return n


@redun_task()
def sleep(n):
    time.sleep(SLEEP)
    return n


@redun_task()
def gather(values):
    return len(values)


def make(expression: Callable[[], Any]) -> Timed:
    logging.getLogger("redun").setLevel(logging.CRITICAL)
    config = Config({"executors.default": {"type": "local", "max_workers": "32"}})
    scheduler = Scheduler(config=config)
    scheduler.load()

    def timed() -> dict[str, Any]:
        return {"gave": scheduler.run(expression())}

    return timed


def wide(n: int) -> Timed:
    return make(lambda: gather([put(i) for i in range(n)]))


def chain(n: int) -> Timed:
    def links() -> Any:
        link = put(0)
        for i in range(1, n):
            link = put(i, link)
        return link

    return make(links)


def layers(n: int) -> Timed:
    def top() -> Any:
        cells: dict[tuple[int, int], Any] = {}
        for layer in range(n // WIDTH):
            for column in range(WIDTH):
                cells[layer, column] = put(layer, *[cells[edge] for edge in edges(layer, column)])
        return gather([cells[n // WIDTH - 1, column] for column in range(WIDTH)])

    return make(top)


def complete(n: int) -> Timed:
    timed = wide(n)
    timed()
    return timed


if __name__ == "__main__":
    main(
        {
            "wide": wide,
            "chain": chain,
            "layers": layers,
            "sleeping": lambda n: make(lambda: gather([sleep(i) for i in range(n)])),
            "complete": complete,
        }
    )
