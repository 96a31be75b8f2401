"""One object, written as it comes: a small one by one request, a large one in parts of which a few are on their way."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from ... import healing, journal
from ...attempt import current
from ...shield import finish
from .._hops import in_thread
from .._streams import publish
from .errors import FAILURES, status_of, translate
from .publishing import Publishing, etag_of
from .store import S3Store, store_of

__all__ = ["S3Sink"]

PART = 8 * 1024 * 1024
"""Bytes of a part. Each thousand of parts doubles it: a store takes 10,000 of them, and objects of 5 TB."""

COPIED = 1024 * 1024 * 1024
"""Bytes of a part that the store copies by itself: it takes 5 GB at most, and copies parts at the same time."""

AT_ONCE = 4
"""Parts on their way. With the one that is being filled they are what a large object costs in memory."""


ABORTS = 3

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
        self._discarded = False
        self._details: dict[str, Any] = {"Metadata": self._publishing.metadata}

    async def write(self, data: bytes) -> None:
        """Keep ``data``, and send what makes whole parts. Raises ``OSError``."""
        rest = memoryview(data)
        while self._waiting + len(rest) >= (size := PART << self._begun // 1000):
            room = size - self._waiting
            part = b"".join([*self._chunks, data if len(data) == room else rest[:room]])
            rest = rest[room:]
            self._chunks, self._waiting = [], 0
            await self._send("upload_part", {"Body": part})
        if rest:
            self._chunks.append(data if len(rest) == len(data) else bytes(rest))
            self._waiting += len(rest)

    async def commit(self) -> None:
        """Make it visible. Raises ``OSError``, ``TaskCancelled``."""
        if self._upload:
            await self._send_rest()
            await publish(self._attempt, self._lock, self._complete)
        else:
            data = b"".join(self._chunks)
            self._chunks = []
            await publish(self._attempt, self._lock, lambda: self._put(data))

    async def prepare(self) -> dict[str, Any] | None:
        """Have all of it in the store, as parts even if it is small. An empty object has none: it is one request."""
        if not self._upload and not self._waiting:
            return None
        await self._send_rest()
        try:
            was = await self._publishing.etag_there()
        except FAILURES as error:
            raise translate(error, f"{self._name} could not be published") from error
        return {"kind": "s3", "store": self._store.identity, "was": was, **self._finished()}

    async def _send_rest(self) -> None:
        data = b"".join(self._chunks)
        self._chunks, self._waiting = [], 0
        if data:
            await self._send("upload_part", {"Body": data})
        while self._sending:
            await self._one_arrives()

    def _finished(self) -> dict[str, Any]:
        parts = [{"PartNumber": number, "ETag": self._parts[number]} for number in sorted(self._parts)]
        return {**self._where, "UploadId": self._upload, "MultipartUpload": {"Parts": parts}}

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
        await self._publishing.make_visible(
            lambda **condition: self._store.call("put_object", **self._where, **self._details, Body=data, **condition)
        )

    async def _send(self, operation: str, part: dict[str, Any]) -> None:
        if not self._upload:
            await finish(self._begin())  # cancelled on the way, it would leave an upload whose id nobody knows
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
        self._place = json.dumps({"store": self._store.identity, **self._where, "UploadId": self._upload})
        journal.unfinished.add(self._place)
        await in_thread(journal.note, "s3", self._place)
        if self._discarded:  # whoever began it was cancelled, and has not waited for an answer that took so long
            await self.discard()

    async def _complete(self) -> None:
        finished = self._finished()
        if not await self._publishing.make_visible(
            lambda **condition: self._store.call("complete_multipart_upload", **finished, **condition)
        ):
            await self.discard()
        self._upload = ""
        await self._over()

    async def discard(self) -> None:
        """Forget it, and have the store forget its parts. Raises nothing: what is left is in the journal."""
        self._discarded = True
        self._chunks = []
        sending, self._sending = self._sending, set()
        for task in sending:
            task.cancel()
        await asyncio.gather(*sending, return_exceptions=True)  # noqa: TID251  # they have been cancelled
        upload, self._upload = self._upload, ""
        if upload:
            with suppress(*FAILURES):
                await _abort(self._store, {**self._where, "UploadId": upload})
                await self._over()

    async def _over(self) -> None:
        journal.unfinished.discard(self._place)
        await in_thread(journal.done, "s3", self._place)


async def _abort(store: S3Store, upload: dict[str, str]) -> bool:
    """Whether there was something to remove. A part that was on its way can arrive after the first abort."""
    removed, trouble = False, None
    for _ in range(ABORTS):
        try:
            await store.call("abort_multipart_upload", **upload)
            removed, trouble = True, None
        except FAILURES as error:
            if status_of(error) == 404:
                return removed
            trouble = error
    if trouble is not None:
        raise trouble
    return removed


# For the journal ------------------------------------------------------------------------------------------


def _clean(place: str, token: str) -> int:
    """Remove the upload that a process has left behind when it was killed."""
    upload = json.loads(place)
    store = store_of(upload.pop("store"))
    try:
        return int(asyncio.run(_abort(store, upload)))
    except FAILURES as error:
        raise translate(error, f"an unfinished upload of {upload['Key']}") from error


def _finish(step: Mapping[str, Any]) -> None:
    """Complete the upload that a process was about to complete when it was killed."""
    upload = dict(step)
    store, was = store_of(upload.pop("store")), upload.pop("was")
    del upload["kind"]

    async def complete() -> None:
        where = {"Bucket": upload["Bucket"], "Key": upload["Key"]}
        if await etag_of(store, where) == was:  # else it was done, or somebody has made it anew
            await store.call("complete_multipart_upload", **upload)

    try:
        asyncio.run(complete())
    except FAILURES as error:
        if status_of(error) != 404:
            raise translate(error, f"{upload['Key']} could not be published") from error


healing.cleaners["s3"] = _clean
healing.finishers["s3"] = _finish
