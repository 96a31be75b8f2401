"""What the command writes, and the one place that writes it: data to standard output, the rest to standard error.

A line is made of pieces, text or styled text. Whatever they hold (parameters, messages of other people's
exceptions) is escaped here, so no control character reaches a terminal.
"""

from __future__ import annotations

import codecs
import contextlib
import io
import logging
import os
import sys
from collections.abc import Iterator, Mapping
from typing import Final, Literal, NamedTuple, TextIO, TypeAlias

__all__ = [
    "AGAIN",
    "BLOCKED",
    "DONE",
    "FAILED",
    "CannotWrite",
    "Line",
    "Piece",
    "Styled",
    "Terminal",
    "escape",
    "open_terminal",
]

Style = Literal["bold", "dim", "red", "green", "yellow", "cyan"]

_CODES: Mapping[Style, str] = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "cyan": "36"}
_ASCII = str.maketrans({"✓": "+", "✗": "x", "⊘": "-", "↻": "~", "●": "*", "→": "->", "│": "|", "·": ",", "…": "..."})


class Styled(NamedTuple):
    """A piece of a line with a colour of its own."""

    text: str
    style: Style


Piece: TypeAlias = str | Styled
Line: TypeAlias = tuple[Piece, ...]

# A status is told by its symbol too, never by colour alone.
DONE: Final = Styled("✓", "green")
FAILED: Final = Styled("✗", "red")
BLOCKED: Final = Styled("⊘", "yellow")
AGAIN: Final = Styled("↻", "yellow")


class CannotWrite(Exception):
    """Standard output does not take the data: a full disk, say."""


def escape(text: str) -> str:
    """``text`` on one line, with everything that a terminal would act on written as ``\\x1b`` and the like.

    Also what only changes how text looks: marks of writing direction, invisible characters, lone surrogates.
    """
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() or char == "\xa0" else char.encode("unicode_escape").decode("ascii") for char in text
    )


class Terminal:
    """Where the command writes. A reader that has gone away (``| head``) is no error."""

    leave_at_once = False
    """The process has to end without waiting for its threads."""

    def __init__(self, data: TextIO | None, messages: TextIO | None) -> None:
        self._data = data
        self._messages = messages
        self.colour = _wants_colour(messages)
        self.unicode = _is_utf8(messages)

    def data(self, text: str) -> None:
        """Write ``text`` and a newline to standard output. Raises ``CannotWrite``."""
        if self._data is not None:
            try:
                _write(self._data, text + "\n")
            except OSError as error:
                raise CannotWrite(f"cannot write to standard output: {error.strerror or error}") from error

    def say(self, *lines: Line) -> None:
        """Write ``lines`` to standard error."""
        if self._messages is not None:
            with contextlib.suppress(OSError):
                _write(self._messages, "".join(f"{self.render(line)}\n" for line in lines))

    def render(self, line: Line) -> str:
        """``line`` as it is written: escaped, in colour where colour is wanted, in ASCII where nothing else is."""
        return "".join(map(self._piece, line))

    def _piece(self, piece: Piece) -> str:
        text, style = (piece.text, piece.style) if isinstance(piece, Styled) else (piece, None)
        text = escape(text)
        if not self.unicode:
            text = text.translate(_ASCII)
        return f"\x1b[{_CODES[style]}m{text}\x1b[0m" if style is not None and self.colour else text


@contextlib.contextmanager
def open_terminal() -> Iterator[Terminal]:
    """Inside, standard output is the command's alone: what tasks and modules print goes to standard error."""
    stdout, last_resort = sys.stdout, logging.lastResort
    data: TextIO | None = stdout
    ours = stdout is sys.__stdout__  # or somebody has replaced it, to collect what is written
    with contextlib.ExitStack() as claim:
        if stdout is not None and ours:
            data = claim.enter_context(_claimed(stdout))
        terminal = Terminal(data, sys.stderr)
        sys.stdout = sys.stderr
        logging.lastResort = _Handler(terminal)
        try:
            yield terminal
        finally:
            sys.stdout, logging.lastResort = stdout, last_resort


@contextlib.contextmanager
def _claimed(stdout: TextIO) -> Iterator[TextIO]:
    """A stream of our own to where ``stdout`` leads; programs that tasks start write to standard error too."""
    try:
        stdout.flush()
        target, before = stdout.fileno(), os.dup(stdout.fileno())
    except (OSError, io.UnsupportedOperation):
        yield stdout
        return
    with contextlib.suppress(OSError, AttributeError, io.UnsupportedOperation):  # no standard error: leave it
        os.dup2(sys.stderr.fileno(), target)
    # closefd: the descriptor is put back below, whatever becomes of the stream.
    data = open(  # noqa: SIM115  # closed below, and may fail to close
        before, "w", encoding=stdout.encoding, errors="backslashreplace", closefd=False
    )
    try:
        yield data
    finally:
        with contextlib.suppress(OSError):
            data.close()
        with contextlib.suppress(OSError):
            os.dup2(before, target)
        os.close(before)


def _write(stream: TextIO, text: str) -> None:
    try:
        stream.write(text)
        stream.flush()
    except BrokenPipeError:
        # What is left in the buffer would fail again, and be reported, when Python closes the stream.
        with contextlib.suppress(OSError, io.UnsupportedOperation):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)


def _wants_colour(stream: TextIO | None) -> bool:
    """NO_COLOR before FORCE_COLOR before what ``stream`` is."""
    if stream is None or os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR", "0") not in ("", "0"):
        return True
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def _is_utf8(stream: TextIO | None) -> bool:
    try:
        return codecs.lookup(getattr(stream, "encoding", None) or "ascii").name == "utf-8"
    except LookupError:
        return False


class _Handler(logging.Handler):
    """Warnings of the engine, and of loggers nobody has set up, escaped like everything else."""

    def __init__(self, terminal: Terminal) -> None:
        super().__init__(logging.WARNING)
        self._terminal = terminal

    def emit(self, record: logging.LogRecord) -> None:
        try:
            lines = self.format(record).splitlines() or [""]
        except Exception:
            self.handleError(record)
            return
        label = Styled(f"{record.levelname.lower()}:", "red" if record.levelno >= logging.ERROR else "yellow")
        self._terminal.say((label, " ", lines[0]), *((line,) for line in lines[1:]))
