"""What all servers have in common: free ports, a process that is waited for, and stopped whatever happens."""

from __future__ import annotations

import os
import random
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ["UNPACKED", "ServerMissing", "free_ports", "listening", "program", "running"]

UNPACKED = Path(__file__).parents[2] / ".cache" / "servers"
"""Where ``fetch.sh`` has unpacked the servers that the machine did not have."""


class ServerMissing(RuntimeError):
    """The server's program is not on this machine; the message says how to get it."""


def program(name: str, hint: str, *, also: Sequence[Path] = ()) -> str:
    """The path of the program called ``name``: from ``PATH``, from ``fetch.sh``, or one of ``also``.

    Raises ``ServerMissing``, with the ``hint``.
    """
    places = [UNPACKED / "usr" / "sbin" / name, UNPACKED / "usr" / "bin" / name, *(place / name for place in also)]
    for place in places:
        if os.access(place, os.X_OK):
            return str(place)
    found = shutil.which(name)
    if found is None:
        raise ServerMissing(f"{name} is not on this machine: {hint}")
    return found


def free_ports(count: int, *, apart: int = 0) -> list[int]:
    """So many ports that nobody listens on; with ``apart``, each that is so much higher is free as well."""
    taken: list[socket.socket] = []
    ports: list[int] = []
    try:
        while len(ports) < count:
            # Below those that the system hands out: none becomes the near end of somebody's connection meanwhile.
            port = random.randrange(10_000, 32_000 - apart)
            try:
                taken.extend(socket.create_server(("127.0.0.1", one)) for one in {port, port + apart})
            except OSError:
                continue
            ports.append(port)
    finally:
        for one in taken:
            one.close()
    return ports


def listening(port: int) -> bool:
    """Whether somebody takes connections on the port."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


@contextmanager
def running(
    argv: Sequence[str],
    ready: Callable[[], bool],
    *,
    log: Path,
    env: Mapping[str, str] | None = None,
    patience: float = 30,
    gently: bool = True,
) -> Iterator[subprocess.Popen[bytes]]:
    """The program at work, from when it is ``ready()`` to the end of the block; what it says goes to ``log``.

    ``gently`` asks it to stop before it is killed. Raises ``RuntimeError`` with the end of the log if it does not come
    up within ``patience`` seconds.
    """
    with open(log, "ab") as output:
        process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env={**os.environ, **(env or {})}
        )
    try:
        deadline = time.monotonic() + patience
        while not ready():
            if process.poll() is not None or time.monotonic() > deadline:
                said = log.read_text(errors="replace")[-2000:]
                raise RuntimeError(f"{argv[0]} did not come up within {patience:.0f} s:\n{said}")
            time.sleep(0.02)
        yield process
    finally:
        if gently:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(5)
        process.kill()
        process.wait()
