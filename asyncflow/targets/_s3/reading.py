"""One object, read as it comes; a connection that breaks is made anew where it broke."""

from __future__ import annotations

import asyncio
from typing import Any

from aiohttp import ClientError as ConnectionBroke
from botocore.exceptions import HTTPClientError, IncompleteReadError

from .errors import FAILURES, translate
from .store import S3Store

__all__ = ["S3Source"]

AGAIN = 3
"""Times in a row that a connection may break without a byte of progress."""

BROKEN = (HTTPClientError, IncompleteReadError, ConnectionBroke, asyncio.TimeoutError, OSError)


class S3Source:
    """The bytes of an object, as they were when it was opened: one that changes meanwhile is an ``OSError``."""

    def __init__(self, store: S3Store, bucket: str, key: str, name: str) -> None:
        self._store = store
        self._where = {"Bucket": bucket, "Key": key}
        self._name = name
        self._lent = store.client()
        self._at = 0
        self._etag = ""
        self._body: Any = None
        self._failures = 0

    @classmethod
    async def open(cls, store: S3Store, bucket: str, key: str, name: str) -> S3Source:
        """Begin to read. Raises ``FileNotFoundError``, and other ``OSError``s."""
        source = cls(store, bucket, key, name)
        await source._lent.__aenter__()  # the client is not closed while somebody reads
        try:
            await source._get()
        except BaseException:
            await source._lent.__aexit__(None, None, None)
            raise
        return source

    async def _get(self) -> None:
        rest = {"Range": f"bytes={self._at}-", "IfMatch": self._etag} if self._at else {}
        try:
            answer = await self._store.call("get_object", **self._where, **rest)
        except FAILURES as error:
            raise translate(error, f"{self._name} cannot be read") from error
        self._body = answer["Body"]
        self._etag = answer["ETag"]

    async def read(self, size: int) -> bytes:
        """At most ``size`` bytes. Raises ``OSError`` when the connection breaks too often."""
        while True:
            try:
                data: bytes = await self._body.read(size)
            except BROKEN as error:
                self._failures += 1
                if self._failures > AGAIN:
                    raise ConnectionError(f"{self._name}: broke off at byte {self._at:,}: {error}") from error
                self._body.close()
                await self._get()
                continue
            self._failures = 0
            self._at += len(data)
            return data

    async def close(self) -> None:
        """Let go of the connection; it is used again if the object has been read to its end."""
        self.abandon()

    def abandon(self) -> None:
        """The same, at once."""
        body, self._body = self._body, None
        if body is not None:
            body.close()
            self._lent.abandon()
