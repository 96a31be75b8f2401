"""A connection to an FTP server: aioftp's, mended.

aioftp 0.28 shakes hands on a data connection before it sends the command, which ProFTPD, vsftpd and Pure-FTPd wait for
(RFC 4217). It raises at what is no UTF-8, has one time-out for everything, by a call that swallows cancels on Python
3.11, and goes on after a cancel, when every answer is that to the question before. Here a cancel, a time-out or an
answer out of order is the end: the connection is ``broken``, and of no more use to anybody.
"""

from __future__ import annotations

import asyncio
import errno
import re
import socket
import ssl
from collections.abc import Coroutine
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple, TypeVar

import aioftp
from aioftp.common import SSLSessionBoundContext

from ...threads import files
from . import server as servers
from .server import Server

__all__ = ["Connection", "Reply", "Transfer", "Unreachable"]

CONNECT = 20.0
"""Seconds until a connection has to be there and logged in."""

COMMAND = 30.0
"""Seconds until a command has to be answered."""

IDLE = 60.0
"""Seconds in which something has to move on a data connection, and until the last word on it has to be said."""

PIECE = 64 * 1024
"""Bytes that are given to a data connection at once; each may take ``IDLE`` seconds."""

BUFFER = 512 * 1024
"""Bytes that the kernel may hold of what is sent: what is lost of them when a connection breaks is sent again."""

NEVER_MIND = 2.0
"""Seconds until a server has to have heard that a transfer was given up."""

UNSUPPORTED = (500, 502, 504)

T = TypeVar("T")


class Unreachable(ConnectionError):
    """No connection could be made, or it was refused; tried often enough."""


class Reply(NamedTuple):
    """What a server says: a number of three digits, and words."""

    code: int
    lines: tuple[str, ...]

    @property
    def good(self) -> bool:
        return 200 <= self.code < 300

    def error(self, what: str) -> OSError:
        """An ``OSError`` of the kind that the number tells, for ``what`` has not been done."""
        words = f"{what}: {self.code} {' '.join(self.lines).strip()}"
        if self.code in (421, 425, 426, 451):
            return ConnectionResetError(words)
        if self.code in (452, 552):
            return OSError(errno.ENOSPC, words)
        if self.code in (530, 532):
            return PermissionError(errno.EACCES, words)
        return OSError(words)


class Connection(aioftp.BaseClient):
    """A control connection, logged in. One command at a time.

    ``broken`` once a command was cancelled, was not answered in time, or not in order; it is closed then.
    """

    def __init__(self, server: Server, context: ssl.SSLContext | None, lacks: set[str]) -> None:
        super().__init__(socket_timeout=None, connection_timeout=None, encoding="utf-8")
        self.server = server
        self.context = context
        self.lacks = lacks  # commands that the server does not know; shared by all its connections
        self.broken = False
        self.since = 0.0  # when it was last used
        self._opened = False
        self._pending = False  # a command has not got its last reply yet

    @classmethod
    async def open(cls, server: Server, context: ssl.SSLContext | None, secret: str, lacks: set[str]) -> Connection:
        """A new one. Raises ``OSError``: ``PermissionError`` where the login is refused."""
        self = cls(server, context, lacks)
        await self._within(CONNECT, self._begin(secret), f"connecting to {server.name}")
        return self

    async def _begin(self, secret: str) -> None:
        server = self.server
        await self.connect(server.host, server.port)
        _tune(self.stream.writer.get_extra_info("socket"))
        greeting = await self._reply()
        while greeting.code == 120:  # ready in some minutes
            greeting = await self._reply()
        if not greeting.good:
            raise greeting.error(f"{server.name} takes no connections now")
        if server.tls == "explicit":
            await self._must("AUTH TLS", 234)
            if self.stream.reader._buffer:  # type: ignore[attr-defined]  # asyncio has no other way to look
                # Whoever sits between could have put it there, to be taken for an answer that came by TLS.
                raise PermissionError(f"{server.name} has said more, unprotected, than it was asked before TLS")
            await self.stream.start_tls(self.context, server_hostname=server.host)  # type: ignore[arg-type]
        await self._log_in(secret)
        if server.tls != "none":
            await self._must("PBSZ 0", 200)
            await self._must("PROT P", 200)
        await self._ask("OPTS UTF8 ON")  # some want to be told; whatever the answer is
        await self._must("TYPE I", 200)
        self._opened = True

    async def _log_in(self, secret: str) -> None:
        server = self.server
        reply = await self._ask(f"USER {server.user}")
        if reply.code == 331:
            reply = await self._ask(f"PASS {secret}")
            if reply.good:
                servers.accepted[server.host, server.port, server.user] = secret
        if not reply.good:
            raise reply.error(f"{server.name} refuses the login (user {server.user!r})")

    async def _must(self, command: str, *codes: int) -> Reply:
        reply = await self._ask(command)
        if reply.code not in codes:
            raise reply.error(f"{self.server.name} refuses {command}")
        return reply

    # Commands ---------------------------------------------------------------------------------------------

    async def ask(self, command: str, *, patience: float | None = None) -> Reply:
        """Send ``command``, and give the last reply to it. Raises ``OSError`` where there is none: it is broken."""
        return await self._within(patience or COMMAND, self._ask(command), command.partition(" ")[0])

    async def must(self, command: str, what: str, *codes: int) -> Reply:
        """The same, where a reply other than ``codes`` is an ``OSError``: that ``what`` has not been done."""
        reply = await self.ask(command)
        if reply.code not in codes:
            raise reply.error(what)
        return reply

    async def knows(self, command: str) -> Reply | None:
        """The same, for a command that servers need not know; None if this one does not."""
        name = command.partition(" ")[0]
        if name in self.lacks:
            return None
        reply = await self.ask(command)
        if reply.code in UNSUPPORTED:
            self.lacks.add(name)
            return None
        return reply

    async def _ask(self, command: str) -> Reply:
        await self._send(command)
        reply = await self._reply()
        while reply.code < 200:
            reply = await self._reply()
        return reply

    async def _send(self, command: str) -> None:
        if "\r" in command or "\n" in command or "\0" in command:
            raise ValueError("a command of FTP must not hold CR, LF or NUL")
        self._pending = True
        await self.stream.write(f"{command}\r\n".encode())

    async def _reply(self) -> Reply:
        """One reply, whole. A reply of several lines ends with one that begins with its number and a space."""
        line = await self._line()
        number, lines = line[:3], [line[4:]]
        if not re.fullmatch(r"[1-5]\d\d(?:[ -].*|)", line, re.DOTALL):
            raise ConnectionError(f"{self.server.name} does not speak FTP: it says {line[:80]!r}")
        if line[3:4] == "-":
            while not line.startswith(f"{number} "):
                line = await self._line()
                lines.append(line.removeprefix(f"{number} "))
        reply = Reply(int(number), tuple(lines))
        if reply.code >= 200:
            self._pending = False
        if reply.code == 421:
            raise reply.error(f"{self.server.name} closes the connection")
        return reply

    async def _line(self) -> str:
        line: bytes = await self.stream.readline()
        if not line.endswith(b"\n"):
            raise ConnectionResetError(f"{self.server.name} has closed the connection")
        return line.rstrip(b"\r\n").decode("utf-8", "surrogateescape")

    async def _within(self, patience: float, step: Coroutine[Any, Any, T], what: str, *, keep: bool = False) -> T:
        """``step`` in time, or not at all: whatever ends it otherwise breaks the connection.

        ``keep``: it is not closed at once, since somebody wants to hear the end of it (``settle``).
        """
        try:
            async with asyncio.timeout(patience):
                return await step
        except BaseException as error:
            self.broken = True
            if not keep:
                self.abort()
            if isinstance(error, TimeoutError):
                raise TimeoutError(f"{what}: {self.server.name} has not answered for {patience:g} s") from None
            if isinstance(error, ssl.SSLError):  # one of those on certificates is a ValueError
                if not self._opened:
                    raise
                raise ConnectionResetError(f"{what}: TLS with {self.server.name} broke off: {error.reason}") from None
            if isinstance(error, ValueError):  # a line without an end
                raise ConnectionError(f"{self.server.name} does not speak FTP: {error}") from None
            raise

    # Data -------------------------------------------------------------------------------------------------

    async def begin(self, command: str, *, offset: int = 0) -> Transfer | Reply:
        """Begin a transfer, at byte ``offset`` of what is stored; or the reply by which it was refused.

        Raises ``OSError``. Where it was cancelled, ``settle`` tells when the server has heard so.
        """
        what = command.partition(" ")[0]
        return await self._within(COMMAND, self._transfer(command, offset), what, keep=True)

    async def _transfer(self, command: str, offset: int) -> Transfer | Reply:
        address = await self._passive()
        if isinstance(address, Reply):
            return address
        transfer = Transfer(self, *await asyncio.open_connection(*address))
        try:
            _tune(transfer.writer.get_extra_info("socket"), buffer=BUFFER)
            if offset:
                reply = await self._ask(f"REST {offset}")
                if reply.code != 350:
                    transfer.abort()
                    return reply
            await self._send(command)
            reply = await self._reply()
            if reply.code >= 200:
                transfer.abort()
                return reply
            if self.context is not None:
                await transfer.writer.start_tls(self._of_same_session(), server_hostname=self.server.host)
        except BaseException:
            transfer.abort()
            raise
        return transfer

    async def _passive(self) -> tuple[str, int] | Reply:
        """Where the server waits for the data connection: always at the address that it was reached by."""
        if "EPSV" not in self.lacks:
            reply = await self._ask("EPSV")
            found = re.search(r"\((.)\1\1(\d+)\1\)", reply.lines[-1])
            if reply.code == 229 and found is not None:
                return self._peer(), int(found[2])
            if reply.code not in UNSUPPORTED:
                return reply
            self.lacks.add("EPSV")
        reply = await self._ask("PASV")
        found = re.search(r"(?:\d+,){4}(\d+),(\d+)", reply.lines[-1])
        if reply.code == 227 and found is not None:
            return self._peer(), int(found[1]) * 256 + int(found[2])
        return reply

    def _peer(self) -> str:
        address: str = self.stream.writer.get_extra_info("peername")[0]
        return address

    def _of_same_session(self) -> ssl.SSLContext:
        """Servers want a data connection to be of the control connection's session, so that nobody else has it."""
        ssl_object = self.stream.writer.get_extra_info("ssl_object")
        return SSLSessionBoundContext(ssl.PROTOCOL_TLS_CLIENT, context=ssl_object.context, session=ssl_object.session)

    async def _open_connection(self, host: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """The control connection, to the first of the host's addresses that takes it."""
        implicit = self.context if self.server.tls == "implicit" else None
        loop = asyncio.get_running_loop()
        # asyncio looks names up in its default pool, for whose threads asyncio.run waits at its end.
        found = await loop.run_in_executor(files, partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM))
        problem: OSError = ConnectionRefusedError(f"{host} has no address")
        for *_, address in found:
            try:
                return await asyncio.open_connection(
                    *(str(address[0]), port), ssl=implicit, server_hostname=host if implicit else None
                )
            except ssl.SSLError:
                raise
            except OSError as error:
                problem = error
        raise problem

    async def last_word(self) -> Reply:
        """The reply that ends a transfer. Raises ``OSError`` where none comes; it is broken then."""
        return await self._within(IDLE, self._end(), "the end of a transfer", keep=True)

    async def _end(self) -> Reply:
        reply = await self._reply()
        while reply.code < 200:
            reply = await self._reply()
        return reply

    async def settle(self) -> Reply | None:
        """Wait, for a moment, until the server has done with the command under way; what it said last."""
        reply = None
        if self._pending:
            with suppress(OSError, ValueError, aioftp.AIOFTPException):
                async with asyncio.timeout(NEVER_MIND):
                    reply = await self._end()
        return reply

    def abort(self) -> None:
        """Close it at once, unheard."""
        self.broken = True
        if self._stream is not None:
            _cut(self._stream.writer)


class Transfer:
    """A data connection on which something is under way."""

    def __init__(self, connection: Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connection = connection
        self.reader = reader
        self.writer = writer

    async def receive(self, size: int) -> bytes:
        """At most ``size`` bytes, nothing at the end. Raises ``OSError``; cancelled, it is over."""
        return await self._moving(self.reader.read(size))

    async def send(self, data: bytes) -> None:
        """Send all of ``data``. Raises ``OSError``: the one of which the server speaks, if it does."""
        view = memoryview(data)
        for at in range(0, len(data), PIECE):
            self.writer.write(view[at : at + PIECE])
            await self._moving(self.writer.drain())

    async def _moving(self, step: Coroutine[Any, Any, T]) -> T:
        return await self.connection._within(IDLE, step, "a transfer", keep=True)

    async def finish(self) -> Reply:
        """Close it, and give the server's last word on it. Raises ``OSError`` where there is none."""
        self.writer.close()
        try:
            return await self.connection.last_word()
        finally:
            self.abort()  # all of it has been taken, or none of it matters

    def abort(self) -> None:
        """Close it at once."""
        _cut(self.writer)


def _cut(writer: asyncio.StreamWriter) -> None:
    with suppress(AttributeError):  # of asyncio's: a transport that has come to its end has no loop any more
        writer.transport.abort()


def _tune(sock: socket.socket, *, buffer: int = 0) -> None:
    """Have a connection on which nothing moves kept open by what lies between, and its end found out."""
    with suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if hasattr(socket, "TCP_KEEPIDLE"):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 15)
        if buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer)
