"""Cancel at every suspension point: run a body again and again, cancelled one suspension later each time.

A body suspends whenever it gives the loop a future to wait for. ``sweep`` runs ``case()`` with a cancel at its
first suspension, then at its second, and so on, until it runs unharmed because it has no more of them::

    points = await sweep(write, check, style="native")

Needs anyio, which asyncflow brings, for the style of that name. Works on any asyncio loop, a simulated one too.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Generator
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, get_args

__all__ = ["MOST", "STYLES", "Outcome", "Style", "Suspensions", "sweep"]

Style = Literal["native", "late", "twice", "timeout", "anyio"]
"""A way to cancel a body:

* ``native``: ``task.cancel()`` as the body suspends.
* ``late``: ``task.cancel()`` when what the body waits for has come, before the body has seen it.
* ``twice``: ``task.cancel()`` at this suspension and at the next one.
* ``timeout``: the body is inside ``asyncio.timeout()``, which expires as the body suspends.
* ``anyio``: the body is inside an anyio ``CancelScope`` that is cancelled, as Starlette does: the scope cancels its
  task over and over.
"""

STYLES: tuple[Style, ...] = get_args(Style)
"""Every style, to parametrize a test with."""

MOST = 500
"""Suspensions after which ``sweep`` takes it that the body does not end."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one run of the body ended."""

    style: Style
    """How it was cancelled."""
    point: int
    """The suspension it was cancelled at, counted from 1."""
    reached: bool
    """False: the body had fewer suspensions, and was not cancelled at all."""
    cancelled: bool
    """Whether the cancel came out of the body; it does where ``reached``, unless a ``timeout`` was just met."""


class Suspensions:
    """An awaitable that counts how often the one inside it suspends, and calls ``at(n, future)`` each time.

    ``n`` counts from 1; ``future`` is what the body waits for, None for a bare ``yield`` (``asyncio.sleep(0)``).
    Its value, and what it raises, are those of the awaitable inside.
    """

    def __init__(self, inner: Awaitable[Any], at: Callable[[int, Any], object]) -> None:
        self._inner = inner
        self._at = at
        self.count = 0
        """The suspensions so far."""

    def __await__(self) -> Generator[Any, Any, Any]:
        steps = self._inner.__await__()
        resume: Callable[[], Any] = partial(next, steps)
        while True:
            try:
                waits_for = resume()
            except StopIteration as end:
                return end.value
            self.count += 1
            self._at(self.count, waits_for)
            try:
                sent = yield waits_for
            except BaseException as error:
                resume = partial(steps.throw, error)
            else:
                resume = partial(steps.send, sent)


async def sweep(
    case: Callable[[], Awaitable[Any]],
    check: Callable[[Outcome], Any],
    style: Style,
    *,
    most: int = MOST,
) -> int:
    """Cancel ``case()`` at each of its suspensions, in ``style``; return how many there are.

    Args:
        case: makes the body to be cancelled, once for each run; it starts from the same state each time, and
            suspends as often, so set up what it needs in it.
        check: called after each run, also after the last one, which nothing has cancelled; may be a coroutine
            function. It looks at what the run has left, and raises if that is wrong.
        style: how to cancel.
        most: suspensions after which the body is taken not to end.

    Raises ``AssertionError`` where a cancel was swallowed or the body does not end, and whatever ``case`` or
    ``check`` raise.
    """
    for point in range(1, most + 1):
        outcome = await _cancelled_at(case, style, point)
        checked = check(outcome)
        if inspect.isawaitable(checked):
            await checked
        if not outcome.reached:
            return point - 1
    raise AssertionError(f"more than {most} suspensions: the body does not end")


async def _cancelled_at(case: Callable[[], Awaitable[Any]], style: Style, point: int) -> Outcome:
    task = asyncio.create_task(_RUNS[style](case, point))  # noqa: TID251  # in a test, which waits for it at once
    asked = _this_task().cancelling()
    try:
        reached, cancelled = await task
    except asyncio.CancelledError:
        if _this_task().cancelling() > asked:
            raise  # it is the sweep itself that is being cancelled
        reached = cancelled = True
    else:
        in_time = style == "timeout" and not cancelled
        if cancelled != reached and not in_time:
            raise _swallowed(style, point)
    return Outcome(style, point, reached, cancelled)


async def _native(case: Callable[[], Awaitable[Any]], point: int) -> tuple[bool, bool]:
    task = _this_task()
    body = Suspensions(case(), lambda count, _: count == point and task.cancel())
    await body
    return body.count >= point, False


async def _late(case: Callable[[], Awaitable[Any]], point: int) -> tuple[bool, bool]:
    task = _this_task()

    def at(count: int, waits_for: Any) -> None:
        if count == point:
            if waits_for is None:  # a bare yield: nothing comes that it would wait for
                task.cancel()
            else:
                waits_for.add_done_callback(lambda _: task.cancel())

    body = Suspensions(case(), at)
    await body
    return body.count >= point, False


async def _twice(case: Callable[[], Awaitable[Any]], point: int) -> tuple[bool, bool]:
    task = _this_task()
    body = Suspensions(case(), lambda count, _: point <= count <= point + 1 and task.cancel())
    await body
    return body.count >= point, False


async def _timeout(case: Callable[[], Awaitable[Any]], point: int) -> tuple[bool, bool]:
    try:
        async with asyncio.timeout(None) as timeout:
            now = asyncio.get_running_loop().time

            def at(count: int, _: Any) -> None:
                if count == point:
                    timeout.reschedule(now())

            body = Suspensions(case(), at)
            await body
    except TimeoutError:
        return True, True
    # It is on time if it has ended before the loop came round to the timeout.
    if timeout.expired():
        raise _swallowed("timeout", point)
    return body.count >= point, False


async def _anyio(case: Callable[[], Awaitable[Any]], point: int) -> tuple[bool, bool]:
    import anyio  # here alone: `import asyncflow.testing` stays light
    import anyio.lowlevel

    scope = anyio.CancelScope()

    def at(count: int, _: Any) -> None:
        if count == point:
            scope.cancel()

    body = Suspensions(case(), at)
    with scope:
        await body
        # A scope that is cancelled in the body's last, shielded step cancels at the next thing awaited.
        if scope.cancel_called:
            await anyio.lowlevel.checkpoint()
    return body.count >= point, scope.cancelled_caught


_RUNS: dict[Style, Callable[[Callable[[], Awaitable[Any]], int], Any]] = {
    "native": _native,
    "late": _late,
    "twice": _twice,
    "timeout": _timeout,
    "anyio": _anyio,
}


def _swallowed(style: Style, point: int) -> AssertionError:
    return AssertionError(f"{style} at suspension {point}: the cancel was swallowed")


def _this_task() -> asyncio.Task[Any]:
    task = asyncio.current_task()
    assert task is not None
    return task
