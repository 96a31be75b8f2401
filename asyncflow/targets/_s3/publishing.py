"""The one step that makes an object visible: create-only where that is wanted and the store can, and never in doubt."""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any
from uuid import uuid4

from botocore.exceptions import ClientError

from ...attempt import Attempt
from .errors import FAILURES, code_of, status_of, translate
from .store import Client, S3Store, is_aws

__all__ = ["Publishing", "etag_of"]

log = logging.getLogger("asyncflow")

CONFLICTS = 8
"""Times that a conflict with another write of the same object (409) is tried again."""

MARK = "asyncflow-publish-id"

_in_doubt: deque[str] = deque(maxlen=10_000)
"""The marks of writes of this process of which nobody could be asked what became of them: the next attempt may find
one, and it is no one else's."""


async def etag_of(store: S3Store, where: Mapping[str, str]) -> str | None:
    """What tells which object is there, None for none. Raises what botocore raises."""
    try:
        return str((await store.call("head_object", **where))["ETag"])
    except ClientError as error:
        if status_of(error) == 404:
            return None
        raise


class Publishing:
    """Of one object, by one attempt. ``mark`` goes into the object's metadata: by it a write is known as one's own."""

    def __init__(self, store: S3Store, bucket: str, key: str, name: str, *, attempt: Attempt | None, lock: str) -> None:
        self._store = store
        self._bucket = bucket
        self._where = {"Bucket": bucket, "Key": key}
        self._name = name
        self._attempt = attempt
        self._lock = lock  # what the engine calls the target
        self.mark = uuid4().hex
        self.metadata = {MARK: self.mark}

    async def make_visible(self, request: Callable[..., Awaitable[object]]) -> bool:
        """``request(**condition)`` makes the object visible. Raises ``OSError`` if none is, by whatever it was.

        False: it was to be created, and another one stands. That is somebody else's, who has been quicker, or that of
        an attempt here of which nobody knew whether it had been published.
        """
        create = self._attempt is not None and self._attempt.creates(self._lock)
        condition: dict[str, Any] = {}
        if create:
            if await self._keeps_conditions():
                condition = {"IfNoneMatch": "*"}
            elif (mark := await self._mark_there()) is not None:
                return self._lost(mark)
        for n in range(CONFLICTS + 1):
            try:
                await request(**condition)
            except FAILURES as error:
                if code_of(error) == "ConditionalRequestConflict" and n < CONFLICTS:
                    await asyncio.sleep(random.uniform(0, 0.05 * 2**n))
                    continue
                return await self._settle(error, create=bool(condition))
            return True
        raise AssertionError

    async def _settle(self, error: Exception, *, create: bool) -> bool:
        """The request has failed, or its answer was lost: what is there decides."""
        try:
            mark = await self._mark_there()
        except FAILURES as unseen:
            _in_doubt.append(self.mark)
            raise translate(error, f"{self._name}: nobody knows whether it was published ({unseen})") from error
        if mark == self.mark:
            return True
        if create and mark is not None:
            return self._lost(mark)
        raise translate(error, f"{self._name} could not be published") from error

    def _lost(self, mark: str) -> bool:
        assert self._attempt is not None
        if mark not in _in_doubt:
            self._attempt.lose(self._lock)
        return False

    async def _mark_there(self) -> str | None:
        """Whose object is there: its mark, empty if it has none, None if there is no object."""
        try:
            answer = await self._store.call("head_object", **self._where)
        except ClientError as error:
            if status_of(error) == 404:
                return None
            raise
        return str(answer.get("Metadata", {}).get(MARK, ""))

    async def etag_there(self) -> str | None:
        """What tells which object is there, None for none. Raises what botocore raises."""
        return await etag_of(self._store, self._where)

    async def _keeps_conditions(self) -> bool:
        """Whether the store refuses a second ``If-None-Match: *``. AWS does; others are asked once for each bucket."""
        async with self._store.client() as client:
            if is_aws(client.endpoint):
                return True
            async with client.asking:
                known = client.conditional.get(self._bucket)
                if known is None:
                    known = client.conditional[self._bucket] = await self._try_conditions(client)
                    if not known:
                        log.warning(
                            "%s does not keep conditions (If-None-Match): of two processes that make one object of the "
                            "bucket %s at the same time both publish it, and the last one stands",
                            client.endpoint,
                            self._bucket,
                        )
                return known

    async def _try_conditions(self, client: Client) -> bool:
        # Beside the object: who may write that may write this.
        where = {"Bucket": self._bucket, "Key": f"{self._where['Key'][:900]}.af-{self.mark}"}
        try:
            for _ in range(2):
                await client.call("put_object", {**where, "IfNoneMatch": "*", "Body": b""})
        except ClientError as error:
            if status_of(error) not in {400, 409, 412, 501}:  # 400, 501: it says that it does not know the condition
                raise
            return status_of(error) in {409, 412}
        finally:
            with suppress(ClientError):
                await client.call("delete_object", where)
        return False
