"""What is there, many keys at a time.

Stores list differently. AWS lists in the order of the bytes, SeaweedFS folder by folder, a directory bucket of AWS's in
no order at all. SeaweedFS also leaves keys out of listings of several pages, where a key is a folder, too, and a page
ends at it; others lag behind what was written. So no order is relied on, and no ``StartAfter``: a key that a listing
names is there; one that it does not name is absent where the listing was whole, and, but for AWS, a single page; and
some of those are asked for to make sure.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

from botocore.exceptions import ClientError

from .errors import status_of
from .store import S3Store, is_aws

__all__ = ["present"]

PAGE = 1000
"""Keys in a page: as many as a store gives."""

WORTH = 10
"""Keys that a page must answer on average: a page costs the store about as much as ten questions."""

CONFIRMED = 8
"""Keys that no listing names, and that are asked for all the same: does it tell the truth?"""

AT_ONCE = 50

_DIRECTORY_BUCKET = re.compile(r"--xa?-s3$")
"""The ends of names of those, and of access points to them: they list whole folders only."""

_ALIAS = re.compile(r"(-s3alias|--o[lp]-s3)$")
"""The ends of names at AWS behind which something else may answer: a file system, a function, a rack of one's own."""

Found = dict[str, bool | BaseException]


async def present(store: S3Store, bucket: str, keys: Sequence[str], ask: Callable[[str], Awaitable[bool]]) -> Found:
    """For each of ``keys`` whether it is there, or why that is not known: by listing, where they lie close together.

    ``ask(key)`` answers for one.
    """
    keys = list(dict.fromkeys(keys))
    listed = _Listed(store, bucket, len(keys) // WORTH)
    if len(keys) > WORTH:
        await listed.look(keys)
    absent = sorted(key for key, there in listed.found.items() if not there)
    doubted = absent[:: -(-len(absent) // CONFIRMED) or 1]  # from all over
    found: Found = {**listed.found}
    found |= await _each([key for key in keys if key not in found] + doubted, ask)
    if any(found[key] is True for key in doubted):
        found |= await _each(set(absent).difference(doubted), ask)
    return found


async def _each(keys: Iterable[str], ask: Callable[[str], Awaitable[bool]]) -> Found:
    """The answer to each by ``ask``, or what it raised."""
    found: Found = {}
    room = asyncio.Semaphore(AT_ONCE)

    async def one(key: str) -> None:
        async with room:
            try:
                found[key] = await ask(key)
            except Exception as error:
                found[key] = error

    async with asyncio.TaskGroup() as group:
        for key in keys:
            group.create_task(one(key))
    return found


class _Listed:
    """``found``: what listing tells of keys of a bucket, in at most ``pages`` requests. Others are not in it."""

    def __init__(self, store: S3Store, bucket: str, pages: int) -> None:
        self.found: dict[str, bool] = {}
        self._store = store
        self._bucket = bucket
        self._pages = pages  # that may still be asked for
        self._folders = _DIRECTORY_BUCKET.search(bucket) is not None
        self._whole = False
        self._buckets: set[str] = set()  # that are there
        self._room = asyncio.Semaphore(AT_ONCE)

    async def look(self, keys: list[str]) -> None:
        """List what all ``keys`` begin with; where there is too much of that, the same for smaller groups of them.

        Raises what botocore raises.
        """
        async with self._store.client() as client:
            self._whole = _pages_are_whole(client.endpoint, self._bucket)
            self._buckets = client.buckets
        groups = [keys]
        while groups and self._pages > 0:
            try:
                async with asyncio.TaskGroup() as tasks:
                    walks = [tasks.create_task(self._walk(group)) for group in groups]
            except ExceptionGroup as failed:
                raise failed.exceptions[0] from None
            groups = [group for walk in walks for group in walk.result() if len(group) > WORTH]

    async def _walk(self, keys: list[str]) -> list[list[str]]:
        """Note what the listing of what ``keys`` begin with tells. Gives those of which it tells nothing, in groups."""
        wanted, there = set(keys), set[str]()
        prefix = self._prefix(keys)
        pages, truncated = 0, True
        more: dict[str, Any] = {}
        while truncated and self._pages > 0 and len(there) < len(wanted):
            if pages and (len(there) * WORTH < pages * PAGE or not more["ContinuationToken"]):
                break  # mostly others, or a store that does not know how to go on
            page = await self._page(prefix, **more)
            if page is None:
                return []
            pages += 1
            there.update(wanted.intersection(entry["Key"] for entry in page.get("Contents", ())))
            truncated = bool(page.get("IsTruncated"))
            more = {"ContinuationToken": page.get("NextContinuationToken")}
        self.found.update(dict.fromkeys(there, True))
        rest = wanted - there
        if not truncated and (pages == 1 or self._whole):
            self.found.update(dict.fromkeys(rest, False))
            return []
        return self._split(rest, len(prefix))

    async def _page(self, prefix: str, **more: Any) -> Any:
        """None where listing is not allowed, say: each key is asked for then, and tells."""
        self._pages -= 1
        async with self._room:
            try:
                page = await self._store.call(
                    "list_objects_v2", Bucket=self._bucket, Prefix=prefix, MaxKeys=PAGE, **more
                )
            except ClientError as error:
                if status_of(error) in {403, 501}:
                    self._pages = 0
                    return None
                raise
        self._buckets.add(self._bucket)
        return page

    def _prefix(self, keys: list[str]) -> str:
        common = _common(min(keys), max(keys))
        return common[: common.rfind("/") + 1] if self._folders else common

    def _split(self, keys: Iterable[str], at: int) -> list[list[str]]:
        """``keys``, which begin with the same ``at`` characters, in groups that begin with more of them."""
        groups: dict[str, list[str]] = {}
        for key in keys:
            end = (key.find("/", at) + 1 or len(key)) if self._folders else at + 1
            groups.setdefault(key[:end], []).append(key)
        return list(groups.values())


def _pages_are_whole(endpoint: str, bucket: str) -> bool:
    """Whether the pages of a listing have all there is between them: AWS says so, of others it is not known."""
    return is_aws(endpoint) and _ALIAS.search(bucket) is None


def _common(first: str, last: str) -> str:
    """What the first and the last of some keys, and so all of them, begin with."""
    for n, (one, other) in enumerate(zip(first, last, strict=False)):
        if one != other:
            return first[:n]
    return first[: len(last)]
