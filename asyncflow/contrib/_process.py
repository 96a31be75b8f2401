"""One program and whatever it starts: a process group, from its spawn until nothing of it is left.

``subprocess.Popen`` on the loop, its pipes by ``add_reader``, its end by a pidfd; no thread, no child watcher, and
no suspension between the spawn and the moment somebody answers for the process. ``asyncio.create_subprocess_exec``
has several: cancelled there, it kills the program alone, not what that has started, and a second cancel leaves it
unreaped. To fork and exec takes 0.2-1 ms and holds the interpreter in whatever thread it is done.

The program is found dead before it is reaped (where the system can say so). As long as it is not reaped its number
is its own, so a signal to the group cannot reach a stranger's.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import IO, Any

from ..targets._hops import HOP
from ..threads import lend

__all__ = ["Group", "StatusLost"]

LINE_READ = 4096
"""Bytes of a log stream read at once: 4,096 bytes hold up to 4,096 lines, each of which is a call of ``logging``."""


class StatusLost(Exception):
    """Somebody else has reaped the program: how it ended cannot be known."""


class Group:
    """A program in a session, and so a process group, of its own. It runs when the constructor returns.

    ``stdout``: None, or what is called with each piece of it; without it, it is read by ``read()``. ``stderr`` is
    called with each piece of standard error. Raises what ``subprocess.Popen`` raises; nothing is left then.
    """

    def __init__(
        self,
        args: Sequence[str],
        *,
        env: Mapping[str, str] | None,
        cwd: str | None,
        stdin: IO[bytes] | bytes | None,
        stdout: Callable[[bytes], object] | None,
        stderr: Callable[[bytes], object],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._process = subprocess.Popen(
            args,
            bufsize=0,
            env=env,
            cwd=cwd,
            stdin=subprocess.PIPE if isinstance(stdin, bytes) else stdin or subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        self.pid = self._process.pid
        self.exited = False  # and not yet reaped, where the system can tell one from the other
        self._reaped = False
        self._status: int | None = None
        self._closed = False
        self._changed = asyncio.Event()
        self.last = self._loop.time()  # when something last came or ended
        self._open: dict[int, IO[bytes]] = {}  # our ends of its output, by descriptor
        self._pidfd: int | None = None
        self._out = -1
        self._chunks: list[bytes] = []
        self._waiting = 0  # bytes in there
        try:
            self._watch()
            self._out = self._listen(self._process.stdout, stdout or self._keep, LINE_READ if stdout else HOP)
            self._listen(self._process.stderr, stderr, LINE_READ)
            if isinstance(stdin, bytes):
                self._feed(stdin)
        except BaseException:
            self.close()
            raise

    # Its end -----------------------------------------------------------------------------------------

    def _watch(self) -> None:
        """Be told when the program has ended: by a pidfd, or where there is none by a thread that waits."""
        try:
            self._pidfd = os.pidfd_open(self.pid)
        except ProcessLookupError:  # ended, and reaped by the system: the host ignores SIGCHLD
            self._has_exited()
        except (AttributeError, OSError):
            lend(partial(_wait_in_thread, self._loop, self.pid, self._heard))
        else:
            self._loop.add_reader(self._pidfd, self._has_exited)

    def _heard(self, status: int | None, reaped: bool) -> None:
        if reaped:
            self._reaped, self._status = True, status
            self._process.returncode = 0  # known here; it must not look for it again
        self._has_exited()

    def _has_exited(self) -> None:
        if self._pidfd is not None:
            self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = None
        self.exited = True
        self.last = self._loop.time()
        self._changed.set()
        if self._closed:
            self._bury()

    def signal(self, number: int) -> None:
        """Send signal ``number`` to the program and all that is left of its group. Nothing once it is closed."""
        if self._closed:
            return
        try:
            os.killpg(self.pid, number)
        except (ProcessLookupError, PermissionError):  # nobody left; macOS says EPERM where only the dead are
            pass

    def reap(self) -> int:
        """The exit code of a program that has exited, negative for a signal. Raises ``StatusLost``."""
        if not self._reaped:
            self._reaped = True
            try:
                self._status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
            except ChildProcessError:
                pass
            self._process.returncode = 0
        if self._status is None:
            raise StatusLost
        return self._status

    # Its output and input ----------------------------------------------------------------------------

    def _listen(self, pipe: IO[bytes] | None, take: Callable[[bytes], object], most: int) -> int:
        assert pipe is not None
        fd = pipe.fileno()
        os.set_blocking(fd, False)
        self._open[fd] = pipe
        self._loop.add_reader(fd, self._readable, fd, take, most)
        return fd

    def _readable(self, fd: int, take: Callable[[bytes], object], most: int) -> None:
        try:
            data = os.read(fd, most)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        self.last = self._loop.time()
        if data:
            take(data)
        else:
            self._loop.remove_reader(fd)
            self._open.pop(fd).close()
            take(b"")
            self._changed.set()

    def _keep(self, data: bytes) -> None:
        """Standard output that is to be read: at most a hop and one read of it are held, then the program waits."""
        self._chunks.append(data)
        self._waiting += len(data)
        if self._waiting >= HOP and self.talking:
            self._loop.remove_reader(self._out)
        self._changed.set()

    def take(self) -> bytes:
        """What has come of standard output since the last call."""
        data = b"".join(self._chunks)
        self._chunks.clear()
        if self._waiting >= HOP and self.talking:
            self._loop.add_reader(self._out, self._readable, self._out, self._keep, HOP)
            self.last = self._loop.time()  # what came while nobody read is only seen from now on
        self._waiting = 0
        return data

    def _discard(self) -> None:
        """From now on standard output is dropped as it comes, so that a program that is to end can."""
        self._chunks.clear()
        if self.talking:
            self._loop.add_reader(self._out, self._readable, self._out, _drop, HOP)

    def _feed(self, data: bytes) -> None:
        assert self._process.stdin is not None
        fd = self._process.stdin.fileno()
        os.set_blocking(fd, False)
        self._loop.add_writer(fd, self._writable, fd, memoryview(data))

    def _writable(self, fd: int, rest: memoryview) -> None:
        try:
            rest = rest[os.write(fd, rest[:HOP]) :]
        except (BlockingIOError, InterruptedError):
            return
        except OSError:  # it does not read all it is given: head does not, and that is no error
            rest = rest[:0]
        if rest:
            self._loop.add_writer(fd, self._writable, fd, rest)
        else:
            self._end_input()

    def _end_input(self) -> None:
        if self._process.stdin is not None and not self._process.stdin.closed:
            self._loop.remove_writer(self._process.stdin.fileno())
            self._process.stdin.close()

    # Waiting and ending ------------------------------------------------------------------------------

    @property
    def talking(self) -> bool:
        """Whether somebody may still write to its standard output."""
        return self._out in self._open

    @property
    def silent(self) -> bool:
        """Whether nobody holds its standard output and error any more."""
        return not self._open

    def idle(self) -> float:
        """Seconds since something last came or ended."""
        return self._loop.time() - self.last

    async def change(self, deadline: float | None = None) -> None:
        """Wait until something has come or has ended, or it is ``deadline``, a time of the loop."""
        timer = None if deadline is None else self._loop.call_at(deadline, self._changed.set)
        try:
            await self._changed.wait()
            self._changed.clear()
        finally:
            if timer is not None:
                timer.cancel()

    async def stop(self, patience: float) -> None:
        """End the whole group: SIGTERM, SIGKILL after ``patience`` seconds; returns when the program is reaped."""
        if self._closed:
            return
        self._end_input()
        self._discard()
        if not (self.exited and self.silent):
            self.signal(signal.SIGTERM)
            deadline = self._loop.time() + patience
            while not (self.exited and self.silent) and self._loop.time() < deadline:
                await self.change(deadline)
        self.signal(signal.SIGKILL)
        while not self.exited:
            await self.change()
        self.close()

    def close(self) -> None:
        """Let go of everything. What still lives of the group is killed; nothing is waited for but the dead."""
        if not self._reaped:
            self.signal(signal.SIGKILL)
        self._closed = True
        self._end_input()
        for fd, pipe in self._open.items():
            self._loop.remove_reader(fd)
            pipe.close()
        self._open.clear()
        if self._pidfd is not None:
            self._has_exited()
        elif self.exited:  # else there is a thread that waits, and tells
            self._bury()

    def _bury(self) -> None:
        try:
            self.reap()
        except StatusLost:
            pass


def _drop(data: bytes) -> None:
    pass


def _wait_in_thread(loop: asyncio.AbstractEventLoop, pid: int, heard: Callable[[int | None, bool], Any]) -> None:
    """Tell ``heard`` on the loop when process ``pid`` has ended."""
    status: int | None = None
    reaped = True
    try:
        if hasattr(os, "waitid"):
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
            reaped = False
        else:  # macOS before Python 3.13: reaped as it is found
            status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    except ChildProcessError:
        pass
    try:
        loop.call_soon_threadsafe(heard, status, reaped)
    except RuntimeError:  # the loop is closed: nobody is interested any more
        pass
