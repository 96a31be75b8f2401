"""Many questions at once, to stores that list in all kinds of ways: what is there is never said to be absent."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any
from zlib import crc32

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncflow.targets._s3 import listing
from asyncflow.targets._s3.listing import Found, present

AWS = "https://s3.eu-central-1.amazonaws.com"
OTHER = "http://127.0.0.1:8333"

ORDERS: dict[str, Callable[[str], Any]] = {
    "bytes": str.encode,
    "folders": lambda key: [segment.encode() for segment in key.split("/")],
    "none": lambda key: crc32(key.encode()),
}


class Lister:
    """A store that lists in an order of its own, and leaves the first ``lost`` keys out of every page but the first."""

    def __init__(self, keys: set[str], order: str = "bytes", *, endpoint: str = OTHER, lost: int = 0) -> None:
        self.keys = keys
        self.hidden: set[str] = set()  # that are there, and that no listing names
        self.requests: list[str] = []
        self.buckets: set[str] = set()
        self._order = ORDERS[order]
        self._endpoint = endpoint
        self._lost = lost

    @asynccontextmanager
    async def client(self) -> Any:
        yield SimpleNamespace(endpoint=self._endpoint, buckets=self.buckets)

    async def call(
        self, operation: str, *, Bucket: str, Prefix: str, MaxKeys: int, ContinuationToken: str = "0"
    ) -> dict[str, Any]:
        assert operation == "list_objects_v2"
        if Bucket.endswith("--x-s3"):
            assert Prefix == "" or Prefix.endswith("/")
        self.requests.append(Prefix)
        await asyncio.sleep(0)
        start = int(ContinuationToken)
        listed = sorted((k for k in self.keys - self.hidden if k.startswith(Prefix)), key=self._order)
        page = listed[start + (self._lost if start else 0) : start + MaxKeys]
        truncated = start + MaxKeys < len(listed)
        return {
            "Contents": [{"Key": key} for key in page],
            "IsTruncated": truncated,
            **({"NextContinuationToken": str(start + MaxKeys)} if truncated else {}),
        }

    async def head(self, key: str) -> bool:
        self.requests.append(f"HEAD {key}")
        await asyncio.sleep(0)
        return key in self.keys

    async def asked(self, keys: list[str], bucket: str = "bucket") -> Found:
        self.requests.clear()
        return await present(self, bucket, keys, self.head)  # type: ignore[arg-type]

    @property
    def heads(self) -> int:
        return sum(request.startswith("HEAD ") for request in self.requests)


keys = st.lists(st.sampled_from(["a", "a-", "ab", "\U0001f600", "\ufffd"]), min_size=1, max_size=3).map("/".join)


@settings(max_examples=100)
@given(
    st.sets(keys, max_size=40),
    st.sets(keys, min_size=11, max_size=100),
    st.sampled_from(sorted(ORDERS)),
    st.sampled_from(["bucket", "bucket--use1-az4--x-s3"]),
    st.sampled_from([(AWS, 0), (OTHER, 0), (OTHER, 2)]),
    st.sampled_from([5, 10, 1000]),
)
def test_the_answers_are_right(
    there: set[str], wanted: set[str], order: str, bucket: str, where: tuple[str, int], page: int
) -> None:
    store = Lister(there, order, endpoint=where[0], lost=where[1])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(listing, "PAGE", page)
        patch.setattr(listing, "CONFIRMED", 1)
        found = asyncio.run(store.asked(sorted(wanted), bucket))
    assert found == {key: key in there for key in wanted}
    assert len(store.requests) <= len(wanted) * (1 + 1 / listing.WORTH)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("endpoint", [AWS, OTHER])
async def test_ten_thousand_keys_are_few_requests(order: str, endpoint: str) -> None:
    wanted = [f"out/{n:06}" for n in range(10_000)]
    store = Lister(set(wanted) | {"zzz"}, order, endpoint=endpoint)
    assert all((await store.asked(wanted)).values())
    assert len(store.requests) == 10
    store.keys = {"elsewhere"}
    assert not any((await store.asked(wanted)).values())
    assert len(store.requests) == 1 + listing.CONFIRMED
    store.keys = set(wanted[:4000])
    assert list((await store.asked(wanted)).values()) == [True] * 4000 + [False] * 6000
    assert len(store.requests) <= 25
    assert endpoint == OTHER or len(store.requests) == 4 + listing.CONFIRMED


async def test_what_others_fill_is_gone_around() -> None:
    others = {f"data/{n % 100:02}/{n:05}" for n in range(50_000)}
    wanted = [f"data/{folder}/mine-{n:03}" for folder in ("07", "93") for n in range(500)]
    store = Lister(others | set(wanted[::2]))
    assert await store.asked(wanted) == {key: key in store.keys for key in wanted}
    assert len(store.requests) <= 10 + listing.CONFIRMED


async def test_a_directory_bucket_lists_whole_folders() -> None:
    wanted = [f"out/day-{n:04}" for n in range(1500)]
    store = Lister(set(wanted) | {"out/else"}, "none", endpoint=AWS)
    assert all((await store.asked(wanted, "bucket--use1-az4--x-s3")).values())
    assert store.requests == ["out/", "out/"]
    wanted = [f"out/{folder}/{n:04}" for folder in ("mine", "more") for n in range(50)]
    store = Lister(set(wanted) | {f"out/{n:05}" for n in range(10_000)}, "folders", endpoint=AWS)
    assert all((await store.asked(wanted, "bucket--use1-az4--x-s3")).values())
    assert len(store.requests) <= 4


async def test_pages_of_others_may_not_be_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "CONFIRMED", 1)
    wanted = [f"out/{n:04}" for n in range(4000)]
    store = Lister(set(wanted[1:3000]), lost=3)
    assert await store.asked(wanted) == {key: key in store.keys for key in wanted}


async def test_a_listing_that_does_not_know_what_is_there_is_not_believed() -> None:
    wanted = [f"out/{n:04}" for n in range(1000)]
    store = Lister(set(wanted))
    store.hidden = set(wanted[990:])  # it lags behind, say
    assert all((await store.asked(wanted)).values())
    store.hidden = set(wanted)
    assert all((await store.asked(wanted)).values())
    assert store.heads == 1000
    store.hidden = set(wanted[:8])
    assert all((await store.asked(wanted)).values())
    assert store.heads == 8


async def test_a_store_that_cannot_go_on_is_asked_for_each() -> None:
    class First(Lister):
        async def call(self, operation: str, **parameters: Any) -> dict[str, Any]:
            page = await super().call(operation, **parameters)
            page.pop("NextContinuationToken", None)
            return page

    wanted = [f"out/{n:04}-{'x' * (n % 2)}" for n in range(1500)]
    store = First(set(wanted[200:]), "none")
    assert await store.asked(wanted) == {key: key in store.keys for key in wanted}


@pytest.mark.parametrize(
    "endpoint",
    [
        AWS,
        "https://s3.amazonaws.com",
        "https://s3.amazonaws.com/",
        "https://s3.dualstack.us-gov-west-1.amazonaws.com",
        "https://s3-fips.us-east-1.amazonaws.com",
        "https://s3.cn-north-1.amazonaws.com.cn",
        "https://bucket.vpce-1a2b-5e6f.s3.us-east-1.vpce.amazonaws.com",
    ],
)
def test_pages_of_aws_are_whole(endpoint: str) -> None:
    assert listing._pages_are_whole(endpoint, "bucket")
    assert listing._pages_are_whole(endpoint, "bucket--use1-az4--x-s3")
    for alias in ("point-abc123-s3alias", "point-abc123--op-s3", "point-abc123--ol-s3"):
        assert not listing._pages_are_whole(endpoint, alias)


@pytest.mark.parametrize(
    "endpoint",
    [
        OTHER,
        "http://s3:8333",
        "https://s3.example.com",
        "https://s3.us-east-1.amazonaws.com.example.com",
        "https://example.com/s3.us-east-1.amazonaws.com",
        "http://ec2-198-51-100-1.compute-1.amazonaws.com:8333",
        "https://s3-1234567890.us-east-1.elb.amazonaws.com",
        "https://s3.us-east-1.elb.amazonaws.com",
        "https://s3.execute-api.us-east-1.amazonaws.com",
        "https://s3-outposts.us-east-1.amazonaws.com",
        "https://s3-object-lambda.us-east-1.amazonaws.com",
    ],
)
def test_of_others_that_is_not_known(endpoint: str) -> None:
    assert not listing._pages_are_whole(endpoint, "bucket")
