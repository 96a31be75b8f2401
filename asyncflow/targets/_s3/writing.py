"""One object, written as it comes: a small one by one request, a large one in parts of which a few are on their way."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from io import BytesIO
from typing import Any

from botocore.exceptions import ClientError

from ... import journal
from ...attempt import current
from .._hops import in_thread
from .._streams import publish
from .errors import FAILURES, status_of, translate
from .publishing import Publishing
from .store import S3Store, known

__all__ = ["S3Sink"]

PART = 8 * 1024 * 1024
"""Bytes of a part. Each thousand of parts doubles it: a store takes 10,000 of them, and objects of 5 TB."""

COPIED = 1024 * 1024 * 1024
"""Bytes of a part that the store copies by itself: it takes 5 GB at most, and copies parts at the same time."""

AT_ONCE = 4
"""Parts on their way. With the one that is being filled they are what a large object costs in memory."""


_KEPT = ("ContentType", "ContentEncoding", "ContentLanguage", "ContentDisposition", "CacheControl")


class S3Sink:
    """What is going to be one object. Nothing of it can be seen before ``commit``."""

    def __init__(self, store: S3Store, bucket: str, key: str, name: str, lock: str) -> None:
        self._store = store
        self._where = {"Bucket": bucket, "Key": key}
        self._name = name
        self._lock = lock
        self._attempt = current.get()
        self._publishing = Publishing(store, bucket, key, name, attempt=self._attempt, lock=lock)
        self._chunks: list[bytes] = []
        self._waiting = 0  # bytes in them
        self._upload = ""  # its id, once it is one of parts
        self._sending: set[asyncio.Task[None]] = set()  # held strongly: the loop only knows its tasks weakly
        self._parts: dict[int, str] = {}  # ETags of those that have arrived
        self._begun = 0  # parts
        self._place = ""  # in the journal
        self._details: dict[str, Any] = {"Metadata": self._publishing.metadata}

    async def write(self, data: bytes) -> None:
        """Keep ``data``, and send what makes whole parts. Raises ``OSError``."""
        self._chunks.append(data)
        self._waiting += len(data)
        while self._waiting >= (size := PART << self._begun // 1000):
            whole = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
            self._chunks = [whole[size:]] if len(whole) > size else []
            self._waiting = len(whole) - size
            await self._send("upload_part", {"Body": BytesIO(whole[:size] if len(whole) > size else whole)})

    async def commit(self) -> None:
        """Make it visible. Raises ``OSError``, ``TaskCancelled``."""
        data = b"".join(self._chunks)
        self._chunks = []
        if not self._upload:
            await publish(self._attempt, self._lock, lambda: self._put(data))
            return
        if data:
            await self._send("upload_part", {"Body": BytesIO(data)})
        while self._sending:
            await self._one_arrives()
        await publish(self._attempt, self._lock, self._complete)

    async def copy(self, source: dict[str, str], found: dict[str, Any]) -> None:
        """Have the store copy another object of its own, of which HEAD has ``found`` this. Raises ``OSError``."""
        self._details = {
            "Metadata": {**found.get("Metadata", {}), **self._publishing.metadata},
            **{name: found[name] for name in _KEPT if name in found},
        }
        size = found["ContentLength"]
        for at in range(0, size, COPIED):
            what = {
                "CopySource": source,
                "CopySourceRange": f"bytes={at}-{min(at + COPIED, size) - 1}",
                "CopySourceIfMatch": found["ETag"],
            }
            await self._send("upload_part_copy", what)

    @property
    def lost(self) -> bool:
        """Whether somebody else has been quicker, and this was dropped."""
        return self._attempt is not None and self._attempt.lost is not None and self._lock in self._attempt.lost

    async def _put(self, data: bytes) -> None:
        body: Any = data if len(data) <= 1024 * 1024 else BytesIO(data)  # aiohttp wants no large bytes
        await self._publishing.make_visible(
            lambda **condition: self._store.call("put_object", **self._where, **self._details, Body=body, **condition)
        )

    async def _send(self, operation: str, part: dict[str, Any]) -> None:
        if not self._upload:
            await self._begin()
        while len(self._sending) >= AT_ONCE:
            await self._one_arrives()
        self._begun += 1
        task = asyncio.get_running_loop().create_task(self._store_part(operation, self._begun, part))
        self._sending.add(task)

    async def _one_arrives(self) -> None:
        done, self._sending = await asyncio.wait(self._sending, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()

    async def _store_part(self, operation: str, number: int, part: dict[str, Any]) -> None:
        try:
            answer = await self._store.call(operation, **self._where, UploadId=self._upload, PartNumber=number, **part)
        except FAILURES as error:
            raise translate(error, f"{self._name}: part {number} could not be stored") from error
        self._parts[number] = answer.get("CopyPartResult", answer)["ETag"]

    async def _begin(self) -> None:
        try:
            answer = await self._store.call("create_multipart_upload", **self._where, **self._details)
        except FAILURES as error:
            raise translate(error, f"{self._name} could not be stored") from error
        self._upload = answer["UploadId"]
        self._place = json.dumps({"store": self._store.name, **self._where, "UploadId": self._upload})
        journal.unfinished.add(self._place)
        await in_thread(journal.note, "s3", self._place)

    async def _complete(self) -> None:
        parts = [{"PartNumber": number, "ETag": self._parts[number]} for number in sorted(self._parts)]
        await self._publishing.make_visible(
            lambda **condition: self._store.call(
                "complete_multipart_upload",
                **self._where,
                UploadId=self._upload,
                MultipartUpload={"Parts": parts},
                **condition,
            )
        )
        if self.lost:
            await self.discard()
        self._upload = ""
        journal.unfinished.discard(self._place)

    async def discard(self) -> None:
        """Forget it, and have the store forget its parts. Raises nothing: what is left is in the journal."""
        self._chunks = []
        sending, self._sending = self._sending, set()
        for task in sending:
            task.cancel()
        await asyncio.gather(*sending, return_exceptions=True)  # noqa: TID251  # they have been cancelled
        upload, self._upload = self._upload, ""
        if upload:
            with suppress(*FAILURES):
                await _abort(self._store, {**self._where, "UploadId": upload})
                journal.unfinished.discard(self._place)


async def _abort(store: S3Store, upload: dict[str, str]) -> bool:
    """Whether there was something to remove. A part that was on its way can arrive after the first abort."""
    for n in range(3):
        try:
            await store.call("abort_multipart_upload", **upload)
        except ClientError as error:
            if status_of(error) == 404:
                return n > 0
            raise
    return True


def _clean(place: str, token: str) -> int:
    """For the journal: the upload that a process has left behind when it was killed."""
    upload = json.loads(place)
    store = known.get(upload.pop("store"))
    if store is None:
        raise OSError("a store that this process has not talked to")
    try:
        return int(asyncio.run(_abort(store, upload)))
    except FAILURES as error:
        raise translate(error, f"an unfinished upload of {upload['Key']}") from error


journal.cleaners["s3"] = _clean
