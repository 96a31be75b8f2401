"""Dask: ``dask.delayed`` on a ``distributed`` local cluster in this process, two threads (32 for those that sleep).

It has no targets: a node returns its value. The cluster is started before the clock.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import dask
from distributed import Client, LocalCluster, worker_client

from .protocol import SLEEP, WIDTH, Timed, edges, main


def put(n, *before):
    return n


def count(values):
    return len(values)


def sleep(n):
    time.sleep(SLEEP)
    return n


def one_by_one(n):
    with worker_client() as client:
        return len([client.submit(put, i).result() for i in range(n)])


def at_once(n):
    with worker_client() as client:
        return len(client.gather(client.map(put, range(n))))


def make(graph: Callable[[], Any], threads: int = 2) -> Timed:
    client = Client(LocalCluster(processes=False, n_workers=1, threads_per_worker=threads, dashboard_address=None))

    def timed() -> dict[str, Any]:
        return {"gave": client.compute(graph()).result()}

    return timed


def wide() -> Any:
    return dask.delayed(put)


def chain_of(n: int) -> Any:
    link = wide()(0)
    for i in range(1, n):
        link = wide()(i, link)
    return link


def layers_of(n: int) -> Any:
    cells: dict[tuple[int, int], Any] = {}
    for layer in range(n):
        for column in range(WIDTH):
            cells[layer, column] = wide()(layer, *[cells[edge] for edge in edges(layer, column)])
    return dask.delayed(count)([cells[n - 1, column] for column in range(WIDTH)])


if __name__ == "__main__":
    main(
        {
            "wide": lambda n: make(lambda: dask.delayed(count)([wide()(i) for i in range(n)])),
            "chain": lambda n: make(lambda: chain_of(n)),
            "layers": lambda n: make(lambda: layers_of(n // WIDTH)),
            "sleeping": lambda n: make(lambda: dask.delayed(count)([dask.delayed(sleep)(i) for i in range(n)]), 32),
            "one_by_one": lambda n: make(lambda: dask.delayed(one_by_one)(n)),
            "at_once": lambda n: make(lambda: dask.delayed(at_once)(n)),
        }
    )
