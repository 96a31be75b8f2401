"""What a task class may ask of the engine: retries, time limits, priority, resources, rates.

They are plain class attributes, or properties where they differ from task to task; never parameters, since
they are no part of what a task is.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from math import isfinite
from typing import Any, TypedDict

from .errors import AsyncflowError, ConfigError, WorkerDied

__all__ = ["DEFAULTS", "ENGINE_OPTIONS", "Options", "TaskOptions", "amounts", "check_names", "options_of", "per_second"]

ENGINE_OPTIONS = (
    *("hold", "priority", "processes", "rate", "resources", "retries", "retry_delay", "retry_on", "runner"),
    "timeout",
)
"""Names that belong to the engine; as a parameter they would become part of the task's id."""

LONGEST = 3600.0
"""Seconds beyond which a growing retry delay does not grow."""

RetryOn = type[BaseException] | tuple[type[BaseException], ...] | Callable[[BaseException], bool]


class TaskOptions(TypedDict, total=False):
    """The options of a task class by name, as ``@task(...)`` takes them."""

    priority: float
    retries: int | None
    retry_delay: float | Callable[[int], float]
    retry_on: RetryOn | list[type[BaseException]] | None
    timeout: float | None
    resources: Mapping[str, int]
    hold: str | Iterable[str]
    rate: str | Mapping[str, int]
    runner: str | None


class Options:
    """The options of one class of tasks, or of one task. Checked: a wrong one is a ``ConfigError``."""

    __slots__ = (
        *("hold", "in_process", "pooled", "priority", "rate", "resources", "retries", "retry_delay", "retry_on"),
        "timeout",
    )

    def __init__(self, owner: Any, place: str) -> None:
        self.priority: float = _number(owner, place, "priority", -float("inf"), 0.0)
        retries = owner.retries
        if retries is not None and (not isinstance(retries, int) or isinstance(retries, bool) or retries < 0):
            raise _wrong(place, "retries", retries, "a whole number, 0 or more")
        self.retries: int | None = retries  # None: what the build says
        delay: Any = _function(owner, "retry_delay")
        self.retry_delay: float | Callable[[int], float]
        self.retry_delay = delay if callable(delay) else _number(owner, place, "retry_delay", 0.0, 1.0)  # pyright: ignore
        self.retry_on: RetryOn | None = _retry_on(owner, place)
        timeout = owner.timeout
        self.timeout: float | None = None if timeout is None else _number(owner, place, "timeout", 0.0, 1.0)
        self.resources: Mapping[str, int] = amounts(owner.resources, place, "resources", '{"db": 1}')
        rate = owner.rate
        self.rate: Mapping[str, int] = {rate: 1} if isinstance(rate, str) else amounts(rate, place, "rate", '"api"')
        hold = (owner.hold,) if isinstance(owner.hold, str) else tuple(owner.hold)
        for name in hold:
            if name not in self.resources:
                raise _wrong(place, "hold", owner.hold, f"names out of its resources, {sorted(self.resources)}")
        self.hold: frozenset[str] = frozenset(hold)
        if owner.runner not in (None, "process"):
            raise _wrong(place, "runner", owner.runner, "'process', or None: the loop for an async body, else a thread")
        self.in_process = owner.runner == "process"
        self.pooled = bool(self.resources or self.rate)

    def delay(self, failures: int, uniform: Callable[[float, float], float]) -> float:
        """Seconds to wait after the given number of failures (1, 2, ...).

        ``retry_delay`` doubled with every further failure, up to an hour; of that, half is certain and half is
        drawn ("equal jitter", AWS Architecture Blog, "Exponential Backoff And Jitter", 2015), so that what
        failed together does not come back together. A callable ``retry_delay`` is taken as it answers.
        """
        if callable(self.retry_delay):
            seconds = self.retry_delay(failures)
            if not isinstance(seconds, (int, float)) or not isfinite(seconds):
                raise TypeError(f"it gave {seconds!r}; expected a number of seconds")
            return max(0.0, seconds)
        longest = min(self.retry_delay * 2.0 ** min(failures - 1, 64), max(LONGEST, self.retry_delay))
        return longest / 2 + uniform(0.0, longest / 2)

    def retries_on(self, error: BaseException) -> bool:
        """Whether a body that raised ``error`` is worth another attempt."""
        if self.retry_on is None:
            # What asyncflow itself says of a task (no output, a cycle) is as true the next time.
            return isinstance(error, Exception) and not (
                isinstance(error, AsyncflowError) and not isinstance(error, WorkerDied)
            )
        if isinstance(self.retry_on, (type, tuple)):
            return isinstance(error, self.retry_on)
        return bool(self.retry_on(error))


def amounts(given: Any, place: str, name: str, example: str) -> Mapping[str, int]:
    """A mapping from names to whole numbers of at least 1, as it was given. Raises ``ConfigError``."""
    if not isinstance(given, Mapping):
        raise _wrong(place, name, given, f"amounts by name, such as {example}")
    for key, count in given.items():
        if not isinstance(key, str) or not isinstance(count, int) or isinstance(count, bool) or count < 1:
            raise _wrong(place, name, dict(given), f"names and whole numbers of at least 1, such as {example}")
    return dict(given)  # it is not to change between a start and its end


_RATE = re.compile(r"\s*(\d+)\s*/\s*(\d+(?:\.\d+)?)?\s*(s|sec|second|min|minute|h|hour|d|day)s?\s*")
_SECONDS = {"s": 1, "sec": 1, "second": 1, "min": 60, "minute": 60, "h": 3600, "hour": 3600, "d": 86400, "day": 86400}


def check_names(given: Iterable[str], place: str) -> None:
    """Raise ``ConfigError`` for a name that is no option."""
    known = sorted(TaskOptions.__annotations__)
    for name in given:
        if name not in known:
            from difflib import get_close_matches

            near = get_close_matches(name, known, n=1)
            advice = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
            raise ConfigError(f"{place} has no option {name!r}; {advice}")


def options_of(cls: Any, base: Any) -> Options | None:
    """The options of the tasks of ``cls``, derived from ``base``; None if they differ from task to task.

    Raises ``ConfigError``.
    """
    own = [c for c in cls.__mro__ if not issubclass(base, c)]
    written = [name for name in TaskOptions.__annotations__ if any(name in c.__dict__ for c in own)]
    if not written:
        return DEFAULTS
    if any(isinstance(getattr(cls, name), property) for name in written):
        return None
    return Options(cls, cls.__qualname__)


def wrong_option(task: Any, name: str, error: BaseException) -> ConfigError:
    """What is told of a task whose function ``name`` has raised ``error``."""
    wrong = ConfigError(f"{task!r}.{name} raised {type(error).__name__}: {error}")
    wrong.__cause__ = error
    return wrong


def per_second(text: Any, place: str) -> tuple[int, float]:
    """``"10/s"``, ``"100/min"``, ``"3/10s"``: how many starts in how many seconds. Raises ``ConfigError``."""
    match = _RATE.fullmatch(text) if isinstance(text, str) else None
    count = int(match[1]) if match else 0
    period = float(match[2] or 1) * _SECONDS[match[3]] if match else 0.0
    if not count or not period:
        raise ConfigError(f'{place}: {text!r} is not a rate; write starts per time, such as "10/s", "100/min", "3/10s"')
    return count, period


def _number(owner: Any, place: str, name: str, least: float, example: float) -> float:
    value = getattr(owner, name)
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not isfinite(value) or value < least:
        bound = "" if least == -float("inf") else f", {least:g} or more"
        unit = " of seconds" if name in ("timeout", "retry_delay") else ""
        raise _wrong(place, name, value, f"a number{unit}{bound}, such as {example:g}")
    return value


def _retry_on(owner: Any, place: str) -> RetryOn | None:
    given = _function(owner, "retry_on")
    if isinstance(given, list):
        given = tuple(given)
    kinds: Iterable[Any] = given if isinstance(given, tuple) else (given,) if isinstance(given, type) else ()
    right = all(isinstance(kind, type) and issubclass(kind, BaseException) for kind in kinds)
    if given is not None and not (right and (kinds or callable(given))):
        raise _wrong(place, "retry_on", given, "exception types, or a function that takes the exception")
    return given  # type: ignore[no-any-return]


def _function(owner: Any, name: str) -> Any:
    """The option itself: a function there is a function of one argument, not a method of the task."""
    cls = owner if isinstance(owner, type) else type(owner)
    given = next(c.__dict__[name] for c in cls.__mro__ if name in c.__dict__)
    if isinstance(given, staticmethod):
        given = given.__func__
    if isinstance(given, property):
        return getattr(owner, name)
    if callable(given) and not isinstance(given, type):
        _check_function(given, cls.__qualname__, name)
    return given


def _check_function(function: Any, place: str, name: str) -> None:
    argument = "the exception" if name == "retry_on" else "the number of failures"
    right = f"a plain function of one argument, {argument}; no `self`"
    if inspect.iscoroutinefunction(function):
        raise ConfigError(f"{place}.{name} is an `async def`; expected {right}")
    try:
        inspect.signature(function).bind(None)
    except TypeError:
        raise ConfigError(f"{place}.{name} takes other arguments; expected {right}") from None
    except ValueError:
        pass  # a builtin that does not tell


def _wrong(place: str, name: str, value: object, expected: str) -> ConfigError:
    return ConfigError(f"{place}.{name} is {value!r}; expected {expected}")


class _Defaults:
    """What ``Task`` itself says."""

    priority = 0
    retries = None
    retry_delay = 1.0
    retry_on = None
    timeout = None
    resources: Mapping[str, int] = {}
    rate: Mapping[str, int] = {}
    hold: tuple[str, ...] = ()
    runner = None


DEFAULTS = Options(_Defaults, "Task")
