"""``simulate`` and ``explore``: run a coroutine in a simulated loop, by one seed or by many."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, TypeVar

from .loop import SimulatedLoop

__all__ = ["VARIABLE", "explore", "simulate"]

T = TypeVar("T")

VARIABLE = "ASYNCFLOW_SEED"
"""The environment variable with the seed to replay."""


def simulate(main: Callable[[], Coroutine[Any, Any, T]], *, seed: int | None = None) -> T:
    """Run ``main()`` to its end in a ``SimulatedLoop``, and return what it returns.

    As with ``asyncio.run``, tasks that are left are cancelled and async generators shut down; and it cannot be
    called where a loop is running: call it from a plain ``def test_...``.

    Args:
        main: a coroutine function without arguments; ``functools.partial`` gives it some.
        seed: what the order of things is drawn from; by default the one in the environment variable
            ``ASYNCFLOW_SEED``, or 0.

    Raises what ``main()`` raises, with a note that names the seed; ``Standstill`` where it would hang for ever;
    ``RuntimeError`` where a loop is running; ``ValueError`` for an ``ASYNCFLOW_SEED`` that is no whole number.
    """
    if seed is None:
        seed = _asked_for() or 0
    if asyncio._get_running_loop() is not None:
        raise RuntimeError("simulate() runs a loop of its own, and one is running here: call it from a plain `def`")
    try:
        with asyncio.Runner(loop_factory=partial(SimulatedLoop, seed)) as runner:
            return runner.run(main())
    except BaseException as error:
        error.add_note(f"simulated with seed {seed}; again: {VARIABLE}={seed}, or simulate(..., seed={seed})")
        raise


def explore(main: Callable[[], Coroutine[Any, Any, object]], seeds: int = 500, *, first: int = 0) -> int:
    """``simulate`` ``main()`` with one seed after the other, up to the first that fails; how many there were.

    Args:
        main: a coroutine function without arguments, which leaves nothing behind for the next seed.
        seeds: how many seeds.
        first: the first of them. Where the environment variable ``ASYNCFLOW_SEED`` is set, that seed alone is
            tried: ``ASYNCFLOW_SEED=17 pytest tests/test_report.py`` replays what failed.

    Raises as ``simulate`` does; ``ValueError`` for less than one seed.
    """
    if seeds < 1:
        raise ValueError(f"explore(seeds={seeds}): expected 1 or more")
    asked_for = _asked_for()
    tried = range(first, first + seeds) if asked_for is None else (asked_for,)
    for seed in tried:
        simulate(main, seed=seed)
    return len(tried)


def _asked_for() -> int | None:
    """The seed in the environment."""
    text = os.environ.get(VARIABLE, "")
    if not text:
        return None
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"{VARIABLE}={text!r}: expected a whole number") from None
