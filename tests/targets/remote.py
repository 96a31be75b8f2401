"""A store over a network that is none: a dictionary behind the handles of S3 and FTP, with pieces of odd sizes."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any, ClassVar

from asyncflow.attempt import current
from asyncflow.codecs import Codec
from asyncflow.targets._file import check_codec
from asyncflow.targets._remote import RemoteTarget as Base
from asyncflow.targets._streams import publish


class Store:
    """What is stored, by name; what is being stored; and what is open."""

    def __init__(self) -> None:
        self.whole: dict[str, bytes] = {}
        self.partial: set[Outgoing] = set()
        self.reading: set[Incoming] = set()
        self.draw = random.Random(0)
        self.fail: Callable[[str], None] = lambda step: None
        self.wrote: Callable[[bytes], object] = lambda data: None
        self.open = asyncio.Event()  # while it is not set, it answers nobody
        self.open.set()


class OneAtATime:
    """Calls that are made while it is busy with another are the handle's fault, as they would be with a real store."""

    def __init__(self) -> None:
        self.busy = False

    def __enter__(self) -> None:
        if self.busy:
            raise RuntimeError("a second call at a time")
        self.busy = True

    def __exit__(self, *error: object) -> None:
        self.busy = False


class Incoming:
    def __init__(self, store: Store, data: bytes) -> None:
        self.store, self.data, self.at = store, data, 0
        self.busy = OneAtATime()
        store.reading.add(self)

    async def read(self, size: int) -> bytes:
        with self.busy:
            await asyncio.sleep(0)
            await self.store.open.wait()
            self.store.fail("read")
            piece = self.data[self.at : self.at + min(size, self.store.draw.randint(1, 50_000))]
            self.at += len(piece)
            return piece

    async def close(self) -> None:
        with self.busy:
            await asyncio.sleep(0)
            self.store.reading.discard(self)

    def abandon(self) -> None:
        self.store.reading.discard(self)


class Outgoing:
    def __init__(self, store: Store, name: str, key: str) -> None:
        self.store, self.name, self.key = store, name, key
        self.attempt = current.get()
        self.parts: list[bytes] = []
        self.busy = OneAtATime()

    async def write(self, data: bytes) -> None:
        with self.busy:
            self.store.partial.add(self)
            await asyncio.sleep(0)
            await self.store.open.wait()
            self.store.fail("write")
            self.store.wrote(data)
            self.parts.append(data)

    async def prepare(self) -> None:
        with self.busy:
            await asyncio.sleep(0)
            self.store.fail("prepare")

    async def commit(self) -> None:
        with self.busy:
            try:
                await publish(self.attempt, self.key, self._show)
            finally:
                self.store.partial.discard(self)

    async def _show(self) -> None:
        await asyncio.sleep(0)
        self.store.fail("commit")
        self.store.whole[self.name] = b"".join(self.parts)

    async def discard(self) -> None:
        with self.busy:
            self.store.partial.discard(self)
            await asyncio.sleep(0)


class RemoteTarget(Base):
    """A named thing in the one store of the test."""

    in_process: ClassVar[bool] = True
    store: ClassVar[Store]

    def __init__(self, name: str, codec: Codec[Any] | None = None) -> None:
        self.name = name
        self.key = f"remote://{name}"
        self.codec = check_codec(codec)

    async def exists(self) -> bool:
        await asyncio.sleep(0)
        return self.name in self.store.whole

    async def _source(self) -> Incoming:
        await asyncio.sleep(0)
        if self.name not in self.store.whole:
            raise FileNotFoundError(f"{self!r} is not there")
        return Incoming(self.store, self.store.whole[self.name])

    def _sink(self) -> Outgoing:
        return Outgoing(self.store, self.name, self.key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RemoteTarget) and other.name == self.name

    def __hash__(self) -> int:
        return hash(self.name)

    def __repr__(self) -> str:
        return f"RemoteTarget({self.name!r})"
