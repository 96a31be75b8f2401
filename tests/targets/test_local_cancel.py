"""Cancel at every suspension point of a local write and read: the file is absent or whole, nothing is left."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from asyncflow import LocalTarget
from asyncflow.targets import _draft, _hops
from asyncflow.targets._hops import HOP
from asyncflow.testing import STYLES, Outcome, Style, leaks, sweep
from asyncflow.threads import files

BLOCK = b"0123456789abcdef" * 4096  # 64 kB


def sealed(body: bytes) -> bytes:
    """Content that says by itself whether it is whole."""
    return hashlib.sha256(body).digest() + body


def whole(content: bytes) -> bool:
    return hashlib.sha256(content[32:]).digest() == content[:32]


class Judge:
    """What has to hold after each run."""

    def __init__(self, target: LocalTarget, *, old: bytes | None = None) -> None:
        self.target = target
        self.path = Path(target.path)
        self.old = old
        self.before = leaks.Snapshot.take()
        self.published = 0

    async def __call__(self, outcome: Outcome) -> None:
        assert leaks.other_tasks() == [], outcome
        assert await self._at_rest(), outcome
        content = self.path.read_bytes() if self.path.exists() else None
        if not outcome.reached:
            assert content is not None
            assert content != self.old
        if content is None:
            assert self.old is None, f"{outcome}: what was there before is gone"
        elif content != self.old:
            self.published += 1
            assert whole(content), f"{outcome}: a part of the content is visible"
        assert [entry.name for entry in self.path.parent.iterdir() if entry != self.path] == [], outcome
        leaks.check_open_files(self.before)
        # A clean write works after it.
        async with self.target.open("wb") as file:
            await file.write(sealed(b"clean"))
        assert self.path.read_bytes() == sealed(b"clean")
        if self.old is None:
            self.path.unlink()
        else:
            self.path.write_bytes(self.old)

    async def _at_rest(self) -> bool:
        """The threads are, as soon as the last hop's own last instructions are done; no call may be waiting."""
        for _ in range(1000):
            if files._working == 0 and all(crew.at_rest for crew in _hops._crews.values()):
                return True
            await asyncio.sleep(0.001)
        return False


@pytest.fixture(params=["first", "again"])
def opening(request: pytest.FixtureRequest) -> Callable[[], int]:
    """Called as a body begins: its file is opened as it enters the block, or by the first hop that writes.

    Gives the suspensions which that costs.
    """
    if request.param == "again":
        return lambda: 0

    def forget() -> int:
        _draft._proven.clear()
        return 1

    return forget


@pytest.mark.parametrize("style", STYLES)
async def test_write(tmp_path: Path, style: Style, opening: Callable[[], int]) -> None:
    target = LocalTarget(tmp_path / "new" / "out.bin")
    (tmp_path / "new").mkdir()
    judge = Judge(target)
    content = sealed(BLOCK * 10)  # 640 kB: two hops, and the rest with the commit

    async def write() -> None:
        opening()
        async with target.open("wb") as file:
            for at in range(0, len(content), 50_000):
                await file.write(content[at : at + 50_000])

    points = await sweep(write, judge, style)
    assert points == opening() + 3  # two hops, commit
    assert judge.published >= 1


@pytest.mark.parametrize("style", STYLES)
async def test_write_over_an_old_file(tmp_path: Path, style: Style, opening: Callable[[], int]) -> None:
    old = sealed(b"old")
    target = LocalTarget(tmp_path / "out.bin", durability="none")
    Path(target.path).write_bytes(old)
    judge = Judge(target, old=old)

    async def write() -> None:
        opening()
        async with target.open("wb") as file:
            await file.write(sealed(b"new"))

    assert await sweep(write, judge, style) == opening() + 1


@pytest.mark.parametrize("style", STYLES)
async def test_temporary_path(tmp_path: Path, style: Style) -> None:
    target = LocalTarget(tmp_path / "out.bin")
    judge = Judge(target)

    async def write() -> None:
        async with target.temporary_path() as path:
            with open(path, "wb") as file:
                file.write(sealed(b"by a program"))
            await asyncio.sleep(0)

    assert await sweep(write, judge, style) >= 3


@pytest.mark.parametrize("style", STYLES)
async def test_an_error_and_a_cancel_together(tmp_path: Path, style: Style, opening: Callable[[], int]) -> None:
    target = LocalTarget(tmp_path / "out.bin")
    before = leaks.Snapshot.take()

    async def write() -> None:
        opening()
        try:
            async with target.open("wb") as file:
                await file.write(b"half" * HOP)
                raise LookupError("the body's own")
        except LookupError:
            pass

    def check(outcome: Outcome) -> None:
        assert list(tmp_path.iterdir()) == [], outcome
        leaks.check_open_files(before)

    assert await sweep(write, check, style) >= 2


@pytest.mark.parametrize("style", STYLES)
async def test_read_of_a_small_file(tmp_path: Path, style: Style) -> None:
    path = tmp_path / "in.txt"
    path.write_text("a\nb\n")
    before = leaks.Snapshot.take()

    async def read() -> None:
        async with LocalTarget(path).open() as file:
            assert [line async for line in file] == ["a\n", "b\n"]

    async def check(outcome: Outcome) -> None:
        leaks.check_open_files(before)
        assert leaks.other_tasks() == [], outcome

    assert await sweep(read, check, style) >= 1


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("how", ["read", "lines"])
async def test_read(tmp_path: Path, style: Style, how: str) -> None:
    path = tmp_path / "in.txt"
    text = "".join(f"line {n}\n" for n in range(60_000))  # 700 kB: three hops
    path.write_text(text)
    before = leaks.Snapshot.take()

    async def read() -> None:
        async with LocalTarget(path).open() as file:
            if how == "read":
                assert await file.read() == text
            else:
                lines = [line async for line in file]
                assert "".join(lines) == text

    def check(outcome: Outcome) -> None:
        leaks.check_open_files(before)
        assert leaks.other_tasks() == []

    assert await sweep(read, check, style) >= (3 if how == "read" else 5)


@pytest.mark.parametrize("style", ["native", "late", "timeout"])
async def test_what_a_cancelled_read_has_read_is_not_lost(tmp_path: Path, style: Style) -> None:
    path = tmp_path / "in.txt"
    text = "".join(f"line {n}\n" for n in range(60_000))
    path.write_text(text)
    for how, mode in itertools.product(("line", "read", "readline", "sizes", "mixed"), ("r", "rb")):
        async with LocalTarget(path).open(mode) as file:  # type: ignore[call-overload]
            seen: list[Any] = []

            # Run in this very turn of the for, so B023 does not apply to what follows.
            async def some() -> None:
                if how == "line":  # noqa: B023
                    async for line in file:
                        seen.append(line)  # noqa: B023, PERF401
                elif how == "read":  # noqa: B023
                    seen.append(await file.read())  # noqa: B023
                else:
                    while data := await (
                        file.readline()
                        if how == "readline" or (how == "mixed" and len(seen) % 2)  # noqa: B023
                        else file.read(len(seen) * 997 % 10_000 + 1)  # noqa: B023
                    ):
                        seen.append(data)  # noqa: B023

            # Each run is cancelled at its n-th suspension and the next one goes on with the same handle.
            await sweep(some, lambda outcome: None, style)
            assert (b"" if mode == "rb" else "").join(seen) == (text.encode() if mode == "rb" else text), (how, mode)


async def test_lines_after_a_cancelled_read_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asyncflow.targets._reading.SMALL", -1)
    path = tmp_path / "in.txt"
    path.write_text("a\nb\n")
    async with LocalTarget(path).open() as file:
        task = asyncio.create_task(file.read())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        with pytest.raises(ValueError, match="another read"):
            await anext(file)
        assert await file.read() == "a\nb\n"
        with pytest.raises(StopAsyncIteration):
            await anext(file)


@pytest.mark.parametrize("style", ["native", "late", "timeout"])
async def test_what_a_cancelled_write_was_given_is_written_once(tmp_path: Path, style: Style) -> None:
    target = LocalTarget(tmp_path / "out.txt")
    chunks = iter(range(1000))
    given: list[str] = []
    async with target.open("w") as file:

        async def some() -> None:
            for _ in range(3):
                chunk = f"{next(chunks):08d}" * (HOP // 8)
                given.append(chunk)
                await file.write(chunk)

        await sweep(some, lambda outcome: None, style)
    assert Path(target.path).read_text() == "".join(given)


# A cancel while the hop is at a known place ----------------------------------------------------------------


class Gate:
    """Holds a function of a module in its thread until it is opened."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, *, after: bool = False) -> None:
        self.entered = threading.Event()
        self.open = threading.Event()
        real = getattr(owner, name)

        def gated(*args: Any, **kwargs: Any) -> Any:
            if after:
                result = real(*args, **kwargs)
            self.entered.set()
            assert self.open.wait(10)
            return result if after else real(*args, **kwargs)

        monkeypatch.setattr(owner, name, gated)

    async def reached(self) -> None:
        while not self.entered.is_set():
            await asyncio.sleep(0.001)


@pytest.mark.parametrize(("call", "after"), [("fsync", False), ("replace", False), ("replace", True)])
async def test_cancelled_only_after_a_publish_in_flight(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, after: bool
) -> None:
    target = LocalTarget(tmp_path / "out.bin")

    async def write() -> None:
        async with target.open("wb") as file:
            await file.write(sealed(b"content"))

    gate = Gate(monkeypatch, _draft.os, call, after=after)
    task = asyncio.create_task(write())
    await gate.reached()
    task.cancel()
    for _ in range(20):
        await asyncio.sleep(0)
    assert not task.done()
    gate.open.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert whole(Path(target.path).read_bytes())
    assert len(list(tmp_path.iterdir())) == 1


async def test_cancelled_while_a_write_is_in_its_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is closed after the hop has ended, not under its feet."""
    target = LocalTarget(tmp_path / "out.bin")
    entered, go, order = threading.Event(), threading.Event(), list[str]()

    async def write() -> None:
        async with target.open("wb") as file:
            writer = file._opened()
            real = writer.write

            def slow(data: bytes) -> int:
                entered.set()
                assert go.wait(10)
                order.append("written" if not writer.closed else "closed first")
                return int(real(data))

            monkeypatch.setattr(writer, "write", slow)
            await file.write(BLOCK * 4)

    task = asyncio.create_task(write())
    while not entered.is_set():
        await asyncio.sleep(0.001)
    for _ in range(3):
        task.cancel()
        await asyncio.sleep(0)
    go.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert order == ["written"]
    assert list(tmp_path.iterdir()) == []


def test_a_second_cancel_while_unwinding_at_the_end_of_the_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, abandoned: Callable[..., None]
) -> None:
    """`asyncio.run` cancels every task at its end, also the step itself: the publish is still seen to its end."""
    abandoned(tasks=2)
    target = LocalTarget(tmp_path / "out.bin")
    gate = Gate(monkeypatch, _draft.os, "replace")
    left: list[asyncio.Task[None]] = []

    async def write() -> None:
        async with target.open("wb") as file:
            await file.write(sealed(b"content"))

    async def main() -> None:
        left.append(asyncio.create_task(write()))
        await gate.reached()
        asyncio.get_running_loop().call_later(0.05, gate.open.set)

    asyncio.run(main())
    assert left[0].cancelled()
    assert gate.open.is_set()  # asyncio.run has waited for the publish
    assert whole(Path(target.path).read_bytes())
