"""The inside of a worker process: it runs one body after the other, and asks its parent for everything else.

The main thread runs the bodies, so that signals and libraries which want it find it. A second one reads what the
parent sends; when the parent is gone, it ends the process. A stop reaches an async body as a cancel, a sync one as an
exception that is raised where it stands.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import io
import json
import logging
import multiprocessing.spawn
import os
import pickle
import queue
import signal
import socket
import sys
import threading
import time
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import aclosing, suppress
from functools import partial
from itertools import count
from typing import Any, NoReturn

from .. import attempt as attempts
from .. import journal, threads
from ..attempt import Attempt, current
from ..tree import settle
from .wire import Channel, PackedError, dumps, pack_error, unpack_error

__all__ = ["main"]


PAUSE = 0.005  # seconds between two looks at whether a publish has ended

_PLAIN = (str, int, float, bool, type(None))


class _Stopped(BaseException):
    """Raised in a sync body that is to stop."""


class _Node:
    """What an attempt knows of its node, here."""

    __slots__ = ("attempt",)

    def __init__(self) -> None:
        self.attempt: Attempt | None = None


class _Process:
    """The one worker of this process; the engine of the bodies it runs."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.loop: asyncio.AbstractEventLoop | None = None  # that of an async body
        self.number = 0  # of the attempt whose body runs
        self._stopped = 0  # that of the last attempt that was to stop
        self._attempt: Attempt | None = None
        self._inputs: bytes = b""
        self._creates: str | None = None
        self._forced = False
        self._runs: queue.SimpleQueue[tuple[int, bytes]] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[tuple[str, bytes]] = queue.SimpleQueue()  # to a sync body
        self._waiting: dict[int, asyncio.Future[Any]] = {}  # of an async one
        self._numbers = count(1)
        self._main: dict[str, str] = {}
        self._interruptible = False
        self._sending = 0  # frames that the main thread is in the middle of
        self._due = False  # a stop, as soon as it is not
        self._task: asyncio.Task[Any] | None = None
        self._out: list[_Lines] = []
        self._folder = os.getcwd()
        self._umask = os.umask(0o77)
        os.umask(self._umask)

    # The thread that reads -----------------------------------------------------------------------------

    def listen(self) -> NoReturn:
        """Deal out what comes, until the parent is gone."""
        try:
            while True:
                kind, number, payload = self.channel.receive()
                if kind == "run":
                    self._runs.put((number, payload))
                elif kind == "main":
                    self._main = json.loads(payload)
                elif kind == "stop":
                    self._stopped = number  # also of a body that has not been begun: it will not be
                    if number == self.number:
                        self._stop()
                elif number == self.number:
                    loop = self.loop
                    if loop is not None:
                        with suppress(RuntimeError):
                            loop.call_soon_threadsafe(self._resolve, kind, payload)
                    else:
                        self._answers.put((kind, payload))
        except EOFError:
            pass
        finally:
            journal.leave()
            if self.number:  # with what its body has started
                os.killpg(0, signal.SIGKILL)
            os._exit(0)

    def _stop(self) -> None:
        attempt = self._attempt
        if attempt is not None:
            attempt.fence()
        task, loop = self._task, self.loop
        if task is not None and loop is not None:
            with suppress(RuntimeError):  # it has been closed in this moment: the body has ended
                loop.call_soon_threadsafe(task.cancel)
        elif attempt is not None and attempt.publishing:
            threading.Thread(target=self._stop_after_publish, args=(attempt, self.number), daemon=True).start()
        else:
            self._signal()

    def _stop_after_publish(self, attempt: Attempt, number: int) -> None:
        """It has been fenced, so no other publish begins; one that is cut in two would be neither done nor undone."""
        while attempt.publishing:
            time.sleep(PAUSE)
        if number == self.number:
            self._signal()

    def _signal(self) -> None:
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)

    def interrupted(self, *_: Any) -> None:
        """SIGTERM: the stop of a sync body if that was asked for, else what it always is."""
        if self._stopped != self.number or not self.number:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.raise_signal(signal.SIGTERM)
        elif self._sending:
            self._due = True  # half a frame would be the last that anybody understands
        elif self._interruptible:
            self._interruptible = False
            raise _Stopped

    def _send(self, kind: str, payload: bytes) -> None:
        """Tell the parent something of the body that runs."""
        number = self.number
        if not number:
            return None
        if threading.current_thread() is not threading.main_thread():
            return self.channel.send(kind, number, payload)
        self._sending += 1
        try:
            self.channel.send(kind, number, payload)
        finally:
            self._sending -= 1
            if self._due and not self._sending:
                self._due = False
                if self._interruptible:
                    self._interruptible = False
                    raise _Stopped
        return None

    # The main thread -----------------------------------------------------------------------------------

    def serve(self) -> NoReturn:
        """Run bodies, one after the other."""
        while True:
            number, payload = self._runs.get()
            self._tidy()
            self.number = number
            frame = self._outcome(number, payload)
            for out in self._out:
                out.end()
            self.number = 0
            self._due = False
            self._attempt = self._task = None
            while not self._answers.empty():
                self._answers.get()
            try:
                self.channel.send(*frame)
            except OSError:
                os._exit(0)
            del frame, payload

    def _tidy(self) -> None:
        """What a body has changed for the whole process is not there for the next one."""
        sys.stdout, sys.stderr = self._out
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, self.interrupted)
        os.umask(self._umask)
        with suppress(OSError):  # it may be gone
            os.chdir(self._folder)

    def _outcome(self, number: int, payload: bytes) -> tuple[str, int, bytes]:
        task: Any = None
        if self._stopped == number:
            return "stopped", number, b""
        try:
            task, level, self._inputs, self._creates, self._forced = self._load(payload)
            logging.getLogger().setLevel(level)
            value, published, lost = self._run(task)
        except (_Stopped, asyncio.CancelledError) as stop:
            self._interruptible = False
            if self._stopped == number:
                return "stopped", number, b""
            return "failed", number, dumps(pack_error(stop, place=self.place))
        except BaseException as error:
            self._interruptible = False
            return "failed", number, dumps(pack_error(error, place=self.place))
        try:
            return "done", number, dumps((value, published, lost))
        except Exception as problem:
            wrong = TypeError(
                f"{task!r}: run() returned a value ({type(value).__name__}) that cannot be sent from its worker "
                f"process: {problem}; return plain data, or write it to an output()"
            )
            return "failed", number, dumps(pack_error(wrong))

    @property
    def place(self) -> str:
        return f"worker process {os.getpid()}"

    def _load(self, payload: bytes) -> Any:
        try:
            if b"__main__" in payload and self._main:
                main, self._main = self._main, {}
                attempts.preparing = True
                try:
                    multiprocessing.spawn.prepare(main)
                finally:
                    attempts.preparing = False
            return pickle.loads(payload)
        except Exception as error:
            raise ImportError(
                f"this task cannot be loaded in a worker process: {type(error).__name__}: {error}; its class has to be "
                "in a module that can be imported there"
            ) from error

    def _run(self, task: Any) -> tuple[Any, set[str | None] | None, set[str] | None]:
        node = _Node()
        attempt = self._attempt = node.attempt = Attempt(task, self, node)
        if self._stopped == self.number:  # since nobody could have fenced it yet
            raise _Stopped
        context = contextvars.copy_context()
        context.run(current.set, attempt)
        kind = task._definition.body
        try:
            if kind in ("coroutine", "async generator"):
                value = context.run(self._run_async, task.run() if kind == "coroutine" else self._steps(task.run()))
            else:
                value = context.run(self._run_sync, attempt, kind)
                if inspect.iscoroutine(value):
                    value = context.run(self._run_async, value)
        finally:
            attempt.fence()  # what it has left behind publishes nothing any more
            node.attempt = None
        return value, attempt.published, attempt.lost

    def _run_sync(self, attempt: Attempt, kind: str) -> Any:
        try:
            self._interruptible = True
            if self._stopped == self.number:
                raise _Stopped
            value = attempt.task.run()
            if kind == "generator":
                value = self._sync_steps(attempt, value)
        finally:
            self._interruptible = False
        return value

    def _sync_steps(self, attempt: Attempt, body: Generator[Any, Any, Any]) -> Any:
        try:
            structure = next(body)
            while True:
                try:
                    values = self.require(attempt, structure)
                except Exception as error:
                    structure = body.throw(error)
                else:
                    structure = body.send(values)
        except StopIteration as end:
            return end.value
        finally:
            body.close()

    def _run_async(self, body: Any) -> Any:
        async def conduct() -> Any:
            self.loop = asyncio.get_running_loop()
            self._task = asyncio.current_task()
            if self._stopped == self.number and self._task is not None:
                self._task.cancel()
            try:
                return await body
            finally:
                self._task = self.loop = None

        with asyncio.Runner() as runner:
            return runner.run(conduct(), context=contextvars.copy_context())

    async def _steps(self, body: AsyncGenerator[Any, Any]) -> None:
        attempt = self._attempt
        assert attempt is not None
        async with aclosing(body):
            try:
                structure = await anext(body)
                while True:
                    try:
                        values = await self.request(attempt, structure)
                    except Exception as error:
                        structure = await body.athrow(error)
                    else:
                        structure = await body.asend(values)
            except StopAsyncIteration:
                return

    # What a body may ask (attempt.Engine) ----------------------------------------------------------------

    def inputs(self, attempt: Attempt) -> Any:
        return pickle.loads(self._inputs)

    def progress(self, attempt: Attempt, fraction: float, message: str) -> None:
        self._tell("progress", (fraction, message))

    def creates(self, attempt: Attempt, key: str) -> bool:
        return key == self._creates

    def forced(self, attempt: Attempt) -> bool:
        return self._forced

    def awaits(self, attempt: Attempt, other: Attempt) -> bool:
        return False  # there is one body at a time

    def require(self, attempt: Attempt, structure: Any) -> Any:
        """In the main thread: what the tasks in ``structure`` give."""
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError(f"{attempt.task!r}: require() was called in a thread that is not its body's own")
        self._ask(next(self._numbers), structure)
        kind, payload = self._answers.get()
        return _read(kind, payload)

    async def request(self, attempt: Attempt, structure: Any) -> Any:
        number = next(self._numbers)
        future = self._waiting[number] = asyncio.get_running_loop().create_future()
        try:
            self._ask(number, structure)
            kind, payload = await future
        except asyncio.CancelledError:
            self._tell("leave", number)
            raise
        finally:
            del self._waiting[number]
        return _read(kind, payload)

    async def ask(self, attempt: Attempt, structure: Any) -> tuple[Any, Any]:
        raise RuntimeError(
            f"{attempt.task!r} runs in a worker process, where build() has no build to join: await the tasks, or gather"
        )

    async def exist(self, attempt: Attempt, targets: Sequence[Any]) -> list[bool | BaseException]:
        raise NotImplementedError("outputs are confirmed by the parent")

    def _ask(self, number: int, structure: Any) -> None:
        structure = settle(structure)
        try:
            payload = dumps((number, structure))
        except Exception as problem:
            raise TypeError(
                f"a body in a worker process waits for {structure!r}, which cannot be sent to its build: {problem}"
            ) from problem
        self._send("ask", payload)

    def _resolve(self, kind: str, payload: bytes) -> None:
        number, rest = pickle.loads(payload)
        future = self._waiting.get(number)
        if future is not None and not future.done():
            future.set_result((kind, dumps((number, rest))))

    def _tell(self, kind: str, value: Any) -> None:
        self._send(kind, dumps(value))

    def said(self, stream: str, text: str) -> None:
        """A body has printed a line."""
        self._tell("print", (stream, text))

    def logged(self, record: logging.LogRecord) -> None:
        """A body has logged something."""
        fields = dict(record.__dict__, msg=record.getMessage(), args=None)
        if record.exc_info:
            fields["exc_text"] = logging.Formatter().formatException(record.exc_info)
        fields["exc_info"] = None
        # What somebody has put on it may not be readable there: plain values go as they are, others as they show.
        self._tell("log", {name: value if type(value) in _PLAIN else repr(value) for name, value in fields.items()})


def _read(kind: str, payload: bytes) -> Any:
    _, (good, bad) = pickle.loads(payload)
    if kind == "throw":
        raise unpack_error(PackedError(*bad))
    return good


class _Lines(io.TextIOBase):
    """``sys.stdout`` of the bodies: their build gets what they print, line by line."""

    def __init__(self, process: _Process, name: str, real: Any) -> None:
        self._process = process
        self._name = name
        self._real = open(os.devnull, "w", encoding="utf-8") if real is None else real  # noqa: SIM115
        self._lock = threading.Lock()
        self._begun = ""
        self.buffer = self._real.buffer  # bytes go where they always went

    encoding = "utf-8"

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return int(self._real.fileno())

    def write(self, text: str) -> int:
        with self._lock:
            lines = (self._begun + text).split("\n")
            self._begun = lines.pop()
        for line in lines:
            self._process.said(self._name, line)
        return len(text)

    def end(self) -> None:
        """A body has ended: what it has begun is a line, too."""
        with self._lock:
            line, self._begun = self._begun, ""
        if line:
            self._process.said(self._name, line)


class _Forward(logging.Handler):
    def __init__(self, process: _Process) -> None:
        super().__init__()
        self._process = process

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._process.logged(record)
        except Exception:
            self.handleError(record)


def _forked(channel: Channel, stdout: Any, stderr: Any) -> None:
    """A child of a body: a copy of the socket would hide the end of this process from the parent."""
    channel.socket.close()
    sys.stdout, sys.stderr = stdout, stderr
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def main() -> NoReturn:
    """The program of a worker: ``argv`` is the number of its socket, and its parent's ``sys.path``."""
    channel = Channel(socket.socket(fileno=int(sys.argv[1])))
    channel.socket.set_inheritable(False)  # not for what the bodies start
    sys.argv = [""]
    process = _Process(channel)
    os.register_at_fork(after_in_child=partial(_forked, channel, sys.stdout, sys.stderr))
    process._out = [_Lines(process, name, getattr(sys, name)) for name in ("stdout", "stderr")]
    process._tidy()
    logging.getLogger().addHandler(_Forward(process))
    threads.lend(process.listen)
    process.serve()
