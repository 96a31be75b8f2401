"""What is there, many keys at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from botocore.exceptions import ClientError

from .errors import status_of
from .store import S3Store

__all__ = ["present"]

PAGE = 1000
"""Keys in a page: as many as a store gives."""

WORTH = 10
"""Keys that a page must answer on average: a page costs the store about as much as ten questions."""

AT_ONCE = 50

Found = dict[str, bool | BaseException]


async def present(store: S3Store, bucket: str, keys: Sequence[str], ask: Callable[[str], Awaitable[bool]]) -> Found:
    """For each of ``keys`` whether it is there, or why that is not known: by listing, where they lie close together.

    ``ask(key)`` answers for one.
    """
    found: Found = {}
    if len(keys) > WORTH:
        found = await _listed(store, bucket, sorted(set(keys), key=str.encode))
    rest = [key for key in dict.fromkeys(keys) if key not in found]
    room = asyncio.Semaphore(AT_ONCE)

    async def one(key: str) -> None:
        async with room:
            try:
                found[key] = await ask(key)
            except Exception as error:
                found[key] = error

    async with asyncio.TaskGroup() as group:
        for key in rest:
            group.create_task(one(key))
    return found


async def _listed(store: S3Store, bucket: str, keys: list[str]) -> Found:
    """As many answers as listing gives at a reasonable price. ``keys`` are in the order of their bytes."""
    found: Found = {}
    prefix = _common(keys[0], keys[-1])
    after, at, pages = "", 0, 0
    while at < len(keys):
        if at < pages * WORTH:
            break  # they lie far apart
        # Not from the key itself, which would be left out: from what stands right before it.
        after = max(after, keys[at][:-1], key=str.encode)
        try:
            page = await store.call("list_objects_v2", Bucket=bucket, Prefix=prefix, StartAfter=after, MaxKeys=PAGE)
        except ClientError as error:
            if status_of(error) in {403, 501}:
                break  # not allowed, say: each key is asked for, and tells
            raise
        pages += 1
        there = [entry["Key"] for entry in page.get("Contents", ())]
        if not _in_order(after, there) or (page.get("IsTruncated") and not there):
            break  # a store with ways of its own
        last = there[-1] if page.get("IsTruncated") else None
        listed = set(there)
        while at < len(keys) and (last is None or keys[at].encode() <= last.encode()):
            found[keys[at]] = keys[at] in listed
            at += 1
        if last is not None:
            after = last
    return found


def _in_order(after: str, keys: list[str]) -> bool:
    before = after.encode()
    for key in keys:
        if (now := key.encode()) <= before:
            return False
        before = now
    return True


def _common(first: str, last: str) -> str:
    """What the first and the last of some keys, and so all of them, begin with."""
    for n, (one, other) in enumerate(zip(first, last, strict=False)):
        if one != other:
            return first[:n]
    return first[: len(last)]
