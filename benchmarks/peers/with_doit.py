"""doit: one process, its own database file of what is up to date (``run_once``), targets where a file is made."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from doit.api import run_tasks
from doit.cmd_base import ModuleTaskLoader
from doit.tools import run_once

from .protocol import WIDTH, Timed, edges, folder, main

STORE: dict[str, int] = {}


def put(name: str, n: int) -> None:
    STORE[name] = n


def write(path: Path, n: int) -> None:
    part = path.with_suffix(".part")
    part.write_text(f"{n}\n")
    os.replace(part, path)


def task(name: str, n: int, *before: str) -> dict[str, Any]:
    return {"basename": name, "actions": [(put, [name, n])], "task_dep": list(before), "uptodate": [run_once]}


def make(tasks: Callable[[], Iterator[dict[str, Any]]], last: str, made: Callable[[], int] | None = None) -> Timed:
    database = str(folder() / "doit.db")

    def timed() -> dict[str, Any]:
        config = {"GLOBAL": {"dep_file": database, "reporter": "zero", "verbosity": 0}}
        if run_tasks(ModuleTaskLoader({"task_all": tasks}), {last: {}}, extra_config=config):
            raise RuntimeError("doit did not succeed")
        return {"made": len(STORE) if made is None else made()}

    return timed


def wide(n: int) -> Timed:
    def tasks() -> Iterator[dict[str, Any]]:
        yield from (task(f"leaf-{i}", i) for i in range(n))
        yield task("root", n, *[f"leaf-{i}" for i in range(n)])

    return make(tasks, "root")


def chain(n: int) -> Timed:
    def tasks() -> Iterator[dict[str, Any]]:
        for i in range(n):
            yield task(f"link-{i}", i, *([f"link-{i - 1}"] if i else []))

    return make(tasks, f"link-{n - 1}")


def layers(n: int) -> Timed:
    top = n // WIDTH

    def tasks() -> Iterator[dict[str, Any]]:
        for layer in range(top):
            for column in range(WIDTH):
                yield task(f"cell-{layer}-{column}", layer, *[f"cell-{a}-{b}" for a, b in edges(layer, column)])
        yield task("root", n, *[f"cell-{top - 1}-{column}" for column in range(WIDTH)])

    return make(tasks, "root")


def complete(n: int) -> Timed:
    timed = wide(n)
    timed()
    return timed


def files(n: int) -> Timed:
    place = folder()

    def tasks() -> Iterator[dict[str, Any]]:
        for i in range(n):
            path = place / f"{i}.txt"
            yield {
                "basename": f"file-{i}",
                "actions": [(write, [path, i])],
                "targets": [str(path)],
                "uptodate": [run_once],
            }
        yield task("root", n, *[f"file-{i}" for i in range(n)])

    return make(tasks, "root", lambda: len(list(place.iterdir())))


def files_again(n: int) -> Timed:
    timed = files(n)
    timed()
    return timed


if __name__ == "__main__":
    main(
        {
            "wide": wide,
            "chain": chain,
            "layers": layers,
            "complete": complete,
            "files": files,
            "files_again": files_again,
        }
    )
