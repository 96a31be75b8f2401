"""A proxy before an FTP server that counts commands, and breaks what it is told to."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from dataclasses import replace as replaced
from typing import Literal

from examples.servers.ftp import FtpServer

BLOCK = 16 * 1024


@dataclass
class Fault:
    """What goes wrong, ``times`` times.

    ``at_bytes``: when so much has gone over a data connection, ``cut`` is closed. ``command``: when it comes, it is
    answered with ``answer``, if there is one, and else ``cut`` is closed: before the server hears of it, or, with
    ``after``, when it has answered, which nobody hears. ``reply``: the same with the reply that begins so. ``seconds``:
    instead of being closed, it is held up for so long. ``late``: nobody hears anything more on that connection, and the
    server gets the command when the next one of that name comes, just before it. The first ``skip`` are let pass.
    """

    cut: Literal["data", "control", "both"] = "control"
    at_bytes: int | None = None
    command: str = ""
    after: bool = False
    reply: str = ""
    answer: str = ""
    seconds: float = 0
    late: bool = False
    skip: int = 0
    times: int = 1


@dataclass
class Proxy:
    server: FtpServer
    faults: list[Fault] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)
    connections: int = 0
    most: int = 0
    """Control connections that were open at once."""
    _late: list[tuple[bytes, asyncio.StreamReader, asyncio.StreamWriter]] = field(default_factory=list)
    _open: set[asyncio.StreamWriter] = field(default_factory=set)
    _serving: set[asyncio.Task[None]] = field(default_factory=set)

    def count(self) -> int:
        """How many commands there were since it was last asked."""
        count = len(self.commands)
        self.commands.clear()
        return count

    def fire(self, **given: object) -> Fault | None:
        for fault in self.faults:
            if fault.times > 0 and all(getattr(fault, name) == value for name, value in given.items()):
                if fault.skip:
                    fault.skip -= 1
                    continue
                fault.times -= 1
                return fault
        return None

    async def deliver(self, name: str) -> None:
        """Let the server do what has come to it late."""
        for kept in [kept for kept in self._late if kept[0].startswith(name.encode())]:
            line, reader, writer = kept
            self._late.remove(kept)
            writer.write(line)
            assert await reader.readline()
            _abort(writer)


class _Session:
    """One control connection."""

    def __init__(self, proxy: Proxy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.proxy = proxy
        self.reader = reader
        self.writer = writer
        self.data: list[asyncio.StreamWriter] = []
        self.tasks: set[asyncio.Task[None]] = set()
        self.listeners: list[asyncio.Server] = []
        self.kept = False  # the server's end of it is needed later
        self.mute = False  # the next reply gets lost, and the connection with it

    async def serve(self) -> None:
        self.far_reader, self.far = await asyncio.open_connection("127.0.0.1", self.proxy.server.port)
        replies = asyncio.create_task(self.replies())
        try:
            with suppress(OSError):
                await self.commands()
        finally:
            replies.cancel()
            self.cut("both")
            for listener in self.listeners:
                listener.close()
            for task in list(self.tasks):
                task.cancel()
            await asyncio.gather(replies, *self.tasks, return_exceptions=True)

    def cut(self, what: str) -> None:
        if what in ("control", "both"):
            _abort(self.writer)
            if not self.kept:
                _abort(self.far)
        if what in ("data", "both"):
            for writer in self.data:
                _abort(writer)

    async def commands(self) -> None:
        while line := await self.reader.readline():
            name = line.decode().split()[0]
            self.proxy.commands.append(line.decode().rstrip("\r\n"))
            await self.proxy.deliver(name)
            if fault := self.proxy.fire(command=name):
                if fault.late:
                    self.kept = True
                    self.proxy._late.append((line, self.far_reader, self.far))
                    return
                if fault.answer:
                    self.writer.write(fault.answer.encode() + b"\r\n")
                    continue
                if not fault.after:
                    self.cut(fault.cut)
                    return
                self.mute = True
            self.far.write(line)

    async def replies(self) -> None:
        with suppress(OSError):
            while line := await self.far_reader.readline():
                text = line.decode(errors="replace")
                final = re.match(r"[2-5]\d\d ", text)
                if self.mute and final:
                    self.cut("both")
                    return
                fault = next(
                    (f for f in self.proxy.faults if f.reply and f.times > 0 and text.startswith(f.reply)), None
                )
                if fault is not None:
                    fault.times -= 1
                    if not fault.seconds:
                        self.cut(fault.cut)
                        return
                    await asyncio.sleep(fault.seconds)
                if found := re.search(r"\(\|\|\|(\d+)\|\)", text):
                    line = text.replace(found[1], str(await self.listen(int(found[1])))).encode()
                elif found := re.match(r"227 .*?(\d+),(\d+)\)?", text) and re.search(r"(\d+),(\d+)\)", text):
                    port = await self.listen(int(found[1]) * 256 + int(found[2]))
                    line = f"227 ok (127,0,0,1,{port // 256},{port % 256})\r\n".encode()
                self.writer.write(line)
        self.cut("both")

    async def listen(self, port: int) -> int:
        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            self.tasks.add(task)
            try:
                far_reader, far = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                return
            self.data = [writer, far]
            passed = 0

            async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
                nonlocal passed
                with suppress(OSError):
                    while True:
                        due = [f for f in self.proxy.faults if f.at_bytes is not None and f.times > 0]
                        if due and passed >= (due[0].at_bytes or 0):
                            due[0].times -= 1
                            if due[0].seconds:
                                await asyncio.sleep(due[0].seconds)
                                continue
                            self.cut(due[0].cut)
                            if due[0].answer:
                                self.writer.write(due[0].answer.encode() + b"\r\n")
                            return
                        room = min([(f.at_bytes or 0) - passed for f in due] + [BLOCK])
                        data = await source.read(room)
                        if not data:
                            break
                        passed += len(data)
                        sink.write(data)
                        await sink.drain()
                with suppress(AttributeError, OSError):
                    sink.close()

            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(pump(reader, far))
                    group.create_task(pump(far_reader, writer))
            finally:
                _abort(writer)
                _abort(far)

        async def quietly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                with suppress(asyncio.CancelledError):  # the session has ended
                    await connected(reader, writer)
            finally:
                _abort(writer)

        listener = await asyncio.start_server(quietly, "127.0.0.1", 0)
        self.listeners.append(listener)
        return int(listener.sockets[0].getsockname()[1])


def _abort(writer: asyncio.StreamWriter) -> None:
    with suppress(AttributeError):
        writer.transport.abort()


@asynccontextmanager
async def proxied(server: FtpServer, *faults: Fault) -> AsyncIterator[tuple[Proxy, FtpServer]]:
    """The proxy, and the server as it is reached through it."""
    proxy = Proxy(server, list(faults))

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        proxy._serving.add(task)
        proxy._open.add(writer)
        proxy.connections += 1
        proxy.most = max(proxy.most, len(proxy._open))
        try:
            with suppress(asyncio.CancelledError):  # the test has ended
                await _Session(proxy, reader, writer).serve()
        finally:
            _abort(writer)
            proxy._open.discard(writer)
            proxy._serving.discard(task)

    listener = await asyncio.start_server(connected, "127.0.0.1", 0)
    try:
        yield proxy, replaced(server, port=listener.sockets[0].getsockname()[1])
    finally:
        listener.close()
        for task in list(proxy._serving):
            task.cancel()
        await asyncio.gather(*proxy._serving, return_exceptions=True)
        for _, _, far in proxy._late:
            _abort(far)
        await asyncio.sleep(0)  # for the loop to close the sockets
