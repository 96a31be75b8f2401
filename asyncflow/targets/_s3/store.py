"""``S3Store``: where buckets are, and who asks. One client for each loop and store."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any, Literal, get_args
from urllib.parse import urlsplit, urlunsplit
from weakref import WeakValueDictionary

import aiobotocore
from aiobotocore.config import AioConfig
from aiobotocore.session import AioSession
from botocore.exceptions import ClientError, ReadTimeoutError

from ... import clients, healing
from ..._version import __version__
from .._hops import in_thread
from .errors import expired

__all__ = ["Client", "S3Store", "store_of"]

AddressingStyle = Literal["auto", "path", "virtual"]


@dataclass(frozen=True, kw_only=True)
class S3Store:
    """Where buckets are. With nothing given: AWS, with the credentials, region and endpoint that its tools would find.

    For others (Ceph, R2, SeaweedFS) ``endpoint_url`` says where; it is kept in one spelling: the host in small letters,
    no port that goes without saying, no slash at the end. ``access_key`` and ``secret_key`` go together.
    ``connections`` are open at most, to one store from one loop. ``connect_timeout`` and ``read_timeout`` are in
    seconds, for each of ``attempts`` requests.

    Raises ``TypeError`` and ``ValueError`` for what makes no sense.
    """

    endpoint_url: str | None = None
    region: str | None = None
    access_key: str | None = None
    secret_key: str | None = field(default=None, repr=False)
    session_token: str | None = field(default=None, repr=False)
    profile: str | None = None
    addressing_style: AddressingStyle = "auto"
    """``path`` is what an endpoint that is given gets by ``auto``: few of them have a name for each bucket."""
    connections: int = 50
    connect_timeout: float = 5.0
    read_timeout: float = 30.0
    attempts: int = 4

    def __post_init__(self) -> None:
        for name in ("endpoint_url", "region", "access_key", "secret_key", "session_token", "profile"):
            given = getattr(self, name)
            if given is not None and not isinstance(given, str):
                raise TypeError(f"S3Store({name}=...): expected a str, not a {type(given).__name__}")
        if (self.access_key is None) != (self.secret_key is None):
            raise ValueError("S3Store: access_key and secret_key go together; leave out both to have them found")
        if self.endpoint_url is not None and not re.match("https?://[^/]", self.endpoint_url):
            raise ValueError(f"S3Store(endpoint_url={self.endpoint_url!r}): expected http://host or https://host")
        if self.endpoint_url is not None:  # one place has one name, here and in the keys of targets
            object.__setattr__(self, "endpoint_url", _one_spelling(self.endpoint_url))
        if self.addressing_style not in get_args(AddressingStyle):
            raise ValueError(f"S3Store(addressing_style={self.addressing_style!r}): expected auto, path or virtual")
        for name in ("connections", "attempts"):
            if not isinstance(getattr(self, name), int) or getattr(self, name) < 1:
                raise ValueError(f"S3Store({name}={getattr(self, name)!r}): expected 1 or more, a whole number")
        for name in ("connect_timeout", "read_timeout"):
            if not isinstance(getattr(self, name), (int, float)) or not getattr(self, name) > 0:
                raise ValueError(f"S3Store({name}={getattr(self, name)!r}): expected seconds, more than 0")
        self._remember()

    @property
    def identity(self) -> dict[str, str | None]:
        """What tells it from others, without secrets: for the journal."""
        return {name: getattr(self, name) for name in _IDENTITY}

    @property
    def place(self) -> tuple[str | None, ...]:
        """Where it is: the same objects are there for all that have the same."""
        return self.endpoint_url, self.region, self.profile

    def _remember(self) -> None:
        name = str(self.identity)
        if name not in _known:
            _known[name] = self
            healing.again()

    def client(self) -> clients.use[Client]:
        """A block that has the client of the running loop."""
        return clients.use(("s3", self), self._open)

    async def call(self, operation: str, **parameters: Any) -> Any:
        """Ask the store once, ``attempts`` times if it must be. Credentials that have expired are looked for anew.

        A ``Body`` is ``bytes``. Raises what botocore raises: see ``errors.translate``.
        """
        async with self.client() as client:
            try:
                return await self._call(client, operation, parameters)
            except ClientError as error:
                if not expired(error):
                    raise
                await clients.renew(("s3", self), client)
        async with self.client() as client:
            return await self._call(client, operation, parameters)

    async def _call(self, client: Client, operation: str, parameters: dict[str, Any]) -> Any:
        data = parameters.get("Body", b"")
        if len(data) <= SMALL:
            return await client.call(operation, parameters)
        body = Body(data, self.read_timeout)
        try:
            async with body.watched:
                return await client.call(operation, {**parameters, "Body": body})
        except TimeoutError as error:
            raise ReadTimeoutError(endpoint_url=self.endpoint_url or "AWS", error=error) from error

    async def pages(self, operation: str, **parameters: Any) -> AsyncIterator[Any]:
        """One answer after the other, of an operation that has a ``ContinuationToken``."""
        while True:
            page = await self.call(operation, **parameters)
            yield page
            if not page.get("IsTruncated"):
                return
            parameters["ContinuationToken"] = page["NextContinuationToken"]

    async def _open(self) -> Client:
        await in_thread(_read_descriptions)
        session = AioSession(profile=self.profile)
        session.register_component("data_loader", _loader())
        style = "path" if self.addressing_style == "auto" and self.endpoint_url else self.addressing_style
        others = {} if self.endpoint_url is None else _FOR_OTHERS
        config = AioConfig(
            max_pool_connections=self.connections,
            connect_timeout=self.connect_timeout,
            read_timeout=self.read_timeout,
            retries={"mode": "standard", "total_max_attempts": self.attempts},
            s3={"addressing_style": style},
            # Else the library finds out twice a request on what system it runs, and with which of its parts.
            user_agent=f"asyncflow/{__version__} aiobotocore/{aiobotocore.__version__}",
            **others,
        )
        manager = session.create_client(
            "s3",
            region_name=self.region or (None if self.endpoint_url is None else "us-east-1"),
            endpoint_url=self.endpoint_url,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            aws_session_token=self.session_token,
            config=config,
        )
        return Client(manager, await manager.__aenter__())


def _one_spelling(endpoint: str) -> str:
    """The same for all endpoints that are the same. Raises ``ValueError`` for a port that is none."""
    try:
        parts = urlsplit(endpoint)
        port = parts.port
    except ValueError as error:
        raise ValueError(
            f"S3Store(endpoint_url={endpoint!r}): expected http://host or https://host, with or without a port: {error}"
        ) from None
    login, at, place = parts.netloc.rpartition("@")
    place = re.sub(r":\d*$", "", place).lower()
    if port not in {None, _PORTS[parts.scheme]}:
        place = f"{place}:{port}"
    return urlunsplit((parts.scheme, login + at + place, parts.path.rstrip("/"), parts.query, parts.fragment))


_PORTS = {"http": 80, "https": 443}  # that go without saying

# Checksums at the end of a body are newer than many of the other stores.
_FOR_OTHERS = {"request_checksum_calculation": "when_required", "response_checksum_validation": "when_required"}

SMALL = 64 * 1024
"""Bytes of a body that are handed to the system at once."""


class Body(BytesIO):
    """A body that is sent piece by piece. A store that takes no more is waited for ``patience`` seconds at most."""

    def __init__(self, data: bytes, patience: float) -> None:
        super().__init__(data)
        self._data = data
        self._patience = patience
        self.watched = asyncio.timeout(None)

    def getbuffer(self) -> memoryview:
        """All of it. The library asks for that to know how much it is, and the inherited method would copy it."""
        return memoryview(self._data)

    def read(self, size: int | None = -1, /) -> bytes:
        """The next piece; at the end the library's own limit for the answer begins."""
        data = super().read(size)
        with suppress(RuntimeError):  # its time is up, or the call has ended: the library has not heard of it yet
            self.watched.reschedule(asyncio.get_running_loop().time() + self._patience if data else None)
        return data


_IDENTITY = ("endpoint_url", "region", "access_key", "profile", "addressing_style")

_known: WeakValueDictionary[str, S3Store] = WeakValueDictionary()  # the stores of this process, by identity


def store_of(identity: dict[str, Any]) -> S3Store:
    """The store that another process has noted, by ``identity``, as this one can reach it.

    One whose credentials were given is known here only if it has been made here too. Raises ``OSError`` otherwise.
    """
    store = _known.get(str(identity))
    if store is None:
        if identity["access_key"] is not None:
            raise OSError("a store whose credentials this process does not know")
        store = S3Store(**identity)
    return store


_AWS = re.compile(
    r"https?://([^/]+\.)?s3(-fips|-accelerate)?(\.dualstack)?(\.[a-z]+(-[a-z]+)+-\d+)?(\.vpce)?\.amazonaws\.com(\.cn)?"
)
"""Endpoints of AWS's own S3, and not of what somebody runs on machines there."""


def is_aws(endpoint: str) -> bool:
    """Whether that is AWS's own S3."""
    return _AWS.fullmatch(endpoint.rstrip("/")) is not None


class Client:
    """A client of botocore's kind, and what has been learnt of its buckets."""

    def __init__(self, manager: Any, api: Any) -> None:
        self._manager = manager
        self._api = api
        self.buckets: set[str] = set()  # that are there
        self.conditional: dict[str, bool] = {}  # by bucket, whether it keeps conditions
        self.asking = asyncio.Lock()  # about that

    @property
    def endpoint(self) -> str:
        """Where it asks: what was given, or what was found in the environment, or AWS's own."""
        return str(self._api.meta.endpoint_url)

    async def call(self, operation: str, parameters: dict[str, Any]) -> Any:
        """``operation`` of the API."""
        return await getattr(self._api, operation)(**parameters)

    async def close(self) -> None:
        """Close every connection."""
        await self._manager.__aexit__(None, None, None)


_shared_loader: Any = None


def _loader() -> Any:
    """Reads the descriptions of services, and remembers them: one for the process."""
    global _shared_loader
    if _shared_loader is None:
        _shared_loader = AioSession().get_component("data_loader")
    return _shared_loader


def _read_descriptions() -> None:
    """In a thread, before a client is made: 0.1 s the first time."""
    loader = _loader()
    loader.load_service_model("s3", "service-2")
    loader.load_service_model("s3", "endpoint-rule-set-1")
    loader.load_data("endpoints")
