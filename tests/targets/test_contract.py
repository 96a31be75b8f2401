"""Every place keeps the contract of targets; and a place that does not is found out."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from asyncflow import LocalTarget, MemoryTarget, Target
from asyncflow.testing import TargetContract


class TestLocalTarget(TargetContract):
    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path) -> None:
        self.folder = tmp_path / "store"

    def make(self, name: str) -> LocalTarget:
        return LocalTarget(f"{self.folder}/{name}", durability="none")

    def leftovers(self) -> list[str]:
        return [str(path) for path in self.folder.rglob(".af-*")]

    def unknown(self) -> Target:
        self.folder.mkdir()
        (self.folder / "loop").symlink_to("loop")
        return LocalTarget(self.folder / "loop" / "x")


class TestDurableLocalTarget(TestLocalTarget):
    def make(self, name: str) -> LocalTarget:
        return LocalTarget(f"{self.folder}/{name}")


class TestMemoryTarget(TargetContract):
    @pytest.fixture(autouse=True)
    def _empty(self) -> Iterator[None]:
        MemoryTarget.clear()
        yield
        MemoryTarget.clear()

    def make(self, name: str) -> MemoryTarget:
        return MemoryTarget(name)

    def writing(self, target: MemoryTarget) -> AbstractAsyncContextManager[Any]:
        @asynccontextmanager
        async def block() -> AsyncIterator[Any]:
            pieces: list[bytes] = []

            async def write(piece: bytes) -> None:
                pieces.append(piece)

            yield write
            target.put(b"".join(pieces))

        return block()

    async def read(self, target: MemoryTarget) -> bytes:
        value: bytes = target.get()
        return value


# A place that does not keep it ------------------------------------------------------------------------------


class PlainFile(Target):
    """Writes under its final name; does not know what it cannot see; is equal to nothing."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def exists(self) -> bool:
        return self.path.exists()

    def open(self, mode: str) -> Any:
        @asynccontextmanager
        async def block() -> AsyncIterator[Any]:
            file = open(self.path, mode)  # noqa: SIM115
            try:
                yield _Slow(file)
            finally:
                file.close()

        return block()


class _Slow:
    def __init__(self, file: Any) -> None:
        self.file = file

    async def write(self, data: bytes) -> None:
        self.file.write(data)
        self.file.flush()

    async def read(self) -> bytes:
        data: bytes = self.file.read()
        return data


class Broken(TargetContract):
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def make(self, name: str) -> PlainFile:
        return PlainFile(self.folder / name)

    def unknown(self) -> Target:
        (self.folder / "loop").symlink_to("loop")
        return PlainFile(self.folder / "loop" / "x")


@pytest.mark.parametrize(
    "promise",
    [
        "test_nothing_is_there_before_the_block_has_ended",
        "test_a_write_that_fails_leaves_nothing",
        "test_a_process_killed_in_a_write_leaves_nothing_that_shows",
        "test_a_fenced_body_publishes_nothing",
        "test_a_value_like_any_other",
        "test_unknown_is_not_absent",
    ],
)
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_place_that_breaks_a_promise_is_found_out(promise: str, tmp_path: Path) -> None:
    with pytest.raises((AssertionError, OSError)):
        getattr(Broken(tmp_path), promise)()
