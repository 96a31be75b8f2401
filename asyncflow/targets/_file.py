"""``FileTarget``: a target with bytes in it, that a codec makes values of."""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Generator,
    Iterable,
    Iterator,
)
from contextvars import copy_context
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, Generic, TypeGuard, TypeVar

from ..bridge import on_loop
from ..target import Target
from ._hops import HOP, in_thread
from ._reading import AsyncReader
from ._remote_reading import RemoteReader

if TYPE_CHECKING:  # loaded by whoever names a codec: it brings csv, json and pickle
    from ..codecs import Codec, Decoder, RowCodec

__all__ = ["FileTarget", "Operation", "Rows", "check_codec"]

T = TypeVar("T")

MOST_ROWS = 10_000
"""Rows that are encoded in one hop to a thread, however small they are."""


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
        return Rows(self, codec.file_decoder())

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
        bunches = _Bunches(rows, partial(self._encoded, codec.file_encoder().encode))
        context = copy_context()  # the iterable may be code of the body's
        try:
            async with self.open("wb") as file:
                while not bunches.ended:
                    if bunches.on_loop:
                        await bunches.gather()
                    await file.write(await in_thread(context.run, bunches.encode))
        finally:
            await bunches.close()

    def _put_rows(self, codec: RowCodec[Any], rows: Any) -> None:
        bunches = _Bunches(rows, partial(self._encoded, codec.file_encoder().encode))
        if bunches.on_loop:
            raise TypeError(f"{self!r}: an async iterable is written by `await target.write(rows)`")
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


class _Bunches:
    """Rows from wherever they come, encoded so many at a time that they are about as long as a hop."""

    def __init__(self, rows: Any, encode: Callable[[list[Any], bool], bytes]) -> None:
        if isinstance(rows, (str, bytes)) or not isinstance(rows, (Iterable, AsyncIterable)):
            raise TypeError(f"rows are an iterable or an async iterable of rows, not {type(rows).__name__}")
        self._encode = encode
        self._count = 100
        self._gathered: list[Any] = []
        self.on_loop = isinstance(rows, AsyncIterable)
        self._async: AsyncIterator[Any] | None = aiter(rows) if isinstance(rows, AsyncIterable) else None
        self._sync: Iterator[Any] = iter(()) if isinstance(rows, AsyncIterable) else iter(rows)
        self.ended = False

    async def gather(self) -> None:
        """Have the next rows ready: for an async iterable."""
        assert self._async is not None
        while len(self._gathered) < self._count:
            try:
                self._gathered.append(await anext(self._async))
            except StopAsyncIteration:
                self.ended = True
                break

    async def close(self) -> None:
        """End an asynchronous generator that has not come to its end."""
        if isinstance(self._async, AsyncGenerator):
            await self._async.aclose()

    def encode(self) -> bytes:
        """The bytes of the next rows. In a thread."""
        rows = self._gathered if self.on_loop else list(islice(self._sync, self._count))
        self._gathered = []
        self.ended = self.ended or (not self.on_loop and len(rows) < self._count)
        data = self._encode(rows, self.ended)
        if rows and not self.ended:
            self._count = min(MOST_ROWS, max(1, self._count * HOP // max(len(data), HOP // 100)))
        return data


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


class Rows:
    """The rows of a target, read as they are wanted: for ``async for`` on the loop, ``for`` in sync code."""

    def __init__(self, target: FileTarget, decoder: Decoder[Any]) -> None:
        self._target = target
        self._decoder = decoder
        self._ahead: deque[Any] = deque()
        self._block: Any = None  # the open target
        self._file: Any = None
        self._ended = False
        self._reading = False

    def __aiter__(self) -> Rows:
        return self

    async def __anext__(self) -> Any:
        while not self._ahead:
            if self._ended:
                raise StopAsyncIteration
            self._begin()
            try:
                if self._file is None:
                    self._block = self._target.open("rb")
                    self._file = await self._block.__aenter__()
                data = await self._file.read(HOP)
                # The rows are kept by the thread: a cancel that comes meanwhile loses none of them.
                await in_thread(self._decode, data)
            except ValueError:
                await self.__aexit__()
                raise
            finally:
                self._reading = False
            if not data:
                await self.__aexit__()
        return self._ahead.popleft()

    def _begin(self) -> None:
        if self._reading:
            raise RuntimeError(f"the rows of {self._target!r} are being read by somebody else: call rows() for each")
        self._reading = True

    def _decode(self, data: bytes) -> None:
        self._ahead.extend(self._target._decoded(self._decoder.decode, data, not data))
        self._ended = not data

    async def __aenter__(self) -> Rows:
        return self

    async def __aexit__(self, *error: object) -> None:
        self._ended = True
        if self._file is not None:
            self._file = None
            await self._block.__aexit__(None, None, None)

    def __del__(self) -> None:
        if self._file is not None and isinstance(self._file, (AsyncReader, RemoteReader)):
            self._file.abandon()

    def __iter__(self) -> Rows:
        return self

    def __next__(self) -> Any:
        while not self._ahead:
            if self._ended:
                raise StopIteration
            self._begin()
            try:
                if self._file is None:
                    self._block = self._target.open("rb")
                    self._file = self._block.__enter__()
                data = self._file.read(HOP)
                self._decode(data)
            except ValueError:
                self.__exit__()
                raise
            finally:
                self._reading = False
            if not data:
                self.__exit__()
        return self._ahead.popleft()

    def __enter__(self) -> Rows:
        return self

    def __exit__(self, *error: object) -> None:
        self._ended = True
        if self._file is not None:
            self._file = None
            self._block.__exit__(None, None, None)
