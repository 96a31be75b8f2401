"""What goes between a build and its worker processes: frames on a socket, and pickles that explain themselves.

A frame is a plain tuple ``(kind, number, payload)``: ``number`` is that of the attempt it belongs to, ``payload`` bytes
that only whoever deals with the body unpickles, since that may import the user's modules.
"""

from __future__ import annotations

import pickle
import socket
import struct
import threading
import traceback
from typing import Any, NamedTuple

from ..errors import describe
from ..frames import OURS, whose

__all__ = ["Channel", "PackedError", "dumps", "pack_error", "unpack_error"]

_LENGTH = struct.Struct("!Q")
MOST = 1 << 40  # bytes of a frame
_CHAIN = 10  # causes of an exception that are sent with it


class Channel:
    """One end of a socket. Frames may be sent from any thread, and are received in one."""

    def __init__(self, end: socket.socket) -> None:
        self.socket = end
        self._sending = threading.Lock()

    def send(self, kind: str, number: int, payload: bytes = b"") -> None:
        """Send one frame. Raises ``OSError`` if nobody is there to get it."""
        frame = pickle.dumps((kind, number, payload), protocol=5)
        with self._sending:
            if len(frame) < 65536:
                self.socket.sendall(_LENGTH.pack(len(frame)) + frame)
            else:
                self.socket.sendall(_LENGTH.pack(len(frame)))
                self.socket.sendall(frame)

    def receive(self) -> tuple[str, int, bytes]:
        """The next frame. Raises ``EOFError`` when the other end is gone."""
        (length,) = _LENGTH.unpack(self._read(_LENGTH.size))
        if length > MOST:  # no frame of ours begins like that
            raise EOFError
        frame: tuple[str, int, bytes] = pickle.loads(self._read(length))
        return frame

    def _read(self, size: int) -> bytearray:
        data = bytearray(size)
        view, done = memoryview(data), 0
        while done < size:
            try:
                count = self.socket.recv_into(view[done:])
            except ConnectionError:
                count = 0
            if not count:
                raise EOFError
            done += count
        return data

    def close(self) -> None:
        """Close. The other end hears of it, whoever else holds a copy of this one."""
        try:
            self.socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.socket.close()


def dumps(value: Any) -> bytes:
    """``value`` as bytes. Raises whatever pickle does: ``PicklingError``, ``TypeError``, ``AttributeError``..."""
    return pickle.dumps(value, protocol=5)


class PackedError(NamedTuple):
    """An exception on its way to another process."""

    data: bytes
    note: str
    """Where it was raised there; empty if nobody needs to know."""
    cause: PackedError | None


def pack_error(error: BaseException, *, place: str = "", depth: int = 0) -> PackedError:
    """``error`` with its causes; in place of one that cannot be sent, a ``RuntimeError`` with its class and message."""
    cause = error.__cause__
    packed = pack_error(cause, depth=depth + 1) if cause is not None and depth < _CHAIN else None
    try:
        data = dumps(error)
        pickle.loads(data)
    except Exception:
        words = f"{type(error).__module__}.{type(error).__qualname__}: {describe(error).partition(': ')[2]}"
        data = dumps(RuntimeError(f"{words} (an exception that cannot be pickled, so this stands for it)"))
    return PackedError(data, f"in {place}:\n{_where(error)}" if place else "", packed)


def _where(error: BaseException) -> str:
    """The lines of the traceback, outermost first, without those of Python and asyncflow around the body."""
    frames = traceback.extract_tb(error.__traceback__)
    while len(frames) > 1 and whose(frames[0].filename) == OURS:
        del frames[0]
    return "".join(traceback.format_list(frames)).rstrip()


def unpack_error(packed: PackedError) -> BaseException:
    """The exception again, its place in the other process as a note."""
    data, note, cause = packed
    try:
        error: BaseException = pickle.loads(data)
    except Exception as problem:
        error = RuntimeError(f"an exception of another process cannot be read here: {problem!r}")
    if note:
        error.add_note(note)
    if cause is not None:
        error.__cause__ = unpack_error(PackedError(*cause))
    return error
