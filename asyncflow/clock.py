"""How the engine reads the time: really, unless its loop brings clocks of its own, as a simulated one does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import perf_counter
from typing import cast

__all__ = ["clock", "meter"]

Clock = Callable[[], float]


def clock(loop: asyncio.AbstractEventLoop) -> Clock:
    """What times are taken with, in seconds from some moment on."""
    return cast(Clock, getattr(loop, "clock", perf_counter))


def meter(loop: asyncio.AbstractEventLoop) -> Clock:
    """What the engine's own work is measured with, in seconds: it lets others in when it has worked for a slice."""
    return cast(Clock, getattr(loop, "meter", perf_counter))
