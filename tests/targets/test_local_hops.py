"""A small file on the loop costs one hop to a thread, its directory is resolved once; and what that must not cost."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from asyncflow import LocalTarget, Task, TaskCancelled, TaskFailed, build, links
from asyncflow.attempt import Attempt, current
from asyncflow.targets import _draft
from asyncflow.targets._hops import HOP
from asyncflow.targets._reading import SMALL
from asyncflow.testing import leaks
from asyncflow.testing.leaks import open_files


@pytest.fixture(autouse=True)
def nothing_proven() -> Iterator[None]:
    _draft._proven.clear()
    yield
    _draft._proven.clear()


async def write(target: LocalTarget, text: str = "content") -> None:
    async with target.open("w") as out:
        await out.write(text)


def unusable(folder: Path) -> None:
    """Whoever creates a file there fails, root too."""
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    folder.write_text("a file")


# Hops ----------------------------------------------------------------------------------------------------


async def test_the_hops_of_small_files(tmp_path: Path, hops: list[Any]) -> None:
    for n, expected in enumerate([2, 1, 1]):  # the first of a directory is opened on entering
        hops.clear()
        await write(LocalTarget(tmp_path / str(n)))
        assert len(hops) == expected
    assert [path.read_text() for path in sorted(tmp_path.iterdir())] == ["content"] * 3


@pytest.mark.parametrize("mode", ["r", "rb"])
@pytest.mark.parametrize("size", [0, 1, SMALL])
async def test_a_small_file_is_read_in_the_hop_that_opens_it(
    tmp_path: Path, hops: list[Any], mode: Any, size: int
) -> None:
    path = tmp_path / "small"
    path.write_bytes(b"x" * size)
    before = open_files()
    async with LocalTarget(path).open(mode) as file:
        assert open_files() == before, "it holds no descriptor while the body does something else"
        assert len(await file.read(1)) == min(size, 1)
        assert len(await file.read()) == max(size - 1, 0)
        assert not await file.read()
    assert len(hops) == 1
    with pytest.raises(ValueError, match="closed file"):
        await file.read()


async def test_a_file_that_is_not_small_is_read_as_it_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "large"
    path.write_bytes(b"x" * (SMALL + 1))
    before = open_files()
    async with LocalTarget(path).open("rb") as file:
        assert len(open_files() - before) == 1
        assert len(await file.read()) == SMALL + 1
    assert open_files() == before


async def test_what_cannot_be_decoded_is_told_when_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "latin"
    path.write_bytes(b"na\xefve")
    async with LocalTarget(path).open() as file:
        with pytest.raises(UnicodeDecodeError):
            await file.read()


async def test_a_pipe_is_not_read_ahead(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    end = os.open(path, os.O_RDWR)
    try:
        os.write(end, b"one\n")
        async with asyncio.timeout(10), LocalTarget(path).open("rb") as file:  # its other end stays open
            assert file is not None
    finally:
        os.close(end)


async def test_the_hops_of_a_large_file(tmp_path: Path, hops: list[Any]) -> None:
    await write(LocalTarget(tmp_path / "first"))
    hops.clear()
    async with LocalTarget(tmp_path / "large").open("wb") as out:
        for _ in range(2):
            await out.write(b"x" * HOP)
        await out.write(b"the rest")
    assert len(hops) == 3


async def test_a_body_that_fails_before_it_has_written_costs_no_hop(tmp_path: Path, hops: list[Any]) -> None:
    await write(LocalTarget(tmp_path / "first"))
    hops.clear()
    with pytest.raises(LookupError):
        async with LocalTarget(tmp_path / "out").open("w") as out:
            await out.write("small")
            raise LookupError
    async with LocalTarget(tmp_path / "out").open("w") as out:
        await out.close()
        with pytest.raises(ValueError, match="closed"):
            await out.write("more")
        with pytest.raises(ValueError, match="nothing more is published"):
            await out.commit()
    assert hops == []
    assert [path.name for path in tmp_path.iterdir()] == ["first"]


async def test_a_file_nothing_is_written_to_is_empty_and_there(tmp_path: Path) -> None:
    for name in ("first", "second"):
        async with LocalTarget(tmp_path / name).open("w"):
            pass
        assert (tmp_path / name).read_text() == ""


async def test_handles_that_wait_hold_no_descriptor(tmp_path: Path) -> None:
    """A thousand bodies with an output open at once do not need a thousand descriptors."""
    await write(LocalTarget(tmp_path / "first"))
    before = leaks.Snapshot.take()
    async with LocalTarget(tmp_path / "out").open("w") as out:
        await out.write("small")
        leaks.check_open_files(before)
        assert [path.name for path in tmp_path.iterdir()] == ["first"]


async def test_a_forgotten_handle_that_has_written_nothing(tmp_path: Path, hops: list[Any]) -> None:
    await write(LocalTarget(tmp_path / "first"))
    hops.clear()
    out = await LocalTarget(tmp_path / "out").open("w").__aenter__()
    await out.write("half")
    del out
    gc.collect()
    assert hops == []
    assert [path.name for path in tmp_path.iterdir()] == ["first"]


async def test_what_comes_while_the_file_is_published_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It could not be in the file any more, and must not be lost in silence."""
    publishing, go = threading.Event(), threading.Event()
    replace = os.replace

    def held(*args: Any) -> None:
        publishing.set()
        assert go.wait(10)
        replace(*args)

    monkeypatch.setattr(os, "replace", held)
    async with LocalTarget(tmp_path / "out").open("w") as out:
        await out.write("whole")
        commit = asyncio.create_task(out.commit())
        while not publishing.is_set():
            await asyncio.sleep(0.001)
        try:
            with pytest.raises(ValueError, match="closed"):
                await out.write(" and more")
        finally:
            go.set()
        await commit
    assert (tmp_path / "out").read_text() == "whole"


# Where errors come ---------------------------------------------------------------------------------------


async def test_a_directory_that_was_never_any_good_is_told_on_entering(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.write_text("a file")
    for _ in range(2):
        entered = False
        with pytest.raises(OSError, match=r"'.*/folder/out'"):
            async with LocalTarget(folder / "out").open("w"):
                entered = True
        assert not entered


@pytest.mark.parametrize("size", [1, HOP])
async def test_a_directory_that_has_become_unusable(tmp_path: Path, size: int) -> None:
    """Told by the first hop, and from then on when the block is entered."""
    folder = tmp_path / "folder"
    await write(LocalTarget(folder / "first"))
    unusable(folder)
    reached = []
    with pytest.raises(OSError, match=r"'.*/folder/out'") as caught:
        async with LocalTarget(folder / "out").open("w") as out:
            reached.append("entered")
            await out.write("x" * size)
            reached.append("written")
    assert ".af-" not in str(caught.value)
    assert reached == (["entered", "written"] if size < HOP else ["entered"])
    with pytest.raises(OSError, match=r"'.*/folder/out'"):
        async with LocalTarget(folder / "out").open("w"):
            pytest.fail("entered")


async def test_an_error_of_opening_that_the_body_swallows_comes_again(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    await write(LocalTarget(folder / "first"))
    unusable(folder)
    with pytest.raises(OSError, match=r"'.*/folder/out'"):
        async with LocalTarget(folder / "out").open("w") as out:
            with pytest.raises(OSError, match="folder"):
                await out.write("x" * HOP)
            folder.unlink()  # usable again: what was written is lost all the same
    assert not folder.exists()


async def test_a_body_whose_output_cannot_be_created_fails(tmp_path: Path) -> None:
    class Make(Task):
        n: int

        def output(self) -> LocalTarget:
            return LocalTarget(tmp_path / "folder" / str(self.n))

        async def run(self) -> None:
            async with self.output().open("w") as out:
                if self.n:
                    unusable(tmp_path / "folder")
                await out.write("x")

    assert await build([Make(n=0)])
    result = await build([Make(n=1)])
    assert result.counts == {"failed": 1}
    with pytest.raises(TaskFailed, match="Not a directory: '.*/folder/1'"):
        result[Make(n=1)]


async def test_a_directory_that_has_gone_is_made_again(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    await write(LocalTarget(folder / "first"))
    (folder / "first").unlink()
    os.removedirs(folder)
    await write(LocalTarget(folder / "second"))
    assert (folder / "second").read_text() == "content"


async def test_wrong_options_are_told_at_once(tmp_path: Path) -> None:
    await write(LocalTarget(tmp_path / "first"))
    for wrong, options in ((LookupError, {"encoding": "nope"}), (ValueError, {"newline": "x"})):
        with pytest.raises(wrong):
            async with LocalTarget(tmp_path / "out").open("w", **options):  # type: ignore[call-overload]
                pytest.fail("entered")


def test_no_more_directories_are_remembered_than_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_draft, "PROVEN", 3)
    for n in range(10):
        with LocalTarget(tmp_path / str(n) / "out").open("w"):
            assert str(tmp_path / str(n)) in _draft._proven
        assert len(_draft._proven) <= 3


# Whose file it is ----------------------------------------------------------------------------------------


def an_attempt() -> Attempt:
    class Some(Task):
        def run(self) -> None: ...

    return Attempt(Some(), None, None)  # type: ignore[arg-type]


async def test_a_file_opened_late_is_that_of_the_attempt_that_entered(tmp_path: Path) -> None:
    await write(LocalTarget(tmp_path / "first"))
    target, mine, another = LocalTarget(tmp_path / "out"), an_attempt(), an_attempt()
    token = current.set(mine)
    try:
        async with target.open("w") as out:
            current.set(another)
            await out.write("x")
    finally:
        current.reset(token)
    assert mine.published == {target.key}
    assert another.published is None


async def test_a_file_opened_late_is_not_published_by_a_fenced_attempt(tmp_path: Path) -> None:
    await write(LocalTarget(tmp_path / "first"))
    attempt = an_attempt()
    token = current.set(attempt)
    try:
        with pytest.raises(TaskCancelled):
            async with LocalTarget(tmp_path / "out").open("w") as out:
                await out.write("x")
                attempt.fence()
                current.set(None)
    finally:
        current.reset(token)
    assert [path.name for path in tmp_path.iterdir()] == ["first"]


# The directory, resolved ---------------------------------------------------------------------------------


class Linked(Task):
    """Its output lies behind a link; it tells the key."""

    folder: Path
    n: int

    def output(self) -> LocalTarget:
        return LocalTarget(self.folder / "link" / str(self.n))

    async def run(self) -> None:
        await write(self.output(), self.output().key)


class LinkedInThread(Linked):
    def run(self) -> None:  # type: ignore[override]
        with self.output().open("w") as out:
            out.write(self.output().key)


def turned(folder: Path, to: str) -> None:
    (folder / to).mkdir(exist_ok=True)
    (folder / "link").unlink(missing_ok=True)
    (folder / "link").symlink_to(folder / to)


@pytest.mark.parametrize("kind", [Linked, LinkedInThread])
async def test_a_build_resolves_a_directory_once(
    tmp_path: Path, kind: type[Linked], monkeypatch: pytest.MonkeyPatch
) -> None:
    turned(tmp_path, "one")
    resolved: list[str] = []
    real: Callable[[str], str] = os.path.realpath

    def counted(path: str) -> str:
        resolved.append(path)
        return real(path)

    monkeypatch.setattr(os.path, "realpath", counted)
    assert await build([kind(folder=tmp_path, n=n) for n in range(20)])
    assert resolved == [str(tmp_path / "link")]


@pytest.mark.parametrize("kind", [Linked, LinkedInThread])
async def test_a_link_turned_between_two_builds_is_noticed(tmp_path: Path, kind: type[Linked]) -> None:
    for to in ("one", "two"):
        turned(tmp_path, to)
        assert await build([kind(folder=tmp_path, n=1)])
        assert (tmp_path / to / "1").read_text() == f"file://{os.path.realpath(tmp_path)}/{to}/1"


def test_outside_of_builds_nothing_is_remembered(tmp_path: Path) -> None:
    for to in ("one", "two"):
        turned(tmp_path, to)
        assert LocalTarget(tmp_path / "link" / "out").key.endswith(f"/{to}/out")


def test_a_build_remembers_no_more_than_fits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(links, "LIMIT", 3)
    resolve = links.remembering()
    for n in range(10):
        resolve(str(tmp_path / str(n)))
    assert resolve.cache_info().currsize == 3  # type: ignore[attr-defined]
