"""Prefect: one flow, tasks submitted to its thread pool, the temporary server it starts by itself.

It has no targets: a node returns its value. A first, empty flow starts the server before the clock.
"""

from __future__ import annotations

import os
import time
from typing import Any

os.environ.setdefault("PREFECT_LOGGING_LEVEL", "CRITICAL")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "50")

from prefect import flow, task

from .protocol import SLEEP, WIDTH, Timed, edges, main


@task
def put(n, *before):
    return n


@task
def sleep(n):
    time.sleep(SLEEP)
    return n


@flow
def nothing():
    return 0


@flow
def wide(n):
    return len([future.result() for future in [put.submit(i) for i in range(n)]])


@flow
def chain(n):
    link = put.submit(0)
    for i in range(1, n):
        link = put.submit(i, link)
    return link.result()


@flow
def layers(n):
    cells: dict[tuple[int, int], Any] = {}
    for layer in range(n // WIDTH):
        for column in range(WIDTH):
            cells[layer, column] = put.submit(layer, *[cells[edge] for edge in edges(layer, column)])
    return len([cell.result() for cell in cells.values()])


@flow
def sleeping(n):
    return len([future.result() for future in [sleep.submit(i) for i in range(n)]])


@flow
def one_by_one(n):
    return len([put(i) for i in range(n)])


def prepared(workload: Any, n: int) -> Timed:
    nothing()
    return lambda: {"gave": workload(n)}


if __name__ == "__main__":
    main(
        {
            "wide": lambda n: prepared(wide, n),
            "chain": lambda n: prepared(chain, n),
            "layers": lambda n: prepared(layers, n),
            "sleeping": lambda n: prepared(sleeping, n),
            "one_by_one": lambda n: prepared(one_by_one, n),
        }
    )
