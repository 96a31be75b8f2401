"""What the tests of targets share."""

from __future__ import annotations

from typing import Any

import pytest

from asyncflow.crew import Crew
from asyncflow.threads import Pool


@pytest.fixture
def hops(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Every call that the loop gives to a thread."""
    calls: list[Any] = []

    def count(owner: type, name: str) -> None:
        real = getattr(owner, name)

        def counted(self: Any, *args: Any) -> Any:
            calls.append(args)
            return real(self, *args)

        monkeypatch.setattr(owner, name, counted)

    count(Crew, "put")
    count(Pool, "submit")
    return calls
