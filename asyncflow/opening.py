"""The options of ``build``, ``start`` and ``Flow``: checked, and made into a budget and an account."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping
from typing import Any, TypedDict

from ._options import amounts, per_second
from .account import Account
from .errors import ConfigError
from .events import Event
from .graph import Budget
from .queues import Pool
from .selection import Force, Only, selected

__all__ = [
    "CONCURRENCY",
    "GRACE",
    "PROCESSES",
    "THREADS",
    "AccountOptions",
    "BuildOptions",
    "RunOptions",
    "check_numbers",
    "open_account",
    "open_budget",
]

CONCURRENCY = 1000
THREADS = 32
PROCESSES = os.cpu_count() or 1
GRACE = 1.0


class RunOptions(TypedDict, total=False):
    """The options of one run of a flow."""

    timeout: float | None
    retries: int
    fail_fast: bool
    only: Only | None
    on_event: Callable[[Event], object] | None


class AccountOptions(RunOptions, total=False):
    """The options of ``build`` that its account takes: all but ``force``, which is worked out in slices."""

    concurrency: int
    threads: int
    processes: int
    grace: float
    resources: Mapping[str, int]
    rate: Mapping[str, str]


class BuildOptions(AccountOptions, total=False):
    """The options of ``build``, for what passes them on."""

    force: Force


def check_numbers(
    place: str,
    *,
    concurrency: Any = 1,
    threads: Any = 1,
    processes: Any = 1,
    retries: Any = 0,
    grace: Any = 0,
    timeout: Any = None,
    **seconds: Any,
) -> None:
    """Raises ``ConfigError``, which names ``place``, for a number that is out of range."""
    for name, count, least in (
        ("concurrency", concurrency, 1),
        ("threads", threads, 1),
        ("processes", processes, 1),
        ("retries", retries, 0),
    ):
        if not isinstance(count, int) or isinstance(count, bool) or count < least:
            raise ConfigError(f"{place}({name}={count!r}): expected a whole number of at least {least}")
    if timeout is not None:
        seconds["timeout"] = timeout
    for name, value in {"grace": grace, **seconds}.items():
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 <= value < float("inf"):
            raise ConfigError(f"{place}({name}={value!r}): expected a number of seconds, 0 or more")


def open_budget(
    place: str,
    *,
    concurrency: int = CONCURRENCY,
    threads: int = THREADS,
    processes: int = PROCESSES,
    resources: Mapping[str, int] | None = None,
    rate: Mapping[str, str] | None = None,
) -> Budget:
    """Places and pools, as the options of ``place`` say. Raises ``ConfigError``."""
    check_numbers(place, concurrency=concurrency, threads=threads, processes=processes)
    rate = rate or {}
    if not isinstance(rate, Mapping):
        raise ConfigError(f'{place}(rate={rate!r}): expected rates by name, such as {{"api": "10/s"}}')
    capacities = amounts(resources or {}, f"{place}()", "resources", '{"db": 4}')
    return Budget(
        concurrency,
        (concurrency, threads, processes),
        {name: Pool(name, count) for name, count in capacities.items()},
        {name: Pool(name, *per_second(text, f"{place}(rate={{{name!r}: ...}})")) for name, text in rate.items()},
    )


def open_account(
    place: str,
    *,
    budget: Budget | None = None,
    concurrency: int = CONCURRENCY,
    threads: int = THREADS,
    processes: int = PROCESSES,
    grace: float = GRACE,
    timeout: float | None = None,
    retries: int = 0,
    resources: Mapping[str, int] | None = None,
    rate: Mapping[str, str] | None = None,
    fail_fast: bool = False,
    only: Only | None = None,
    on_event: Callable[[Event], object] | None = None,
) -> Account:
    """The account of a build with these options, in the running loop and context; with a ``budget``, on that.

    Raises ``ConfigError``.
    """
    check_numbers(place, retries=retries, grace=grace, timeout=timeout)
    if not isinstance(fail_fast, bool):
        raise ConfigError(f"{place}(fail_fast={fail_fast!r}): expected True or False")
    if on_event is not None and (not callable(on_event) or inspect.iscoroutinefunction(on_event)):
        raise ConfigError(f"{place}(on_event={on_event!r}): expected a plain function that takes one event")
    if budget is None:
        budget = open_budget(
            place, concurrency=concurrency, threads=threads, processes=processes, resources=resources, rate=rate
        )
    return Account(
        budget=budget,
        grace=grace,
        timeout=timeout,
        retries=retries,
        fail_fast=fail_fast,
        selects=selected(only),
        on_event=on_event,
    )
