"""Programs as tasks: ``ProgramTask``, and ``run_program`` for any async body.

A program runs in a process group of its own and without a shell. What it prints goes into a target that is
published if it ends well, or line by line to the log ``asyncflow.program`` while it runs. When its body is
cancelled, or its time is over, the whole group is ended before the body is.
"""

from __future__ import annotations

import errno
import inspect
import logging
import os
import re
import shlex
import signal
from collections import deque
from collections.abc import Callable, Container, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import IO, Any, ClassVar, Literal, Protocol, TypeAlias

from .._task import Task
from ..attempt import current
from ..errors import AsyncflowError
from ..shield import finish
from ..targets._hops import in_thread
from ..tree import leaves
from ._process import Group, StatusLost

__all__ = ["KILL_AFTER", "ProgramError", "ProgramNotStarted", "ProgramTask", "run_program"]

KILL_AFTER = 0.5
"""Seconds between SIGTERM and SIGKILL: below the ``grace`` of a build, which is 1."""

TAIL_LINES, TAIL = 50, 8192  # of standard error, kept for the error that may come
LINE = 8192  # bytes; a longer line is told in pieces
COMMAND = 500  # characters of a command line in a message

log = logging.getLogger("asyncflow.program")

Argument: TypeAlias = "str | int | float | os.PathLike[str]"


class Writable(Protocol):
    """Takes the pieces of an output: ``io.BytesIO``, a handle of ``target.open("wb")``."""

    def write(self, data: bytes, /) -> Any:
        """Take ``data``; may be awaitable."""


class Openable(Protocol):
    """A target that is published whole: ``LocalTarget``."""

    def open(self, mode: Literal["wb"]) -> AbstractAsyncContextManager[Writable]:
        """Open for ``async with``; leaving the block normally publishes."""
        ...


class ProgramError(Exception):
    """A program has not ended as it should. Worth another attempt, if its task has ``retries``."""

    command: str
    """Its command line, quoted for a shell, shortened, without what was to be hidden."""
    returncode: int | None
    """Its exit code; negative for the number of a signal; None if it never started or nobody knows."""
    stderr: tuple[str, ...]
    """The last lines of its standard error: at most 50, and 8 kB."""

    def __init__(
        self, message: str, command: str = "", returncode: int | None = None, stderr: Iterable[str] = ()
    ) -> None:
        super().__init__(message)
        self.command = command
        self.returncode = returncode
        self.stderr = tuple(stderr)


class ProgramNotStarted(AsyncflowError, ProgramError):
    """It is not there, cannot be executed, or its working folder is not there: another attempt would not help."""

    exit_code = 1


async def run_program(
    *args: Argument,
    env: Mapping[str, Argument] | None = None,
    cwd: str | os.PathLike[str] | None = None,
    stdin: bytes | str | os.PathLike[str] | None = None,
    stdout: Openable | Writable | None = None,
    success_codes: Container[int] = (0,),
    kill_after: float = KILL_AFTER,
    hide: Iterable[str] = (),
) -> int:
    """Run the program ``args[0]`` with the arguments after it, without a shell, and give its exit code.

    When the caller is cancelled, the program and all it has started get SIGTERM, SIGKILL ``kill_after`` seconds
    later, and have been reaped when this raises the cancel. What is left of its process group when it has ended
    by itself is killed too; what then still holds its output open has ``kill_after`` silent seconds to end.

    Args:
        args: strings, paths and numbers.
        env: its whole environment, ``{**os.environ, "PGUSER": "me"}``; by default that of this process.
        cwd: the folder it runs in.
        stdin: bytes, or a string to be sent as UTF-8, or the path of a file (a ``LocalTarget`` is one); a string is
            no path. By default it finds its input empty.
        stdout: where its output goes, in pieces: a target, which is published if the program ends well, or what has
            a ``write(bytes)``, like ``io.BytesIO()``. By default it is logged, as standard error always is.
        success_codes: exit codes that are none of an error.
        kill_after: seconds; more than a build's ``grace`` is of no use, unless that is more too.
        hide: what messages and log lines show as ``***``. The list of processes shows arguments to everybody.

    Raises ``ProgramError`` if it ends in another way, ``ProgramNotStarted`` if there is nothing to run, ``TypeError``
    and ``ValueError`` for arguments that no program can have, ``OSError`` of ``stdin`` and ``stdout``.
    """
    if not args:
        raise ValueError("run_program() needs the name of a program: run_program('ls', '-l')")
    run = _Run([_text(arg, "an argument") for arg in args], env, cwd, success_codes, kill_after, hide)
    kept: list[IO[bytes]] = []
    try:
        given: IO[bytes] | bytes | None
        if isinstance(stdin, os.PathLike):
            await in_thread(_opened, os.fspath(stdin), kept)
            given = kept[0]
        else:
            given = stdin.encode() if isinstance(stdin, str) else stdin
        opener = getattr(stdout, "open", None)
        if opener is None:
            return await run.to_end(given, stdout)
        async with opener("wb") as handle:
            return await run.to_end(given, handle)
    finally:
        for file in kept:
            file.close()


class ProgramTask(Task):
    """A task that is a program: a subclass says ``program_args()``, and what else it wants of the other methods.

    ``output()`` is made by the program in one of two ways. With ``stdout_to = "output"`` it is what the program
    prints. Or ``program_args()`` names the target (``["sort", "-o", self.output()]``, the target itself and not its
    path): the program is given a private path in its place, and what it leaves there is published if it ends well.

    Values of hidden parameters are shown as ``***`` in messages and in the log, as in the task's own name.
    """

    stdout_to: ClassVar[Literal["log", "output"]] = "log"
    """Where standard output goes: line by line to the log, or into the one target that is the task's output."""
    success_codes: ClassVar[Container[int]] = (0,)
    """Exit codes that are none of an error."""
    kill_after: ClassVar[float] = KILL_AFTER
    """Seconds between SIGTERM and SIGKILL when the task is stopped; more needs a build with more ``grace``."""

    def program_args(self) -> Iterable[Any]:
        """The program and its arguments: strings, paths, numbers, and targets of ``output()``."""
        raise NotImplementedError(f"{type(self).__name__} needs program_args(): return ['program', 'argument', ...]")

    def program_environment(self) -> Mapping[str, Argument]:
        """Its whole environment, as in Luigi: a copy of that of this process, to be added to."""
        return dict(os.environ)

    def program_cwd(self) -> str | os.PathLike[str] | None:
        """The folder it runs in; by default that of this process."""
        return None

    def program_stdin(self) -> bytes | str | os.PathLike[str] | None:
        """Its standard input: bytes, a string of text, or a file; by default nothing."""
        return None

    async def run(self) -> None:
        """Run the program. Raises ``ProgramError`` and whatever else ``run_program`` does."""
        output = self.output()
        stdout = None
        if self.stdout_to == "output":
            stdout = output
            if not hasattr(output, "open"):
                raise TypeError(f"{self!r} has stdout_to = 'output', and its output() is {output!r}, not one target")
        elif self.stdout_to != "log":
            raise ValueError(f"{self!r} has stdout_to = {self.stdout_to!r}; write 'log' or 'output'")
        async with AsyncExitStack() as drafts:
            paths: dict[Any, str] = {}
            for target in leaves(output):
                if hasattr(target, "temporary_path"):
                    paths[target] = ""
            args = []
            for arg in self.program_args():
                if isinstance(arg, os.PathLike) and arg in paths:
                    paths[arg] = paths[arg] or await drafts.enter_async_context(arg.temporary_path())  # type: ignore[attr-defined]
                    args.append(paths[arg])
                else:
                    args.append(arg)
            await run_program(
                *args,
                env=self.program_environment(),
                cwd=self.program_cwd(),
                stdin=self.program_stdin(),
                stdout=stdout,
                success_codes=self.success_codes,
                kill_after=self.kill_after,
                hide=_hidden(self),
            )


# One run -------------------------------------------------------------------------------------------------


class _Run:
    """What one run is told, and what its messages need."""

    def __init__(
        self,
        args: list[str],
        env: Mapping[str, Argument] | None,
        cwd: str | os.PathLike[str] | None,
        success_codes: Container[int],
        kill_after: float,
        hide: Iterable[str],
    ) -> None:
        if not isinstance(kill_after, (int, float)) or not kill_after >= 0:
            raise ValueError(f"kill_after={kill_after!r}: expected seconds, 0 or more")
        self.args = args
        self.env = None if env is None else {name: _text(value, f"env[{name!r}]") for name, value in env.items()}
        self.cwd = None if cwd is None else os.fspath(cwd)
        self.success_codes = success_codes
        self.kill_after = kill_after
        attempt = current.get()
        self.task = None if attempt is None else attempt.task
        secrets = {*hide, *(() if self.task is None else _hidden(self.task))} - {""}
        self.secrets = sorted(secrets, key=len, reverse=True)  # one may be a part of another
        self.command = self._command()
        self.name = os.path.basename(args[0]) if self.task is None else repr(self.task)
        self.tail: deque[str] = deque()
        self.tail_size = 0

    def _command(self) -> str:
        whole = {secret for secret in self.secrets if len(secret) < 4}  # shorter ones are in many an innocent word
        text = shlex.join("***" if arg in whole else self._masked(arg) for arg in self.args).replace("'***'", "***")
        return text if len(text) <= COMMAND else f"{text[: COMMAND - 100]} [...] {text[-90:]}"

    def _masked(self, text: str) -> str:
        for secret in self.secrets:
            if len(secret) >= 4:
                text = text.replace(secret, "***")
        return text

    async def to_end(self, stdin: IO[bytes] | bytes | None, sink: Any) -> int:
        group = self._started(stdin, log_stdout=sink is None)
        try:
            if not await self._attend(group, sink):
                half = sink is not None and group.talking
                await finish(group.stop(self.kill_after))
                message = "had ended, and what it had started still held its output open"
                if half:
                    raise self._error(f"{message}, so it may not be whole; let it wait for what it starts")
                log.warning("%s: %s %s; it has been killed", self.name, self.command, message)
            group.signal(signal.SIGKILL)
            return self._verdict(group)
        except GeneratorExit:  # the loop is gone: nothing can be awaited any more
            raise
        except BaseException:
            await finish(group.stop(self.kill_after))
            raise
        finally:
            group.close()

    def _started(self, stdin: IO[bytes] | bytes | None, *, log_stdout: bool) -> Group:
        try:
            group = Group(
                self.args,
                env=self.env,
                cwd=self.cwd,
                stdin=stdin,
                stdout=_Lines(self._printed) if log_stdout else None,
                stderr=_Lines(self._complained),
            )
        except OSError as error:
            raise self._not_started(error) from error
        log.info("%s: runs %s, pid %d", self.name, self.command, group.pid, extra={"task": self.task})
        return group

    async def _attend(self, group: Group, sink: Any) -> bool:
        """Carry its output to ``sink`` until all has come; False: it has exited, and nobody ends the output."""
        while True:
            if data := group.take():
                written = sink.write(data)
                if inspect.isawaitable(written):
                    await written
            elif group.exited and group.silent:
                return True
            elif group.exited and group.idle() >= self.kill_after:
                return False
            else:
                await group.change(group.last + self.kill_after if group.exited else None)

    # What it prints

    def _printed(self, line: str) -> None:
        log.info("%s: %s", self.name, self._masked(line), extra={"task": self.task, "stream": "stdout"})

    def _complained(self, line: str) -> None:
        line = self._masked(line)[:TAIL]
        self.tail.append(line)
        self.tail_size += len(line)
        while len(self.tail) > TAIL_LINES or self.tail_size > TAIL:
            self.tail_size -= len(self.tail.popleft())
        log.info("%s: %s", self.name, line, extra={"task": self.task, "stream": "stderr"})

    # How it ended

    def _verdict(self, group: Group) -> int:
        try:
            code = group.reap()
        except StatusLost:
            raise self._error(
                "has ended, and somebody else took its exit code; let no part of this process call "
                "os.waitpid(-1) or ignore SIGCHLD"
            ) from None
        if code in self.success_codes:
            return code
        if code >= 0:
            how = f"ended with exit code {code}; if that is as it should be, add it to success_codes"
        else:
            how = f"was killed by {_signal_name(-code)}"
            if -code == signal.SIGKILL:
                how += ", as the system does when memory runs out"
        raise self._error(how, code)

    def _error(self, how: str, code: int | None = None) -> ProgramError:
        lines = "".join(f"\n    {line}" for line in self.tail)
        said = f"\n  the end of its standard error:{lines}" if lines else "\n  it printed nothing to standard error"
        return ProgramError(f"{self.name}: {self.command} {how}{said}", self.command, code, self.tail)

    def _not_started(self, error: OSError) -> ProgramError:
        program = self.args[0]
        if self.cwd is not None and not os.path.isdir(self.cwd):
            why = f"its working folder {self.cwd} is not a folder: create it, or give another cwd"
        elif error.errno == errno.ENOENT and os.sep not in program:
            why = f"there is no program {program!r} on its PATH: install it, or give its whole path"
        elif error.errno == errno.ENOENT and os.path.exists(os.path.join(self.cwd or "", program)):
            why = f"the interpreter that the first line of {program} names is not there: mend that line"
        elif error.errno == errno.ENOENT:
            why = f"there is no file {program}: check its path"
        elif error.errno == errno.EACCES:
            why = f"{program} may not be executed: `chmod +x` it, or run its interpreter"
        elif error.errno == errno.ENOEXEC:
            why = (
                f"{program} is no program this system can run: begin a script with `#!/bin/sh`, or run its interpreter"
            )
        else:
            why = error.strerror or str(error)
        passing = error.errno in (errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.ETXTBSY, errno.EIO)
        kind = ProgramError if passing else ProgramNotStarted
        return kind(f"{self.name}: {self.command} could not be started: {self._masked(why)}", self.command)


class _Lines:
    """Makes lines of pieces. A carriage return ends one too, as progress bars have it; empty ones are left out."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._rest = b""

    def __call__(self, data: bytes) -> None:
        *lines, rest = re.split(rb"[\r\n]+", self._rest + data)
        if not data:  # the end
            lines, rest = [rest], b""
        while len(rest) > LINE:
            cut = LINE
            while cut > LINE - 4 and rest[cut] & 0xC0 == 0x80:  # not within a character of UTF-8
                cut -= 1
            lines.append(rest[:cut])
            rest = rest[cut:]
        self._rest = rest
        for line in lines:
            if line:
                self._tell(line.decode(errors="backslashreplace"))


def _text(value: Any, what: str) -> str:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    text = os.fspath(value) if isinstance(value, (str, os.PathLike)) else value
    if not isinstance(text, str):
        raise TypeError(f"{what} of a program is {value!r}; write a string, a path or a number")
    return text


def _opened(path: str, kept: list[IO[bytes]]) -> None:
    kept.append(open(path, "rb"))  # noqa: SIM115  # its caller closes it, also one that was cancelled meanwhile


def _signal_name(number: int) -> str:
    try:
        return f"{signal.Signals(number).name} ({number})"
    except ValueError:
        return f"signal {number}"


def _hidden(task: Task) -> set[str]:
    """The values of ``task``'s hidden parameters, as they may stand in a command line."""
    found = set()
    for parameter in task._parameters.values():
        if parameter.hidden:
            value = getattr(task, parameter.name)
            if value is not None:
                found |= {str(value), parameter.serialize(value)}
    return found
