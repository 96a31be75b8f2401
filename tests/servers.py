"""Real servers for the tests; one that cannot be had is a skip that is counted, or a failure where it is required."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import NoReturn, TypeVar

import pytest

from examples.servers import ServerMissing

S = TypeVar("S")

missing: list[str] = []
"""Why servers could not be had, once for each of them: `conftest.py` tells at the end."""


@contextmanager
def had(server: AbstractContextManager[S]) -> Iterator[S]:
    """The server, for a fixture of the session: `with had(seaweedfs()) as s3: yield s3`."""
    try:
        given = server.__enter__()
    except ServerMissing as problem:
        lacking(str(problem))
    try:
        yield given
    finally:
        server.__exit__(None, None, None)


def lacking(problem: str) -> NoReturn:
    """What `had` does for a server that is not there, for those who are told so by others."""
    if os.environ.get("ASYNCFLOW_REQUIRE_SERVICES") == "1":
        pytest.fail(f"{problem} (ASYNCFLOW_REQUIRE_SERVICES=1: it may not be skipped)", pytrace=False)
    missing.append(problem)
    pytest.skip(problem)
