"""Bodies in worker processes, for work that keeps a core busy (``runner = "process"``).

Each has a thread here that talks with its worker, so what is sent is pickled and read off the loop. What the body asks
for is answered from here, as to any other body, and it goes on in place.
"""

from __future__ import annotations

import logging
import os
import pickle
import sys
from collections.abc import Callable
from functools import partial
from itertools import count
from typing import Any

from .._definition import PROCESS
from .._task import Task
from ..attempt import Attempt
from ..errors import PlanError, WorkerDied
from ..graph import Demand, Node
from ..outcomes import settled
from ..target import Target
from ..threads import lend, parked, woken
from ..tree import leaves
from . import Reports
from .thread import Stop, ThreadRunner
from .wire import PackedError, dumps, pack_error, unpack_error
from .workers import Worker, give_back, importable_main, keep, release, take

__all__ = ["PARKED", "ProcessRunner", "unfit"]

log = logging.getLogger("asyncflow")

PARKED = 64
"""Bodies in processes that may be waiting for tasks at once: each keeps its process meanwhile."""

_numbers = count(1)


class _Desk:
    """An attempt's dealings with its worker."""

    __slots__ = ("demands", "killed", "number", "stopped", "worker")

    def __init__(self) -> None:
        self.number = next(_numbers)
        self.worker: Worker | None = None  # while the body is there
        self.stopped = False
        self.killed = False
        self.demands: dict[int, Demand] = {}  # what the body waits for, by its own numbers


class ProcessRunner(ThreadRunner):
    """Runs bodies of every kind in processes."""

    def __init__(self, reports: Reports) -> None:
        super().__init__(reports)
        self._handlers: dict[str, Callable[[Attempt, Worker, Any], object]] = {
            "ask": self._asked,
            "leave": self._left,
            "progress": lambda attempt, _, told: attempt.engine.progress(attempt, *told),
            "print": self._printed,
            "log": self._logged,
        }

    def start(self, attempt: Attempt) -> None:
        keep(self)
        if (budget := attempt.node.build.budget).shared:
            keep(budget)
        attempt.handle = _Desk()
        context = attempt.node.build.owner.context.copy()
        lend(lambda: context.run(self._run, attempt))

    def close(self) -> None:
        """No build is left in this loop."""
        release(self)

    def _body(self, attempt: Attempt) -> Any:
        desk: _Desk = attempt.handle
        payload = _payload(attempt)
        worker = take()
        sound = True
        try:
            with self._lock:
                if desk.stopped:
                    raise Stop
                desk.worker = worker
            sound = False
            try:
                worker.send("run", desk.number, payload)
                kind, message = self._listen(attempt, worker)
                sound = True
            except WorkerDied as died:
                if desk.stopped:
                    raise Stop from None
                raise WorkerDied(f"{attempt.task!r}: {died}; {_advice(died)}", died.code) from None
        finally:
            with self._lock:
                desk.worker = None
            if not sound:  # nobody knows what its body is doing
                worker.kill()
            give_back(worker, attempt.node.build.budget.lanes[PROCESS])

        if kind == "stopped":
            raise Stop
        if kind == "failed":
            raise unpack_error(PackedError(*message))
        value, attempt.published, attempt.lost = message
        return value

    def _listen(self, attempt: Attempt, worker: Worker) -> tuple[str, Any]:
        """Serve the body to its end; its last word."""
        desk: _Desk = attempt.handle
        while True:
            kind, number, payload = worker.receive()
            if number != desk.number:
                continue  # a late word of the body before
            if kind == "stopped":
                return kind, None
            try:
                message = pickle.loads(payload)
            except Exception as error:
                raise RuntimeError(
                    f"{attempt.task!r}: what its worker process has sent cannot be read here: "
                    f"{type(error).__name__}: {error}"
                ) from error
            if kind in ("done", "failed"):
                return kind, message
            self._handlers[kind](attempt, worker, message)

    # What the body asks for ------------------------------------------------------------------------------

    def _asked(self, attempt: Attempt, worker: Worker, message: tuple[int, Any]) -> None:
        if not self._post(self._suspend_for, attempt, worker, *message):
            worker.kill()  # nobody will ever answer

    def _suspend_for(self, attempt: Attempt, worker: Worker, number: int, structure: Any) -> None:
        desk: _Desk = attempt.handle
        if attempt.node.attempt is not attempt or attempt.cancelled:
            return  # it is told to stop
        reply = partial(self._reply, attempt, worker, number, structure)
        if self._parked >= PARKED and not desk.demands:
            error = RuntimeError(
                f"{PARKED} bodies in processes are waiting for tasks at once, and each keeps its process; let a body "
                f"without runner = 'process' wait for them, and hand {type(attempt.task).__name__} what they gave"
            )
            lend(partial(self._answer_with, attempt, worker, number, error))
            return
        try:
            demand = self._reports.suspended(attempt, structure, reply)
        except BaseException as error:  # not a task, say: the body's own mistake
            lend(partial(self._answer_with, attempt, worker, number, error))
        else:
            self._parked += not desk.demands
            desk.demands[number] = demand
            parked()

    def _reply(self, attempt: Attempt, worker: Worker, number: int, structure: Any, demand: Demand) -> None:
        if attempt.handle.demands.pop(number, None) is not None:
            self._parked -= not attempt.handle.demands
            woken()
        lend(partial(self._answer_with, attempt, worker, number, demand, structure))

    def _answer_with(
        self, attempt: Attempt, worker: Worker, number: int, outcome: Demand | BaseException, structure: Any = None
    ) -> None:
        """In a thread."""
        try:
            if isinstance(outcome, BaseException):
                raise outcome
            values = settled(outcome, structure)
            _check_reachable(attempt.task, values)
            kind, payload = "answer", _dumps_values(attempt.task, (number, (values, None)))
        except BaseException as error:
            kind, payload = "throw", dumps((number, (None, pack_error(error))))
        try:
            worker.channel.send(kind, attempt.handle.number, payload)
        except OSError:
            pass  # it has died, which its own thread hears

    def _left(self, attempt: Attempt, worker: Worker, number: int) -> None:
        self._post(self._leave, attempt, number)

    def _leave(self, attempt: Attempt, number: int) -> None:
        demand = attempt.handle.demands.pop(number, None)
        if demand is not None:
            self._parked -= not attempt.handle.demands
            woken()
            self._reports.left(attempt, demand)

    # What it says ----------------------------------------------------------------------------------------

    def _printed(self, attempt: Attempt, _: Worker, message: tuple[str, str]) -> None:
        stream, line = message
        out = getattr(sys, stream)
        try:
            print(line, file=out)
        except UnicodeEncodeError:
            print(line.encode(out.encoding, "backslashreplace").decode(out.encoding), file=out)
        except (OSError, ValueError, AttributeError) as error:  # closed, broken, or none at all
            log.debug("what %r has printed cannot be printed here: %s", attempt.task, error)
        self._reports.said(attempt, stream, 0, line)

    def _logged(self, attempt: Attempt, _: Worker, fields: dict[str, Any]) -> None:
        record = logging.makeLogRecord(fields)
        logger = logging.getLogger(record.name)
        try:
            if logger.isEnabledFor(record.levelno):
                logger.handle(record)
        except Exception:  # a filter's or a handler's own
            log.debug("what %r has logged cannot be logged here", attempt.task, exc_info=True)
        self._reports.said(attempt, record.name, record.levelno, record.getMessage())

    # Its end ---------------------------------------------------------------------------------------------

    def cancel(self, attempt: Attempt) -> None:
        desk: _Desk | None = attempt.handle
        if desk is None:  # it could not be started
            return self._reports.cancelled(attempt)
        self._parked -= bool(desk.demands)
        for _ in desk.demands:
            woken()
        desk.demands.clear()
        with self._lock:
            worker = desk.worker
            if worker is not None and desk.stopped:
                worker.kill()  # it was asked to, and has not
            elif worker is not None:
                lend(partial(_stop, worker, desk.number))
            desk.stopped = True
        return None

    def stack(self, attempt: Attempt) -> list[str]:
        worker = attempt.handle.worker
        return [] if worker is None else [f"worker process {worker.process.pid}"]


def _stop(worker: Worker, number: int) -> None:
    try:
        worker.channel.send("stop", number)
    except OSError:
        pass


def _advice(died: WorkerDied) -> str:
    if died.code == -9:
        return "if nobody has killed it, the system may have been out of memory"
    if died.code < 0:
        return "a crash in a library, most likely: run the task without runner = 'process' in a debugger"
    return "a body should raise an exception, not end the process"


# What can be sent ----------------------------------------------------------------------------------------


def unfit(node: Node) -> PlanError | None:
    """Why the body of ``node`` cannot run in a worker process; None if it can, as far as one can tell."""
    task = node.task
    if os.name == "nt":
        return PlanError(f"{task!r} has runner = 'process', which is not supported on Windows: give it no runner")
    for target in leaves(node.output):
        if target.in_process:
            return PlanError(
                f"{task!r} has runner = 'process', and {target!r} is in the memory of this process, where no other "
                "can put anything: give it a target outside, or return the value"
            )
    if type(task).__module__ in ("__main__", "__mp_main__") and not importable_main():
        return PlanError(
            f"{task!r} has runner = 'process', and its class is where no other interpreter can import it (a notebook, "
            "`python -c`, or a package's __main__): define it at the top of a module"
        )
    try:
        dumps(task)
    except Exception as problem:
        culprit = next((name for name in task._parameters if not _sendable(getattr(task, name))), None)
        if culprit is not None:
            value = getattr(task, culprit)
            what = f"its parameter {culprit!r} is a {type(value).__name__}, which cannot be pickled"
        else:
            what = f"{problem}; define the class at the top of a module"
        return PlanError(f"{task!r} has runner = 'process' and cannot be sent to a worker: {what}")
    return None


def _sendable(value: Any) -> bool:
    try:
        dumps(value)
    except Exception:
        return False
    return True


def _payload(attempt: Attempt) -> bytes:
    task = attempt.task
    inputs = attempt.engine.inputs(attempt)
    _check_reachable(task, inputs)
    key = getattr(attempt.node.output, "key", None)
    creates = key if key is not None and attempt.engine.creates(attempt, key) else None
    forced = attempt.engine.forced(attempt)
    return dumps((task, logging.getLogger().level, _dumps_values(task, inputs), creates, forced))


def _dumps_values(task: Task, values: Any) -> bytes:
    try:
        return dumps(values)
    except Exception as problem:
        raise TypeError(
            f"{task!r} has runner = 'process', and what it requires gave something that cannot be sent to a worker: "
            f"{problem}"
        ) from problem


def _check_reachable(task: Task, values: Any) -> None:
    for value in leaves(values):
        if isinstance(value, Target) and value.in_process:
            raise TypeError(
                f"{task!r} has runner = 'process', and {value!r}, which it requires, is in the memory of another "
                "process: give that task a target outside, or let it return the value"
            )
