"""Events are frozen values, and every one of them can be sent as JSON."""

from __future__ import annotations

import dataclasses
import json
import pickle
from types import MappingProxyType
from typing import Any

import pytest

import asyncflow
from asyncflow import (
    Abandoned,
    BuildFinished,
    BuildStarted,
    Event,
    Lagged,
    LoopBlocked,
    Task,
    TaskFinished,
    TaskLog,
    TaskProgress,
    TaskRetry,
    TaskStarted,
    build,
    events,
)


class Number(Task):
    n: int

    async def run(self) -> int:
        if self.n < 0:
            raise ValueError("negative")
        return self.n


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("not to be said")


HEAD = (7, 1700000000.5, "3f2a9c01")
ONE = Number(n=1)
GROUP = ExceptionGroup("both", [ValueError("row 17:\n  bad"), ExceptionGroup("inner", [KeyError("x")])])

# Not Event.__subclasses__(): a class with slots is made twice, and its first self may linger there.
KINDS = [kind for name in events.__all__ if isinstance(kind := getattr(events, name), type) and kind is not Event]

SAMPLES: list[tuple[Event, dict[str, Any]]] = [
    (BuildStarted(*HEAD, (ONE, Number(n=2))), {"tasks": [ONE.task_id, Number(n=2).task_id]}),
    (TaskStarted(*HEAD, ONE, "no output"), {"task": ONE.task_id, "reason": "no output"}),
    (
        TaskLog(*HEAD, ONE, "stdout", 0, "a line"),
        {"task": ONE.task_id, "source": "stdout", "level": 0, "message": "a line"},
    ),
    (TaskProgress(*HEAD, ONE, 0.5, "page 3"), {"task": ONE.task_id, "fraction": 0.5, "message": "page 3"}),
    (
        TaskRetry(*HEAD, ONE, 1, 2.5, OSError("gone")),
        {"task": ONE.task_id, "attempt": 1, "wait": 2.5, "error": "OSError: gone"},
    ),
    (
        TaskFinished(*HEAD, ONE, "failed", 0.25, GROUP),
        {
            "task": ONE.task_id,
            "status": "failed",
            "duration": 0.25,
            "error": "ExceptionGroup: both (ValueError: row 17: bad; ExceptionGroup: inner (KeyError: 'x'))",
        },
    ),
    (
        TaskFinished(*HEAD, ONE, "failed", 0.0, Unspeakable()),
        {"task": ONE.task_id, "status": "failed", "duration": 0.0, "error": "Unspeakable: its message cannot be read"},
    ),
    (
        TaskFinished(*HEAD, ONE, "complete", 0.0, None),
        {"task": ONE.task_id, "status": "complete", "duration": 0.0, "error": None},
    ),
    (
        LoopBlocked(*HEAD, ONE, 0.25, "a.py:1 in run"),
        {"task": ONE.task_id, "seconds": 0.25, "place": "a.py:1 in run"},
    ),
    (LoopBlocked(*HEAD, None, 0.25, "a.py:1 in f"), {"task": None, "seconds": 0.25, "place": "a.py:1 in f"}),
    (Abandoned(*HEAD, ONE, ("a.py:1 in run",)), {"task": ONE.task_id, "stack": ["a.py:1 in run"]}),
    (BuildFinished(*HEAD, "failed", MappingProxyType({"failed": 1})), {"status": "failed", "counts": {"failed": 1}}),
    (Lagged(*HEAD, 12), {"missed": 12}),
]


@pytest.mark.parametrize(("event", "expected"), SAMPLES, ids=[type(event).__name__ for event, _ in SAMPLES])
def test_every_event_is_json(event: Event, expected: dict[str, Any]) -> None:
    sent = json.loads(json.dumps(event.to_dict()))
    assert sent == event.to_dict(), "what is read is what was written"
    head = {"type": type(event).__name__, "seq": 7, "time": 1700000000.5, "run_id": "3f2a9c01"}
    assert sent == head | expected


def test_every_kind_of_event_has_a_sample_and_is_public() -> None:
    assert set(KINDS) == {type(event) for event, _ in SAMPLES}
    assert {kind.__name__ for kind in Event.__subclasses__()} == {kind.__name__ for kind in KINDS}
    assert {kind.__name__ for kind in KINDS} <= set(asyncflow.__all__)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_events_are_frozen_and_lean(kind: type[Event]) -> None:
    event = next(event for event, _ in SAMPLES if type(event) is kind)
    with pytest.raises(dataclasses.FrozenInstanceError):
        event.seq = 8  # type: ignore[misc]
    assert not hasattr(event, "__dict__")


async def test_the_events_of_a_build_are_frozen_all_the_way_and_can_be_pickled() -> None:
    told: list[Event] = []
    await build([Number(n=1), Number(n=-1)], on_event=told.append)
    finished = told[-1]
    assert isinstance(finished, BuildFinished)
    with pytest.raises(TypeError, match="cannot be changed"):
        finished.counts["succeeded"] = 2  # type: ignore[index]
    assert pickle.loads(pickle.dumps(finished)) == finished
    assert json.loads(json.dumps(finished.to_dict()))["counts"] == {"succeeded": 1, "failed": 1}
    assert len({hash(event) for event in told}) == len(told)
