"""What every target promises, as one class of tests: subclass it for a place of your own.

::

    class TestBucket(TargetContract):
        def make(self, name: str) -> Target:
            return BucketTarget(f"test/{name}")

Its tests are plain methods, each with an event loop of its own, so any runner that collects methods called ``test_*``
will do. What a target cannot be asked (one without ``open``, say, that is killed in the middle of a write) is left out,
by the hooks and attributes at the top.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Any, ClassVar

from .. import healing
from .._build import build
from .._task import Task
from ..errors import TaskCancelled
from ..target import Target, ask
from .blocking import no_blocking
from .leaks import no_leaks
from .suspension import STYLES, Outcome, Style, sweep

__all__ = ["ODD_NAMES", "TargetContract"]

Write = Callable[[bytes], Awaitable[Any]]

ODD_NAMES = (
    *(
        "two words",
        "ünïcödé-日本",
        "emoji-🦊",
        "quote'\"`$(x)",
        "back\\slash",
        "per%20cent",
        "a+b&c=d#e?f",
        "-dash",
        "~",
    ),
    *(
        ".hidden",
        "trailing ",
        "UPPER",
        "new\nline",
        "tab\there",
        "nul\0byte",
        "..",
        ".",
        "a/../b",
        "x" * 250,
        "é" * 125,
    ),
)
"""Names that have been trouble somewhere. A place takes each of them, or refuses it with a clear error."""

BLOCK = 256 * 1024

_BEGIN = """
import asyncio, pickle, sys
target = pickle.loads(bytes.fromhex(sys.argv[1]))
async def main():
    async with target.open("wb") as file:
        for _ in range(3):
            await file.write(bytes({block}))
        print("begun", flush=True)
        await asyncio.to_thread(sys.stdin.read)
asyncio.run(main())
"""


class TargetContract:
    """The tests. A subclass has a ``make``, and says with the others what its place can do."""

    replaces: ClassVar[bool] = True
    """Whether a second write replaces the first. Where not, it must fail, and leave the first as it is."""
    size: ClassVar[int] = 3 * BLOCK + 17
    """Bytes of the contents that are written: enough for several steps of a write."""

    def make(self, name: str) -> Target:
        """The target called ``name``: an equal one for the same name. Nothing is there before a test."""
        raise NotImplementedError("write make(self, name), which gives a target of the place under test")

    def writing(self, target: Any) -> AbstractAsyncContextManager[Write]:
        """A block that publishes what it has written when it ends well; ``open("wb")`` of the target by default."""

        @asynccontextmanager
        async def block() -> AsyncIterator[Write]:
            async with target.open("wb") as file:
                yield file.write

        return block()

    async def read(self, target: Any) -> bytes:
        """All that is there, by ``open("rb")`` by default."""
        async with target.open("rb") as file:
            content: bytes = await file.read()
            return content

    def leftovers(self) -> list[str]:
        """What unfinished writes have left in the place, by whatever names; nothing if there is no way to look."""
        return []

    def unknown(self) -> Target | None:
        """A target of which cannot be established whether it is there; None if there is no way to make one."""
        return None

    # Write, read --------------------------------------------------------------------------------------

    def test_absent_then_written_then_there(self) -> None:
        async def main() -> None:
            target = self.make("one")
            assert await ask(target) is False
            await self._write(target, b"content")
            assert await ask(target) is True
            assert await ask(self.make("one")) is True
            assert await ask(self.make("two")) is False
            assert await self.read(target) == b"content"

        asyncio.run(main())

    def test_nothing_is_there_before_the_block_has_ended(self) -> None:
        async def main() -> None:
            target = self.make("one")
            async with self.writing(target) as write:
                for _ in range(3):
                    await write(bytes(BLOCK))
                    assert await ask(target) is False
            assert await self.read(target) == bytes(3 * BLOCK)

        asyncio.run(main())

    def test_an_empty_content_is_there(self) -> None:
        async def main() -> None:
            target = self.make("empty")
            await self._write(target, b"")
            assert await ask(target) is True
            assert await self.read(target) == b""

        asyncio.run(main())

    def test_a_second_write(self) -> None:
        async def main() -> None:
            target = self.make("one")
            await self._write(target, b"first")
            if self.replaces:
                await self._write(target, b"second, and longer")
                assert await self.read(target) == b"second, and longer"
                return
            try:
                await self._write(target, b"second")
            except Exception:
                pass
            else:
                raise AssertionError("a second write of what is there has been taken")
            assert await self.read(target) == b"first"

        asyncio.run(main())

    def test_a_reader_sees_all_or_nothing_at_every_moment(self) -> None:
        async def main() -> None:
            done = asyncio.Event()
            target = self.make("watched")

            async def watch() -> None:
                while not done.is_set():
                    if await ask(target):
                        assert _whole(await self.read(target)), "half a content was there"
                    await asyncio.sleep(0)

            async with asyncio.TaskGroup() as group:
                group.create_task(watch())
                for n in range(10 if self.replaces else 1):
                    await self._write(target, _sealed(self.size, n))
                await asyncio.sleep(0.01)
                done.set()

        asyncio.run(main())

    # Writes that do not end well ------------------------------------------------------------------------

    def test_a_write_that_fails_leaves_nothing(self) -> None:
        async def main() -> None:
            target = self.make("failed")
            async with no_leaks():
                for count in range(4):
                    with suppress(ZeroDivisionError):
                        async with self.writing(target) as write:
                            for _ in range(count):
                                await write(bytes(BLOCK))
                            raise ZeroDivisionError
                    assert await ask(target) is False
            assert not self.leftovers()
            await self._write(target, b"after")
            assert await self.read(target) == b"after"

        asyncio.run(main())

    def test_a_write_cancelled_anywhere_leaves_nothing_or_all(self) -> None:
        for style in STYLES:
            asyncio.run(self._cancelled(style))

    async def _cancelled(self, style: Style) -> None:
        number = 0
        target = self.make(f"cancelled {style} 0")
        content = _sealed(self.size, 0)

        async def write() -> None:
            nonlocal number, target
            number += 1
            target = self.make(f"cancelled {style} {number}")
            await self._write(target, content)

        async def check(outcome: Outcome) -> None:
            there = await ask(target)
            assert there or outcome.cancelled, f"{outcome}: it was not cancelled, and nothing is there"
            if there:
                assert await self.read(target) == content, f"{outcome}: what is there is not whole"
            assert not self.leftovers(), outcome

        async with no_leaks():
            await sweep(write, check, style)

    def test_a_process_killed_in_a_write_leaves_nothing_that_shows(self) -> None:
        target = self.make("killed")
        if target.in_process or not hasattr(target, "open"):
            return
        process = subprocess.Popen(
            [sys.executable, "-c", _BEGIN.format(block=BLOCK), pickle.dumps(target).hex()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"begun\n", "the write could not be begun in another process"
        finally:
            process.kill()
            process.communicate()

        async def main() -> None:
            assert await ask(target) is False
            await asyncio.to_thread(healing.clean)
            assert not self.leftovers(), "what was begun has not been noted in the journal, or is not removed by it"
            await self._write(target, b"after")
            assert await self.read(target) == b"after"

        asyncio.run(main())

    def test_a_fenced_body_publishes_nothing(self) -> None:
        target = self.make("fenced")
        contract = self
        writing, release, ended = threading.Event(), threading.Event(), threading.Event()

        class Stubborn(Task):
            async def run(self) -> None:
                try:
                    with suppress(TaskCancelled):
                        async with contract.writing(target) as write:
                            await write(b"too late")
                            writing.set()
                            while not release.is_set():
                                with suppress(asyncio.CancelledError):
                                    await asyncio.sleep(0.001)
                finally:
                    ended.set()

        async def main() -> None:
            async with asyncio.TaskGroup() as group:
                building = group.create_task(build(Stubborn(), grace=0.1))
                while not writing.is_set():  # noqa: ASYNC110  # set by a body
                    await asyncio.sleep(0.001)
                building.cancel()
            release.set()
            while not ended.is_set():  # noqa: ASYNC110  # set by the body
                await asyncio.sleep(0.001)
            await asyncio.sleep(0.05)
            assert await ask(target) is False, "a body that was given up has published"

        asyncio.run(main())
        assert not self.leftovers()

    # Questions ------------------------------------------------------------------------------------------

    def test_a_thousand_questions_at_once(self) -> None:
        async def main() -> None:
            there = {7 * n for n in range(20)}
            for n in there:
                await self._write(self.make(f"asked {n}"), b"x")
            async with no_leaks(fds=sys.maxsize), asyncio.TaskGroup() as group:
                asking = [group.create_task(ask(self.make(f"asked {n}"))) for n in range(1000)]
            assert {n for n, question in enumerate(asking) if question.result()} == there

            class Made(Task):
                n: int
                run = None  # type: ignore[assignment]

                def output(self) -> Target:
                    return contract.make(f"asked {self.n}")

            contract = self
            result = await build([Made(n=n) for n in range(1000)])
            assert {task.n for task in result.skipped} == there  # type: ignore[attr-defined]
            assert len(result.missing) == 980

        asyncio.run(main())

    def test_unknown_is_not_absent(self) -> None:
        target = self.unknown()
        if target is None:
            return

        async def main() -> None:
            try:
                answer = await ask(target)
            except Exception as error:
                _check_words(error)
            else:
                raise AssertionError(f"exists() gave {answer}, although nobody can know")

        asyncio.run(main())

    def test_the_loop_is_not_held_up(self) -> None:
        async def main() -> None:
            target = self.make("large")
            content = _sealed(4 * self.size, 0)
            with no_blocking():
                await self._write(target, content)
                assert await ask(target)
                assert await self.read(target) == content

        asyncio.run(main())

    def test_nothing_is_left_open(self) -> None:
        async def main() -> None:
            async with no_leaks():
                for n in range(20):
                    target = self.make(f"used {n}")
                    await self._write(target, b"content")
                    assert await self.read(target) == b"content"
            assert not self.leftovers()

        asyncio.run(main())

    # Values ---------------------------------------------------------------------------------------------

    def test_a_value_like_any_other(self) -> None:
        one, again, other = self.make("one"), self.make("one"), self.make("other")
        assert one == again
        assert hash(one) == hash(again)
        assert one != other
        assert pickle.loads(pickle.dumps(one)) == one
        assert type(one).__name__ in repr(one)
        if one.key is not None:
            assert one.key == again.key != other.key

    def test_odd_names_work_or_are_refused(self) -> None:
        async def main() -> None:
            taken: dict[Target, bytes] = {}
            for name in ODD_NAMES:
                content = repr(name).encode()
                try:
                    target = self.make(name)
                    if target in taken:  # "." and "..", say, where they are what file systems take them for
                        continue
                    await self._write(target, content)
                except (ValueError, TypeError, OSError) as error:
                    _check_words(error)
                    continue
                assert await ask(target) is True, name
                taken[target] = content
            for target, content in taken.items():
                assert await self.read(target) == content, f"{target!r} was taken for another one"

        asyncio.run(main())

    async def _write(self, target: Target, content: bytes) -> None:
        async with self.writing(target) as write:
            for at in range(0, len(content), BLOCK):
                await write(content[at : at + BLOCK])


def _check_words(error: Exception) -> None:
    assert str(error), f"{type(error).__name__} says nothing"


def _sealed(size: int, n: int) -> bytes:
    """Content that says by itself whether it is whole."""
    body = (f"{n} ".encode() * (size // 2 + 1))[:size]
    return hashlib.sha256(body).digest() + body


def _whole(content: bytes) -> bool:
    return hashlib.sha256(content[32:]).digest() == content[:32]
