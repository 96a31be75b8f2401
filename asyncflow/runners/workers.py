"""Worker processes: started when one is needed, used again, sent home when no build and no flow is left.

They are interpreters of their own (never a fork of this one, which has threads), in a process group of their own:
Ctrl-C in a terminal reaches this process alone, which stops them; killing one takes its children with it. When this
process is gone, however it went, their socket is closed, and they go too.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import weakref
from contextlib import suppress
from functools import partial
from typing import Any

from .. import healing
from ..errors import WorkerDied
from ..threads import lend
from .wire import Channel

__all__ = ["Worker", "give_back", "importable_main", "keep", "release", "take"]

PATIENCE = 1.0
"""Seconds a worker that is sent home has for going."""

_BOOT = "import json, sys; sys.path[:] = json.loads(sys.argv[2]); from asyncflow.runners.worker import main; main()"

_lock = threading.RLock()  # an owner may be collected while it is held
_idle: list[Worker] = []
_keepers: dict[int, weakref.ref[Any]] = {}  # executors and flows for which idle ones are kept, by id
_channels: weakref.WeakSet[Channel] = weakref.WeakSet()


class Worker:
    """One process. Raises ``OSError`` where none can be started, ``WorkerDied`` for one that ends at once."""

    def __init__(self) -> None:
        ours, end = socket.socketpair()
        # Not one of the first three, which it may be where they are closed: there it would be another thing.
        theirs = socket.socket(fileno=fcntl.fcntl(end.fileno(), fcntl.F_DUPFD_CLOEXEC, 3))
        end.close()
        with theirs:
            # Not the flags of this interpreter's command line alone: -W and -X, too.
            flags: list[str] = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
            try:
                self.process = subprocess.Popen(
                    [sys.executable, *flags, "-P", "-c", _BOOT, str(theirs.fileno()), json.dumps(sys.path)],
                    stdin=subprocess.DEVNULL,
                    pass_fds=[theirs.fileno()],
                    process_group=0,
                )
            except BaseException:
                ours.close()
                raise
        self.channel = Channel(ours)
        self.ended = False  # its process, or what is left of it, has been waited for
        _channels.add(self.channel)
        self.send("main", 0, json.dumps(_main()).encode())

    def send(self, kind: str, number: int, payload: bytes = b"") -> None:
        """Send it a frame. Raises ``WorkerDied``."""
        try:
            self.channel.send(kind, number, payload)
        except OSError:
            raise self._died() from None

    def receive(self) -> tuple[str, int, bytes]:
        """The next frame from it. Raises ``WorkerDied``."""
        try:
            return self.channel.receive()
        except (EOFError, OSError):
            raise self._died() from None

    def _died(self) -> WorkerDied:
        self.end()
        code = self.process.returncode
        if code >= 0:
            how = f"exited with code {code}"
        else:
            try:
                how = f"was killed by {signal.Signals(-code).name}"
            except ValueError:
                how = f"was killed by signal {-code}"
        return WorkerDied(f"its worker process {self.process.pid} {how}", code)

    def kill(self) -> None:
        """End it now, with all processes it has started that are still in its group."""
        if self.process.returncode is None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, signal.SIGKILL)

    def end(self) -> None:
        """Send it home, and wait until it has gone. In a thread."""
        if self.ended:
            return
        self.ended = True
        self.channel.close()
        deadline = time.monotonic() + PATIENCE
        while not self._has_exited():
            if time.monotonic() > deadline:
                self.kill()
            time.sleep(0.002)
        self.kill()  # what its bodies have started
        self.process.wait()
        if self.process.returncode < 0:  # what its body had begun is there, and nobody's
            with suppress(OSError):
                healing.clean()

    @property
    def alive(self) -> bool:
        """Whether it can be used again."""
        return not self.ended and not self._has_exited()

    def _has_exited(self) -> bool:
        """Whether it has; not waited for, so that its number, which is that of its group, is nobody else's yet."""
        if self.process.returncode is not None:
            return True
        if sys.platform == "darwin":  # where Python has no waitid
            return self.process.poll() is not None
        try:
            return os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        except ChildProcessError:  # somebody waits for all children of this process
            return True


def _main() -> dict[str, str]:
    """How a worker gets at the classes of ``__main__``, in the words of ``multiprocessing.spawn.prepare``."""
    main = sys.modules["__main__"]
    # What comes back from there calls it by this name.
    sys.modules.setdefault("__mp_main__", main)
    name = getattr(getattr(main, "__spec__", None), "name", None)
    if name is not None:
        return {"init_main_from_name": name}
    path = getattr(main, "__file__", None)
    return {} if path is None else {"init_main_from_path": os.path.abspath(path)}


def importable_main() -> bool:
    """Whether a worker gets at the classes of ``__main__``: not of a notebook, of ``-c``, or of a package's own."""
    main = _main()
    name, path = main.get("init_main_from_name"), main.get("init_main_from_path")
    return not name.endswith("__main__") if name is not None else path is not None and os.path.isfile(path)


def take() -> Worker:
    """A worker for one body: an idle one, or a new one. In a thread. Raises ``OSError``."""
    while True:
        with _lock:
            worker = _idle.pop() if _idle else None
        if worker is None:
            return Worker()
        if worker.alive:
            return worker
        worker.end()


def give_back(worker: Worker, most: int) -> None:
    """The body has ended; ``most`` idle workers are enough. In a thread."""
    if worker.alive:
        with _lock:
            kept = bool(_keepers) and len(_idle) < most
            if kept:
                _idle.append(worker)
        if kept:
            return
    worker.end()


def keep(owner: object) -> None:
    """Idle workers are kept as long as ``owner`` lives, or until ``release(owner)``."""
    number = id(owner)
    with _lock:
        if number not in _keepers:
            _keepers[number] = weakref.ref(owner, lambda _: _release(number))


def release(owner: object) -> None:
    """``owner`` needs none any more; the last one sends the idle ones home."""
    _release(id(owner))


def _release(number: int) -> None:
    with _lock:
        _keepers.pop(number, None)
        leaving = [] if _keepers else _idle[:]
        if leaving:
            _idle.clear()
    for worker in leaving:
        try:
            lend(partial(Worker.end, worker))
        except RuntimeError:  # no thread to be had
            worker.channel.close()


def _forked() -> None:
    # The workers are the parent's. A copy of its socket here would keep them alive after it.
    global _lock
    _lock = threading.RLock()
    _idle.clear()
    _keepers.clear()
    for channel in list(_channels):
        channel.socket.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
