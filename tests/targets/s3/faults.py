"""A reverse proxy before an S3 server that fails requests as planned, and writes down all of them.

::

    async with FaultS3(s3) as proxy:
        proxy.fail("503", method="PUT", n=3)  # the third PUT from now on
        store = S3Store(endpoint_url=proxy.endpoint, ...)
        ...
        assert proxy.count("PUT") == 4

A client signs its requests for the address it knows, which is the proxy's: headers and path are handed on as they came,
and the server, which goes by the ``Host`` that is signed, finds the signature right. Bodies are handed on as they come,
both ways, and never held whole.

Resets: aiohttp, and so aiobotocore, sends everything but a POST a second time by itself, whatever it is told about
retries. ``times=2`` is a reset that its user gets to know.
"""

from __future__ import annotations

import asyncio
import random
import socket
import struct
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, TypeAlias, get_args
from weakref import WeakSet

import aiohttp
from aiohttp import hdrs, web
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from multidict import CIMultiDict
from yarl import URL

from examples.servers import S3Server

__all__ = ["Fault", "FaultS3", "Seen"]

Fault: TypeAlias = Literal[
    "503",  # SlowDown
    "500",  # InternalError
    "403",  # AccessDenied
    "signature",  # 403 SignatureDoesNotMatch
    "409",  # ConditionalRequestConflict
    "expired",  # 400 ExpiredToken
    "200",  # an InternalError that comes with status 200, as that of CompleteMultipartUpload does
    "reset_before",  # the connection is reset, and the store has heard nothing
    "reset_after",  # the connection is reset, and the store has done it
    "truncated",  # the answer says how long it is, and ends after half of that
    "hang",  # there is no answer, and the store has heard nothing
]

ERRORS = {
    "503": (503, "SlowDown", "Please reduce your request rate."),
    "500": (500, "InternalError", "We encountered an internal error. Please try again."),
    "403": (403, "AccessDenied", "Access Denied"),
    "signature": (403, "SignatureDoesNotMatch", "The request signature we calculated does not match."),
    "409": (409, "ConditionalRequestConflict", "A conflicting operation is in progress. Please try again."),
    "expired": (400, "ExpiredToken", "The provided token has expired."),
    "200": (200, "InternalError", "We encountered an internal error. Please try again."),
}

CONDITIONS = ("If-Match", "If-None-Match")

# Those of one connection, not of the request (RFC 9110, 7.6.1); aiohttp writes its own.
HOP_BY_HOP = ("Connection", "Keep-Alive", "Proxy-Connection", "TE", "Trailer", "Transfer-Encoding", "Upgrade")

CHUNK = 64 * 1024  # bytes


@dataclass(slots=True)
class Seen:
    """A request that came: ``status`` is what the client was told, None where it was told nothing (yet)."""

    method: str
    path: str
    query: str
    status: int | None = None
    fault: Fault | None = None


@dataclass(slots=True)
class _Rule:
    """Fail the requests that match, from the n-th to before the ``end``-th (None: all that follow)."""

    fault: Fault
    n: int
    end: int | None
    method: str | None
    path: str
    query: str
    matched: int = 0

    def hits(self, seen: Seen) -> bool:
        if not (self.method in (None, seen.method) and self.path in seen.path and self.query in seen.query):
            return False
        self.matched += 1
        return self.matched >= self.n and (self.end is None or self.matched < self.end)


class FaultS3:
    """A proxy before the server ``upstream``, on the running loop, on a free port.

    Attributes:
        endpoint: where clients find it.
        requests: what came, in the order of arrival.
        latency: seconds by which every request is late.
        strip_conditions: let the store know nothing of ``If-Match`` and ``If-None-Match``: it says yes to all.
        limit: requests that may come within a second; more are answered 503. None: any number.
    """

    def __init__(self, upstream: S3Server) -> None:
        self.endpoint = ""
        self.requests: list[Seen] = []
        self.latency = 0.0
        self.strip_conditions = False
        self.limit: int | None = None
        self._upstream = upstream
        self._rules: list[_Rule] = []
        self._chance: tuple[random.Random, float, Sequence[Fault]] | None = None
        self._answering: set[asyncio.Task[None]] = set()
        self._sockets: WeakSet[socket.socket] = WeakSet()  # to the store
        self._admitted: deque[float] = deque()  # when the requests of the last second came

    def fail(
        self,
        fault: Fault,
        *,
        n: int = 1,
        times: int | None = 1,
        method: str | None = None,
        path: str = "",
        query: str = "",
    ) -> None:
        """Fail the ``n``-th request from now on, and the ``times`` - 1 after it (None: all after it).

        Only those count that have this ``method``, ``path`` in their path and ``query`` in their query string
        ("uploadId=", say). The first plan that wants to fail a request does.
        """
        if fault not in get_args(Fault):
            raise ValueError(f"no fault called {fault!r}; there are: {', '.join(get_args(Fault))}")
        self._rules.append(_Rule(fault, n, None if times is None else n + times, method, path, query))

    def fail_some(self, share: float, faults: Sequence[Fault], *, seed: int) -> None:
        """From now on fail a ``share`` (0 to 1) of what no plan fails, each with one of ``faults``, by chance."""
        self._chance = (random.Random(seed), share, faults)

    def heal(self) -> None:
        """Fail nothing any more that has not come yet. What hangs, hangs."""
        self._rules.clear()
        self._chance = None

    def count(self, method: str | None = None, *, path: str = "", query: str = "") -> int:
        """How many requests came that have this method, path and query string, as in ``fail``."""
        return sum(
            method in (None, seen.method) and path in seen.path and query in seen.query for seen in self.requests
        )

    async def __aenter__(self) -> FaultS3:
        # As they are: no body unpacked, no cookie kept, no header added, as many connections as are wanted.
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, socket_factory=self._socket),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            skip_auto_headers=[hdrs.ACCEPT, hdrs.ACCEPT_ENCODING, hdrs.CONTENT_TYPE, hdrs.USER_AGENT],
            timeout=aiohttp.ClientTimeout(total=None),
        )
        # Of a client that leaves, the request is cancelled: the store sees it leave too.
        server = web.Server(self._answer, handler_cancellation=True, auto_decompress=False, access_log=None)
        self._runner = web.ServerRunner(server, shutdown_timeout=1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self.endpoint = f"http://{host}:{port}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        for task in self._answering:
            task.cancel()
        await self._runner.cleanup()
        await self._session.close()
        for connection in self._sockets:  # which stays open, otherwise, until the store has taken what was written
            with suppress(OSError):  # closed, by us or by the store
                connection.shutdown(socket.SHUT_RDWR)

    def _socket(self, address: aiohttp.AddrInfoType) -> socket.socket:
        made = socket.socket(*address[:3])
        self._sockets.add(made)
        return made

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        self._answering.add(request.task)
        try:
            return await self._answer_as_planned(request)
        finally:
            self._answering.discard(request.task)

    async def _answer_as_planned(self, request: web.BaseRequest) -> web.StreamResponse:
        path, _, query = request.raw_path.partition("?")
        seen = Seen(request.method, path, query)
        self.requests.append(seen)
        seen.fault = fault = self._fault_of(seen)
        if self.latency:
            await asyncio.sleep(self.latency)
        if request.headers.get(hdrs.EXPECT, "").lower() == "100-continue" and request.transport is not None:
            request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if fault in ERRORS:
            return await self._error(request, seen, *ERRORS[fault])
        if fault == "hang":
            await asyncio.Event().wait()
        if fault == "reset_before":
            return _reset(request)
        try:
            return await self._hand_on(request, seen)
        except aiohttp.ClientError:  # the store is gone, or has reset the connection itself
            return _reset(request)

    def _fault_of(self, seen: Seen) -> Fault | None:
        # Every plan counts every request, whichever of them fails it.
        hits = [rule.fault for rule in self._rules if rule.hits(seen)]
        if hits:
            return hits[0]
        if self._over_the_limit():
            return "503"
        if self._chance is not None:
            chance, share, faults = self._chance
            if chance.random() < share:
                return chance.choice(faults)
        return None

    def _over_the_limit(self) -> bool:
        if self.limit is None:
            return False
        now = asyncio.get_running_loop().time()
        while self._admitted and self._admitted[0] <= now - 1:
            self._admitted.popleft()
        if len(self._admitted) >= self.limit:
            return True
        self._admitted.append(now)
        return False

    async def _error(
        self, request: web.BaseRequest, seen: Seen, status: int, code: str, message: str
    ) -> web.StreamResponse:
        async for _ in request.content.iter_chunked(CHUNK):  # the connection stays in step
            pass
        seen.status = status
        body = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code><Message>{message}</Message></Error>'
        return web.Response(status=status, body=body.encode(), content_type="application/xml")

    async def _hand_on(self, request: web.BaseRequest, seen: Seen) -> web.StreamResponse:
        headers = _end_to_end(request.headers)
        headers.popall(hdrs.EXPECT, None)
        if self.strip_conditions and any(name in headers for name in CONDITIONS):
            headers = self._without_conditions(request, headers)
        url = URL(self._upstream.endpoint + request.raw_path, encoded=True)
        body = request.content if request.can_read_body else None
        async with self._session.request(
            request.method, url, headers=headers, data=body, allow_redirects=False
        ) as answer:
            if seen.fault == "reset_after":
                await answer.read()
                return _reset(request)
            seen.status = answer.status
            response = web.StreamResponse(status=answer.status, reason=answer.reason)
            response.headers.extend(_end_to_end(answer.headers))
            await response.prepare(request)
            left = (answer.content_length or 0) // 2 if seen.fault == "truncated" else None
            async for piece in answer.content.iter_chunked(CHUNK):
                if left is not None:
                    piece = piece[:left]  # noqa: PLW2901  # what is left of it
                    left -= len(piece)
                await response.write(piece)
                if left == 0:
                    break
        if seen.fault == "truncated" and request.transport is not None:
            request.transport.close()  # when what was written has been sent
        return response

    def _without_conditions(self, request: web.BaseRequest, headers: CIMultiDict[str]) -> CIMultiDict[str]:
        """The headers without conditions; since these are signed, signed again."""
        for name in (*CONDITIONS, hdrs.AUTHORIZATION):
            headers.popall(name, None)
        copy = AWSRequest(request.method, self._upstream.endpoint + request.raw_path, dict(headers))
        _SignedAgain(self._upstream, headers["X-Amz-Content-SHA256"]).add_auth(copy)
        return CIMultiDict(copy.headers.items())


class _SignedAgain(S3SigV4Auth):
    """A signature for a request whose body is yet to come, and is ``hashed`` already."""

    def __init__(self, server: S3Server, hashed: str) -> None:
        super().__init__(Credentials(server.access_key, server.secret_key), "s3", server.region)
        self._hashed = hashed

    def payload(self, request: AWSRequest) -> str:
        return self._hashed


def _end_to_end(headers: Mapping[str, str]) -> CIMultiDict[str]:
    """The headers less those of the one connection they came by."""
    kept = CIMultiDict(headers)
    for name in HOP_BY_HOP:
        kept.popall(name, None)
    return kept


def _reset(request: web.BaseRequest) -> web.Response:
    """Reset the connection; there is nobody left then whom the response could reach."""
    if request.transport is not None:
        connection: socket.socket = request.transport.get_extra_info("socket")
        # Linger for 0 seconds: a reset, where there would be an orderly end.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        request.transport.abort()
    return web.Response()
