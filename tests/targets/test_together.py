"""Several outputs at one moment: all of them are complete before the first is published, and a crash is made good."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from asyncflow import LocalTarget, Task, build
from asyncflow.targets._draft import Draft
from asyncflow.targets.together import together
from asyncflow.testing import STYLES, Outcome, Style, no_leaks, sweep
from tests.targets.remote import RemoteTarget, Store


@pytest.fixture(autouse=True)
def store() -> Iterator[Store]:
    RemoteTarget.store = Store()
    yield RemoteTarget.store
    assert not RemoteTarget.store.partial


def three(folder: Path) -> list[Any]:
    return [LocalTarget(folder / "a"), RemoteTarget("b"), LocalTarget(folder / "sub" / "c", durability="none")]


async def there(targets: list[Any]) -> list[bool]:
    return [await target.exists() for target in targets]


async def test_all_or_none(tmp_path: Path) -> None:
    targets = three(tmp_path)
    async with together(*[target.open("w") for target in targets]) as files:
        for n, file in enumerate(files):
            await file.write(f"{n}" * 300_000)
        assert await there(targets) == [False] * 3
    assert await there(targets) == [True] * 3
    async with targets[1].open() as file:
        assert await file.read() == "1" * 300_000
    with pytest.raises(ZeroDivisionError):
        async with together(*[target.open("w") for target in targets]) as files:
            await files[0].write("other")
            raise ZeroDivisionError
    assert Path(targets[0].path).read_text() == "0" * 300_000
    assert not list(tmp_path.rglob(".af-*"))


def test_all_or_none_in_sync_code(tmp_path: Path) -> None:
    targets = three(tmp_path)
    with pytest.raises(ZeroDivisionError), together(*[target.open("w") for target in targets]) as files:
        files[0].write("x")
        raise ZeroDivisionError
    assert not any(target.exists() for target in targets)
    with together(*[target.open("w") for target in targets]) as (first, second, third):
        first.write("1")
        second.write("2")
        third.write("3")
    assert all(target.exists() for target in targets)


@pytest.mark.parametrize("sync", [True, False])
async def test_what_cannot_be_stored_keeps_the_others_from_being_published(
    sync: bool, tmp_path: Path, store: Store
) -> None:
    def fail(step: str) -> None:
        if step == "prepare":
            raise ConnectionError("no room")

    def write() -> None:
        with together(*[target.open("w") for target in targets]) as files:
            files[0].write("x")

    store.fail = fail
    targets = three(tmp_path)
    with pytest.raises(ConnectionError, match="no room"):
        if sync:
            await asyncio.to_thread(write)
        else:
            async with together(*[target.open("w") for target in targets]) as files:
                await files[0].write("x")
    assert await there(targets) == [False] * 3
    assert not list(tmp_path.rglob(".af-*"))


@pytest.mark.parametrize("sync", [True, False])
async def test_a_publish_that_is_refused_does_not_keep_back_the_others(
    sync: bool, tmp_path: Path, store: Store
) -> None:
    def fail(step: str) -> None:
        if step == "commit":
            raise PermissionError("not this one")

    def write() -> None:
        with together(*[target.open("w") for target in targets]):
            pass

    store.fail = fail
    targets = three(tmp_path)
    with pytest.raises(PermissionError, match="not this one"):
        if sync:
            await asyncio.to_thread(write)
        else:
            async with together(*[target.open("w") for target in targets]):
                pass
    assert await there(targets) == [True, False, True]


def test_ctrl_c_in_sync_code_does_not_come_between(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    targets, rename = [LocalTarget(tmp_path / name) for name in "abc"], os.replace

    def pressed(name: str, to: str) -> None:
        rename(name, to)
        if to.endswith("/b"):
            raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", pressed)
    with pytest.raises(KeyboardInterrupt), together(*[target.open("w") for target in targets]) as files:
        for file in files:
            file.write("x")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "c"]


async def test_one_that_cannot_be_opened_closes_the_others(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    blocked = LocalTarget(tmp_path / "file" / "below")
    async with no_leaks(tmp_path):
        with pytest.raises(OSError, match="file"):
            async with together(LocalTarget(tmp_path / "a").open("w"), blocked.open("w")):
                raise AssertionError("it was entered")
        with pytest.raises(OSError, match="file"):
            await asyncio.to_thread(together(LocalTarget(tmp_path / "a").open("w"), blocked.open("w")).__enter__)
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("style", STYLES)
async def test_cancelled_anywhere_it_is_all_or_none(style: Style, tmp_path: Path) -> None:
    number = 0

    def targets() -> list[Any]:
        return three(tmp_path / f"{number}")

    async def write() -> None:
        nonlocal number
        number += 1
        RemoteTarget.store.whole.clear()
        async with together(*[target.open("w") for target in targets()]) as files:
            for file in files:
                await file.write("x" * 300_000)

    async def check(outcome: Outcome) -> None:
        found = await there(targets())
        assert found in ([True] * 3, [False] * 3), outcome
        assert all(found) or outcome.cancelled
        assert not list(tmp_path.rglob(".af-*")), outcome

    async with no_leaks():
        await sweep(write, check, style)


async def test_no_fence_comes_between(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The body is given up between two publishes: the second follows the first."""
    targets = [LocalTarget(tmp_path / "a"), LocalTarget(tmp_path / "b")]
    publish = Draft.publish
    attempt: Any = None

    def fencing(draft: Draft) -> None:
        publish(draft)
        attempt.fence()

    class Two(Task):
        def output(self) -> Any:
            return targets

        async def run(self) -> None:
            nonlocal attempt
            async with together(*[target.open("w") for target in targets]) as files:
                for file in files:
                    await file.write("x")
                attempt = file._draft.attempt
                monkeypatch.setattr(Draft, "publish", fencing)

    await build([Two()])
    assert await there(targets) == [True, True]


async def test_what_does_not_fit_is_refused_at_once(tmp_path: Path) -> None:
    target = LocalTarget(tmp_path / "a")
    for wrong in (target, target.open("r"), target.temporary_path(), RemoteTarget("b").open("rb"), "text"):
        with pytest.raises(TypeError, match=r'expected what open\("w"\) or open\("wb"\) of a target gives'):
            together(target.open("w"), wrong)
    for twice in (target, RemoteTarget("b")):
        with pytest.raises(ValueError, match="is given twice"):
            together(twice.open("w"), twice.open("wb"))
    block = together(target.open("w"))
    async with block:
        pass
    with pytest.raises(RuntimeError, match="entered before"):
        async with block:
            pass


CRASH = """
import asyncio, os, sys
from pathlib import Path
from asyncflow import LocalTarget, Task, run
from asyncflow.targets._draft import Draft
from asyncflow.targets.together import together

folder, crash_after = Path(sys.argv[1]), int(sys.argv[2])
replace, done = Draft._replace, 0

def crashing(draft):
    global done
    if done == crash_after:
        os._exit(9)
    replace(draft)
    done += 1

Draft._replace = crashing

class Part(Task):
    def output(self):
        return LocalTarget(folder / "part")
    async def run(self):
        print("part", flush=True)
        (folder / "part").write_text("")

class Both(Task):
    def requires(self):
        return Part()
    def output(self):
        return [LocalTarget(folder / name) for name in "abc"]
    async def run(self):
        print("both", flush=True)
        async with together(*[target.open("w") for target in self.output()]) as files:
            for file in files:
                await file.write(sys.argv[3])

run(Both()).raise_for_failure()
"""


@pytest.mark.parametrize("crash_after", [0, 1, 2])
def test_a_crash_between_two_publishes_is_made_good_by_the_next_build(crash_after: int, tmp_path: Path) -> None:
    def start(crash_after: int, text: str) -> tuple[int, list[str]]:
        process = subprocess.run(
            [sys.executable, "-c", CRASH, str(tmp_path), str(crash_after), text], capture_output=True, text=True
        )
        assert process.returncode in (0, 9), process.stderr
        return process.returncode, process.stdout.split()

    assert start(crash_after, "first") == (9, ["part", "both"])
    assert start(99, "second") == (0, []), "a finished part was run again"
    assert [(tmp_path / name).read_text() for name in "abc"] == ["first"] * 3
    assert not list(tmp_path.rglob(".af-*"))
    for name in "ab":
        (tmp_path / name).unlink()
    assert start(99, "third") == (0, ["both"])
    assert [(tmp_path / name).read_text() for name in "abc"] == ["third"] * 3


def test_what_was_made_anew_since_the_crash_stands(tmp_path: Path) -> None:
    def start(*arguments: str) -> int:
        return subprocess.run([sys.executable, "-c", CRASH, str(tmp_path), *arguments], capture_output=True).returncode

    assert start("1", "first") == 9
    (tmp_path / "b").write_text("of others")
    assert start("99", "second") == 0
    assert [(tmp_path / name).read_text() for name in "abc"] == ["first", "of others", "first"]
    assert not list(tmp_path.rglob(".af-*"))
