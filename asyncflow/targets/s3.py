"""``S3Target``: an object in S3, or in a store that speaks its language (Ceph, R2, SeaweedFS). Extra: ``s3``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, TypeAlias

from ..codecs import Codec
from ..errors import TargetStateUnknown
from ..shield import finish
from ..target import Target
from ._extras import not_installed
from ._file import Operation, check_codec
from ._hops import HOP
from ._remote import RemoteTarget, operation

try:
    from ._s3.errors import FAILURES, code_of, status_of, translate
    from ._s3.listing import present
    from ._s3.reading import S3Source
    from ._s3.store import S3Store
    from ._s3.writing import S3Sink
except ModuleNotFoundError as error:
    raise not_installed(error, "s3") from error

__all__ = ["S3FlagTarget", "S3Store", "S3Target"]

_AWS = S3Store()
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


Names: TypeAlias = "list[str]"


class S3Target(RemoteTarget):
    """The object at ``url``, ``s3://bucket/key``. ``store`` says whose S3 that is; by default AWS.

    Written in one request, or, from 8 MB on, in parts, and visible when all of it is there. Where the engine found it
    missing it is created (``If-None-Match: *``), never replaced: of two processes that make it one publishes, and to
    the other the task is ``adopted``. A store that does not know such conditions is found out at the first write, and
    named in a warning; there the last one stands.

    The key is taken as it is written, and percent signs are only that. Raises ``ValueError`` for a URL that is none,
    and for keys that other tools would take for another: longer than 1,024 bytes, with control characters, or with
    empty, ``.`` or ``..`` segments.
    """

    __slots__ = ("bucket", "codec", "name", "store")

    def __init__(self, url: str, *, store: S3Store = _AWS, codec: Codec[Any] | None = None) -> None:
        self.bucket, self.name = _parts_of(url)
        self.store = store
        self.codec = check_codec(codec)

    @property
    def url(self) -> str:
        """``s3://bucket/key``."""
        return f"s3://{self.bucket}/{self.name}"

    @property
    def key(self) -> str:  # type: ignore[override]  # read-only here, an attribute in a user's own class
        """The URL, with the endpoint where it is not AWS."""
        return self.url if self.store.endpoint_url is None else f"{self.url} at {self.store.endpoint_url}"

    async def exists(self) -> bool:
        """Whether the object is there: one request. Raises ``TargetStateUnknown`` where that cannot be established."""
        try:
            await self.store.call("head_object", Bucket=self.bucket, Key=self.name)
        except FAILURES as error:
            if status_of(error) == 404:
                await self._check_bucket()
                return False
            raise self._unknown(error) from error
        return True

    def _unknown(self, error: Exception) -> TargetStateUnknown:
        hint = ""
        if status_of(error) == 403:
            hint = "; without the permission s3:ListBucket the store says this of every object that is not there"
        return TargetStateUnknown(f"{translate(error, f'cannot tell whether {self.url} exists')}{hint}")

    async def _check_bucket(self) -> None:
        """A missing bucket looks like a missing object: ask for it once."""
        async with self.store.client() as client:
            if self.bucket in client.buckets:
                return
            try:
                await self.store.call("head_bucket", Bucket=self.bucket)
            except FAILURES as error:
                if status_of(error) == 404:
                    raise self._no_bucket() from error
                if status_of(error) != 403:  # which says that it is there
                    raise self._unknown(error) from error
            client.buckets.add(self.bucket)

    def _no_bucket(self) -> TargetStateUnknown:
        return TargetStateUnknown(
            f"cannot tell whether {self.url} exists: there is no bucket {self.bucket!r} at "
            f"{self.store.endpoint_url or 'AWS'}; create it, or correct the URL"
        )

    @classmethod
    async def exists_many(cls, targets: Sequence[S3Target]) -> list[bool | BaseException]:
        """An answer for each: by listing where many lie close together (1,000 a request), else one by one."""
        groups: dict[tuple[S3Store, str], list[S3Target]] = {}
        for target in targets:
            groups.setdefault((target.store, target.bucket), []).append(target)
        answers: dict[S3Target, bool | BaseException] = {}
        for (store, bucket), group in groups.items():
            by_name = {target.name: target for target in group}

            async def ask(name: str, by_name: dict[str, S3Target] = by_name) -> bool:
                return await by_name[name]._exists()  # type: ignore[no-any-return]

            try:
                found = await present(store, bucket, list(by_name), ask)
            except FAILURES as error:
                unknown = group[0]._no_bucket() if code_of(error) == "NoSuchBucket" else group[0]._unknown(error)
                found = dict.fromkeys(by_name, unknown)
            answers.update((target, found[target.name]) for target in group)
        return [answers[target] for target in targets]

    async def _source(self) -> S3Source:
        return await S3Source.open(self.store, self.bucket, self.name, self.url)

    def _sink(self) -> S3Sink:
        return S3Sink(self.store, self.bucket, self.name, self.url, self.key)

    def copy(self, to: S3Target) -> Operation[None]:
        """Publish the object as ``to`` as well: ``await`` it; in a sync body, ``.result()``.

        Within a store its bytes do not move through here. Raises ``FileNotFoundError``, ``OSError``, and ``ValueError``
        for a copy to itself.
        """

        async def work() -> None:
            await self._copy(to)

        return operation(self, "copy(to)", work)

    def move(self, to: S3Target) -> Operation[None]:
        """``copy``, and ``remove`` when the copy is there. Raises ``FileNotFoundError``, ``OSError``."""

        async def work() -> None:
            if await self._copy(to):
                await self._remove()

        return operation(self, "move(to)", work)

    async def _copy(self, to: S3Target) -> bool:
        """Whether it is what ``to`` is now: else somebody else has made that first."""
        if (to.bucket, to.name, to.store.place) == (self.bucket, self.name, self.store.place):
            raise ValueError(f"{self.url} cannot be copied or moved to itself")
        sink = to._sink()
        try:
            if to.store == self.store:
                found = await self._do("head_object", "copied")
                await sink.copy({"Bucket": self.bucket, "Key": self.name}, found)
            else:
                async with self.open("rb") as source:
                    while data := await source.read(HOP):
                        await sink.write(data)
            await sink.commit()
        except BaseException:
            await finish(sink.discard())
            raise
        return not sink.lost

    def remove(self) -> Operation[None]:
        """Remove the object, if it is there: ``await`` it; in a sync body, ``.result()``. Raises ``OSError``."""
        return operation(self, "remove()", self._remove)

    async def _remove(self) -> None:
        await self._do("delete_object", "removed")

    async def _do(self, operation: str, done: str, **parameters: Any) -> Any:
        try:
            return await self.store.call(operation, Bucket=self.bucket, Key=self.name, **parameters)
        except FAILURES as error:
            raise translate(error, f"{self.url} cannot be {done}") from error

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, S3Target)
            and (other.bucket, other.name) == (self.bucket, self.name)
            and other.store == self.store
        )

    def __hash__(self) -> int:
        return hash((self.bucket, self.name))

    def __repr__(self) -> str:
        return f"S3Target({self.url!r})"


class S3FlagTarget(Target):
    """The folder ``s3://bucket/prefix/``, which is there when the object called ``flag`` is in it.

    For what many write into: others, like Spark, or a body of ours, which calls ``publish`` when it is complete.
    Raises ``ValueError`` for a URL that does not end in a slash, and as ``S3Target``.
    """

    def __init__(self, url: str, *, flag: str = "_SUCCESS", store: S3Store = _AWS) -> None:
        if not isinstance(url, str) or not url.endswith("/"):
            raise ValueError(f"S3FlagTarget({url!r}): expected s3://bucket/prefix/, with a slash at its end")
        self.url = url
        self.flag = S3Target(url + flag, store=store)

    @property
    def key(self) -> str:  # type: ignore[override]  # read-only here, an attribute in a user's own class
        """That of the flag."""
        return self.flag.key

    async def exists(self) -> bool:
        """Whether the flag is there. Raises ``TargetStateUnknown``."""
        return await self.flag.exists()

    @classmethod
    async def exists_many(cls, targets: Sequence[S3FlagTarget]) -> list[bool | BaseException]:
        """An answer for each, as ``S3Target.exists_many``."""
        return await S3Target.exists_many([target.flag for target in targets])

    def target(self, name: str, *, codec: Codec[Any] | None = None) -> S3Target:
        """What is called ``name`` in the folder. Raises ``ValueError`` for a name that is no key."""
        return S3Target(self.url + name, store=self.flag.store, codec=codec)

    def publish(self) -> Operation[None]:
        """Say that the folder is complete: ``await`` it; in a sync body, ``.result()``.

        Raises ``OSError``, ``TaskCancelled``.
        """
        return operation(self, "publish()", self._publish)

    async def _publish(self) -> None:
        async with self.flag.open("wb"):
            pass

    def list(self) -> Operation[Names]:
        """The names of all that is in the folder, and below, but for the flag: ``await`` it, or ``.result()``.

        Raises ``OSError``.
        """
        return operation(self, "list()", self._list)

    async def _list(self) -> Names:
        prefix = self.url.removeprefix(f"s3://{self.flag.bucket}/")
        names = []
        try:
            async for page in self.flag.store.pages("list_objects_v2", Bucket=self.flag.bucket, Prefix=prefix):
                names += [entry["Key"][len(prefix) :] for entry in page.get("Contents", ())]
        except FAILURES as error:
            raise translate(error, f"{self.url} cannot be listed") from error
        return [name for name in names if prefix + name != self.flag.name]

    def remove(self) -> Operation[None]:
        """Remove the flag, and then everything else that is in the folder, and below: ``await`` it, or ``.result()``.

        Raises ``OSError``.
        """
        return operation(self, "remove()", self._remove)

    async def _remove(self) -> None:
        await self.flag.remove()
        names = await self._list()
        prefix = self.url.removeprefix(f"s3://{self.flag.bucket}/")
        for at in range(0, len(names), 1000):  # as many as a request takes
            objects = [{"Key": prefix + name} for name in names[at : at + 1000]]
            try:
                answer = await self.flag.store.call(
                    "delete_objects", Bucket=self.flag.bucket, Delete={"Objects": objects, "Quiet": True}
                )
            except FAILURES as error:
                raise translate(error, f"{self.url} cannot be removed") from error
            if failed := answer.get("Errors"):
                raise OSError(f"{self.url}: {len(failed):,} objects are still there, first {failed[0]}")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, S3FlagTarget) and other.flag == self.flag

    def __hash__(self) -> int:
        return hash(self.flag)

    def __repr__(self) -> str:
        return f"S3FlagTarget({self.url!r})"


def _parts_of(url: str) -> tuple[str, str]:
    """The bucket and the key. Raises ``ValueError``, ``TypeError``."""
    if not isinstance(url, str):
        raise TypeError(f"S3Target({url!r}): expected a str, s3://bucket/key")
    if "@" in url.removeprefix("s3://").partition("/")[0]:
        raise ValueError("S3Target: credentials do not go into the URL; give it store=S3Store(access_key=..., ...)")
    bucket, slash, key = url.removeprefix("s3://").partition("/")
    if not url.startswith("s3://") or not slash or not key:
        raise ValueError(f"S3Target({url!r}): expected s3://bucket/key")
    if not _BUCKET.fullmatch(bucket):
        raise ValueError(f"S3Target({url!r}): {bucket!r} cannot be the name of a bucket")
    if _CONTROL.search(key):
        raise ValueError(f"S3Target({url!r}): a key must not have control characters")
    try:
        size = len(key.encode())
    except UnicodeEncodeError:
        raise ValueError(f"S3Target({url!r}): the key cannot be written in UTF-8") from None
    if size > 1024:
        raise ValueError(f"S3Target({url[:80]!r}...): a key has at most 1,024 bytes; this one has {size:,}")
    if any(segment in {"", ".", ".."} for segment in key.split("/")):
        raise ValueError(f"S3Target({url!r}): a key must not have empty, '.' or '..' segments: tools differ about them")
    return bucket, key
