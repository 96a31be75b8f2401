"""PostgreSQL: a private instance, made for the block and removed with it."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from .process import UNPACKED, ServerMissing, free_ports, program

__all__ = ["Postgres", "postgres"]

HINT = "apt install postgresql, or run examples/servers/fetch.sh"
USERS = ("postgres", "nobody")
"""Who runs it where we are root: PostgreSQL refuses to."""


@dataclass(frozen=True)
class Postgres:
    """A server that is up. Everybody on this machine may connect; nothing in it outlives the block."""

    host: str
    port: int
    data: Path
    """Its data directory."""

    @property
    def url(self) -> str:
        """For SQLAlchemy, and for asyncflow's targets."""
        return f"postgresql+asyncpg://test:secret@{self.host}:{self.port}/postgres"

    @property
    def dsn(self) -> str:
        """For asyncpg."""
        return f"postgresql://test:secret@{self.host}:{self.port}/postgres"

    def restart(self) -> None:
        """Stop it as a power cut would, without a checkpoint, and start it again: it recovers from its log."""
        self.stop()
        self.start()

    def stop(self, mode: str = "immediate") -> None:
        """Stop it; ``fast`` lets it write its pages first."""
        _pg_ctl("-D", str(self.data), "-m", mode, "-w", "stop")

    def start(self) -> None:
        """Start it, and wait until it takes connections."""
        folder = self.data.parent
        options = {
            "listen_addresses": self.host,
            "unix_socket_directories": folder,
            "fsync": "off",  # a crash of the machine may take it along; one of the server does not
            "full_page_writes": "off",
            "max_connections": 100,
        }
        settings = " ".join(f"-c {name}={value}" for name, value in options.items())
        _pg_ctl("-D", str(self.data), "-w", "-l", str(folder / "log"), "-o", f"-p {self.port} {settings}", "start")


@contextmanager
def postgres() -> Iterator[Postgres]:
    """A server of its own, on a free port of this machine; 1.5 s until it is up.

    Raises ``ServerMissing`` where there is no PostgreSQL, or nobody who could run it.
    """
    initdb = _program("initdb")
    folder = Path(tempfile.mkdtemp(prefix="asyncflow-postgres-"))
    server = Postgres("127.0.0.1", free_ports(1)[0], folder / "data")
    try:
        if os.geteuid() == 0:
            shutil.chown(folder, _user())
        _call(initdb, "-D", str(server.data), "-U", "test", "-A", "trust", "--no-sync", "-E", "UTF8", "--locale=C")
        server.start()
        try:
            yield server
        finally:
            if (server.data / "postmaster.pid").exists():
                server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _program(name: str) -> str:
    """The newest there is; Debian keeps them off the ``PATH``."""
    usual = [Path("/usr/lib/postgresql"), UNPACKED / "usr" / "lib" / "postgresql"]
    places = [folder / "bin" for place in usual for folder in sorted(place.glob("*"), key=_version, reverse=True)]
    return program(name, HINT, also=places)


def _version(folder: Path) -> int:
    return int(folder.name) if folder.name.isdigit() else 0


def _pg_ctl(*args: str) -> None:
    _call(_program("pg_ctl"), *args)


def _call(path: str, *args: str) -> None:
    done = subprocess.run(
        [*_prefix(), path, *args],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE if path.endswith("initdb") else subprocess.DEVNULL,  # the server inherits pg_ctl's
        stderr=subprocess.STDOUT,
        cwd="/",  # theirs may be a folder that the other user cannot enter
        env={**os.environ, **_libraries(path)},
        check=False,
    )
    if done.returncode:
        said = done.stdout.decode(errors="replace")[-2000:] if done.stdout else "its log says more"
        raise RuntimeError(f"{path} {' '.join(args)} ended with exit code {done.returncode}: {said}")


def _libraries(path: str) -> Mapping[str, str]:
    """What an unpacked copy was linked with is beside it."""
    if not path.startswith(str(UNPACKED)):
        return {}
    found = sorted({str(library.parent) for library in (UNPACKED / "usr" / "lib").glob("*/*.so*")})
    return {"LD_LIBRARY_PATH": os.pathsep.join(found)}


def _prefix() -> Sequence[str]:
    if os.geteuid() != 0:
        return ()
    user = _user()
    return (
        program("setpriv", "apt install util-linux"),
        f"--reuid={user}",
        f"--regid={_group(user)}",
        "--clear-groups",
    )


def _user() -> str:
    for user in USERS:
        try:
            pwd.getpwnam(user)
        except KeyError:
            continue
        return user
    raise ServerMissing(f"PostgreSQL does not run as root, and there is no user {' or '.join(USERS)} on this machine")


def _group(user: str) -> int:
    return pwd.getpwnam(user).pw_gid
