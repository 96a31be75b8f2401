"""Tools for testing pipelines, targets, and the engine itself. Plain functions: they need no test framework.

*Simulation*: hours of waiting take no time, and the order of things is drawn from a seed::

    async def main() -> None:
        result = await build(Report())  # whose body sleeps for an hour between two attempts
        result.raise_for_failure()


    def test_report() -> None:
        explore(main, seeds=500)  # 500 orders; ASYNCFLOW_SEED=17 replays one

*Cancelling*: a body cancelled wherever it can be::

    @pytest.mark.parametrize("style", STYLES)
    async def test_write(style: Style) -> None:
        await sweep(write, check, style)

*Leaks*: nothing may be left behind::

    async def test_service() -> None:
        async with no_leaks():
            await use_the_service()

*Blocking*: nobody holds the loop::

    async def test_pipeline() -> None:
        with no_blocking():
            await build(Report())

*The contract of targets*: for a place of one's own, ``class TestMyTarget(TargetContract)``.

``docs/testing.md`` is the guide.
"""

from __future__ import annotations

from .blocking import LoopBlockedError, no_blocking
from .contract import TargetContract
from .leaks import (
    LeakError,
    Snapshot,
    check_open_files,
    check_tasks,
    check_temp_files,
    check_threads,
    no_leaks,
    other_tasks,
)
from .loop import SimulatedLoop, Standstill
from .seeds import explore, simulate
from .suspension import STYLES, Outcome, Style, Suspensions, sweep

__all__ = [
    "STYLES",
    "LeakError",
    "LoopBlockedError",
    "Outcome",
    "SimulatedLoop",
    "Snapshot",
    "Standstill",
    "Style",
    "Suspensions",
    "TargetContract",
    "check_open_files",
    "check_tasks",
    "check_temp_files",
    "check_threads",
    "explore",
    "no_blocking",
    "no_leaks",
    "other_tasks",
    "simulate",
    "sweep",
]
