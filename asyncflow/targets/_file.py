"""``FileTarget``: a target with bytes in it, that a codec makes values of."""

from __future__ import annotations

import warnings
from collections.abc import Awaitable, Callable, Generator
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, Generic, TypeGuard, TypeVar

from ..bridge import on_loop
from ..target import Target
from ._hops import in_thread
from ._rows import Bunches, Rows

if TYPE_CHECKING:  # loaded by whoever names a codec: it brings csv, json and pickle
    from ..codecs import Codec, RowCodec

__all__ = ["FileTarget", "Operation", "check_codec"]

T = TypeVar("T")


class FileTarget(Target):
    """A target that ``open``s. With a ``codec`` it takes and gives values: ``write``, ``read``, ``rows``.

    A subclass has ``exists`` and ``open(mode)``, which gives for ``rb`` and ``wb`` a block for ``async with`` (on the
    loop) and ``with`` (in sync code). What it does not set itself is ``codec``, which is None by default.
    """

    __slots__ = ()

    codec: Codec[Any] | None = None

    def open(self, *mode: Any, **options: Any) -> Any:
        """Open for reading (``r``, ``rb``) or writing (``w``, ``wb``)."""
        raise TypeError(f"{type(self).__name__} has no open(); write `def open(self, mode)`")

    def write(self, value: Any) -> Operation[None]:
        """Publish ``value``, as the codec writes it: ``await`` it; in a sync body, ``.result()``.

        For a codec of rows ``value`` is an iterable of them, which is walked in threads, or an async iterable; it is
        written as it comes. A body may as well return the value: the engine writes it.

        Raises ``TypeError`` or ``ValueError``, naming the target, for what the codec cannot write, and what ``open``
        raises; nothing is published then.
        """
        codec = self._codec()
        if _has_rows(codec):
            return Operation(
                self, "write(rows)", lambda: self._write_rows(codec, value), lambda: self._put_rows(codec, value)
            )
        return Operation(self, "write(value)", lambda: self._write(codec, value), lambda: self._put(codec, value))

    def read(self) -> Operation[Any]:
        """The whole value, as the codec reads it (of rows, a list): ``await`` it; in a sync body, ``.result()``.

        Raises ``ValueError``, naming the target, where what is there is not what the codec writes, and what ``open``
        raises (``FileNotFoundError``).
        """
        codec = self._codec()
        return Operation(self, "read()", lambda: self._read(codec), lambda: self._get(codec))

    def rows(self) -> Rows:
        """The rows, one by one, of a file of any size: ``async for row in target.rows():``; in a sync body ``for``.

        A loop that is left early leaves the file open until the iterator is gone; ``async with target.rows() as rows:``
        (or ``with``) closes it at once. Raises ``TypeError`` where the codec has no rows; later, what ``read`` does.
        """
        codec = self._codec()
        if not _has_rows(codec):
            raise TypeError(f"{self!r}: {codec!r} has no rows; read() gives its value")
        return Rows(self, codec)

    def _codec(self) -> Codec[Any]:
        if self.codec is None:
            raise TypeError(
                f"{self!r} has no codec to write or read values with: give it one, codec=Json() say, or use open()"
            )
        return self.codec

    async def _write(self, codec: Codec[Any], value: Any) -> None:
        data = await in_thread(self._encoded, codec.encode, value)
        async with self.open("wb") as file:
            await file.write(data)

    def _put(self, codec: Codec[Any], value: Any) -> None:
        data = self._encoded(codec.encode, value)
        with self.open("wb") as file:
            file.write(data)

    async def _write_rows(self, codec: RowCodec[Any], rows: Any) -> None:
        bunches = Bunches(self, codec, rows, on_loop=True)
        context = copy_context()  # the iterable may be code of the body's
        try:
            async with self.open("wb") as file:
                while not bunches.ended:
                    await bunches.gather()
                    await file.write(await in_thread(context.run, bunches.encode))
        finally:
            await bunches.close()

    def _put_rows(self, codec: RowCodec[Any], rows: Any) -> None:
        bunches = Bunches(self, codec, rows, on_loop=False)
        with self.open("wb") as file:
            while not bunches.ended:
                file.write(bunches.encode())

    async def _read(self, codec: Codec[Any]) -> Any:
        async with self.open("rb") as file:
            data = await file.read()
        return await in_thread(self._decoded, codec.decode, data)

    def _get(self, codec: Codec[Any]) -> Any:
        with self.open("rb") as file:
            data = file.read()
        return self._decoded(codec.decode, data)

    def _encoded(self, encode: Callable[..., bytes], *value: Any) -> bytes:
        try:
            return encode(*value)
        except TypeError as error:
            raise TypeError(f"{self!r} cannot be written: {error}") from error
        except ValueError as error:
            raise ValueError(f"{self!r} cannot be written: {error}") from error

    def _decoded(self, decode: Callable[..., T], *data: Any) -> T:
        try:
            return decode(*data)
        except ValueError as error:
            raise ValueError(f"{self!r} cannot be read: {error}") from error


def _has_rows(codec: Codec[Any]) -> TypeGuard[RowCodec[Any]]:
    from ..codecs import RowCodec

    return isinstance(codec, RowCodec)


def check_codec(codec: Any) -> Codec[Any] | None:
    """``codec``, if it is one or None. Raises ``TypeError``."""
    if codec is None:
        return None
    from ..codecs import Codec

    if isinstance(codec, Codec):
        return codec
    hint = f"write codec={codec.__name__}()" if isinstance(codec, type) else "expected one of asyncflow.codecs"
    raise TypeError(f"codec={codec!r}: {hint}")


class Operation(Generic[T]):
    """What ``write()`` and ``read()`` give: nothing has happened yet. ``await`` it; in sync code call ``result()``."""

    __slots__ = ("_at_once", "_begun", "_name", "_on_loop", "_target")

    def __init__(
        self, target: Target, name: str, on_loop: Callable[[], Awaitable[T]], at_once: Callable[[], T]
    ) -> None:
        self._target = target
        self._name = name
        self._on_loop = on_loop
        self._at_once = at_once
        self._begun = False

    def __await__(self) -> Generator[Any, Any, T]:
        self._begin()
        return self._on_loop().__await__()

    def _begin(self) -> None:
        if self._begun:
            raise RuntimeError(f"{self!r} has been awaited before: call target.{self._name} again")
        self._begun = True

    def result(self) -> T:
        """Do it, and wait for it: for sync bodies and scripts. Raises ``TypeError`` where an event loop runs."""
        self._begin()
        if on_loop():
            raise TypeError(f"{self!r}: on the event loop write `await target.{self._name}`")
        return self._at_once()

    def __repr__(self) -> str:
        return f"<{self._target!r}.{self._name}>"

    def __del__(self) -> None:
        if not self._begun:
            warnings.warn(f"{self!r} was never awaited: nothing has been done", RuntimeWarning, stacklevel=2)
