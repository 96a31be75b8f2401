"""Tasks for worker processes, which import this module."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Generator
from pathlib import Path
from typing import Any

from asyncflow import LocalTarget, MemoryTarget, Task, build, gather, together


class InProcess(Task):
    runner = "process"


class Number(InProcess):
    n: int

    def run(self) -> int:
        return self.n


class Pid(InProcess):
    n: int = 0
    seconds: float = 0.0

    def run(self) -> int:
        time.sleep(self.seconds)
        return os.getpid()


class OnLoop(Task):
    n: int

    async def run(self) -> int:
        await asyncio.sleep(0)
        return os.getpid()


class Square(InProcess):
    n: int

    def requires(self) -> Number:
        return Number(n=self.n)

    def run(self) -> int:
        value: int = self.input()
        return value**2


class Yields(InProcess):
    """Counts how often it is entered, in a file."""

    folder: Path

    def run(self) -> Generator[Any, Any, list[int]]:
        with open(self.folder / "entered", "a", encoding="utf-8") as file:
            file.write("x")
        one = yield Number(n=1)
        two, three = yield [Number(n=2), OnLoop(n=3)]
        try:
            yield Fails(kind="plain")
        except Exception as error:
            failure = type(error).__name__, type(error.__cause__).__name__
        return [one, two, three, failure]


class Requires(InProcess):
    def run(self) -> list[Any]:
        return [self.require(Number(n=1)), *self.require([Number(n=2), Number(n=3)])]


class RequiresInThread(Task):
    def run(self) -> list[Any]:
        return [self.require(Number(n=1)), *self.require([OnLoop(n=2), Number(n=3)])]


class Awaits(InProcess):
    async def run(self) -> list[int]:
        a, b = await gather(Number(n=1), Number(n=2))
        c = await asyncio.wait_for(Number(n=3), 30)
        return [a, b, c, await OnLoop(n=4)]


class HasALoopOfItsOwn(InProcess):
    """A sync body that runs a loop, and builds on it."""

    def run(self) -> Any:
        async def main() -> Any:
            return (await build(Number(n=7)))[Number(n=7)]

        return asyncio.run(main())


class LeavesOne(InProcess):
    """Does not wait to the end for what it has asked for."""

    async def run(self) -> str:
        try:
            await asyncio.wait_for(Sleeps(seconds=60), 0.2)
        except TimeoutError:
            await NobodySleeps()
            return "left"
        return "stayed"


asleep: list[Task] = []  # in the parent


class Sleeps(Task):
    seconds: float

    async def run(self) -> None:
        asleep.append(self)
        try:
            await asyncio.sleep(self.seconds)
        finally:
            asleep.remove(self)


class NobodySleeps(Task):
    async def run(self) -> None:
        while asleep:
            await asyncio.sleep(0.001)


class Steps(InProcess):
    folder: Path

    def output(self) -> LocalTarget:
        return LocalTarget(self.folder / "steps.txt")

    async def run(self) -> AsyncGenerator[Any, Any]:
        got = yield [Number(n=1), Number(n=2)]
        async with self.output().open("w") as file:
            await file.write(f"{got}")


class Writes(InProcess):
    folder: Path
    n: int
    retry_delay = 0.0

    def output(self) -> LocalTarget:
        return LocalTarget(self.folder / f"{self.n}.txt", durability="none")

    def run(self) -> None:
        with self.output().open("w") as file:
            for _ in range(20):
                file.write(f"{self.n}\n")
                time.sleep(0.0005)


class Forgets(InProcess):
    folder: Path

    def output(self) -> LocalTarget:
        return LocalTarget(self.folder / "never.txt")

    def run(self) -> None: ...


class Says(InProcess):
    def run(self) -> None:
        print("out", 1)
        print("begun", end="")
        print("err", file=sys.stderr)
        logging.getLogger("tests.body").warning("logged %d", 2)
        logging.getLogger("tests.body").debug("not asked for")
        try:
            raise ValueError("inner")
        except ValueError:
            logging.getLogger("tests.body").exception("with a traceback", extra={"odd": lambda: None})
        self.progress(0.5, "half")


class Unsendable(Exception):
    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} and {two}")
        self.lock = open


class Fails(InProcess):
    kind: str
    folder: Path = Path()

    def run(self) -> Any:
        if self.kind == "plain":
            raise ValueError("row 17")
        if self.kind == "cause":
            raise RuntimeError("outer") from KeyError("inner")
        if self.kind == "unsendable":
            raise Unsendable(1, 2)
        if self.kind == "exits":
            raise SystemExit(3)
        if self.kind == "lambda":
            return lambda: None
        if self.kind == "not a task":
            return self.require(7)
        if self.kind == "os._exit":
            os._exit(7)
        if self.kind == "signal":
            os.kill(os.getpid(), signal.SIGSEGV)
        if self.kind == "thread":
            return asyncio.run(asyncio.to_thread(self.require, Number(n=1)))
        raise AssertionError(self.kind)


class DiesTwice(InProcess):
    folder: Path
    retries = 2
    retry_delay = 0.0

    def run(self) -> int:
        with open(self.folder / "attempts", "a", encoding="utf-8") as file:
            file.write("x")
        attempts = (self.folder / "attempts").stat().st_size
        if attempts < 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return attempts


class Stubborn(InProcess):
    """Tells its process, and then stays: how it takes the stop depends on its kind."""

    kind: str
    folder: Path
    seconds: float = 60.0

    def output(self) -> LocalTarget:
        return LocalTarget(self.folder / f"{self.kind}.txt")

    def run(self) -> None:
        if self.kind == "deaf":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            child = subprocess.Popen(["sleep", "60"])
            (self.folder / "child").write_text(str(child.pid))
        with self.output().open("w") as file:
            file.write("begun")
            (self.folder / "pid").write_text(str(os.getpid()))
            try:
                if self.kind == "swallows":
                    try:
                        time.sleep(self.seconds)
                    except BaseException:
                        return
                if self.kind == "waits":
                    self.require(Sleeps(seconds=self.seconds))
                elif self.kind == "burns":
                    while True:
                        pass
                time.sleep(self.seconds)
            finally:
                (self.folder / "unwound").touch()


class StubbornAsync(InProcess):
    folder: Path

    async def run(self) -> None:
        (self.folder / "pid").write_text(str(os.getpid()))
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            (self.folder / "cancelled").touch()
            raise


class TimesOut(Stubborn):
    timeout = 1.5  # a worker may have to be started within it


class PublishesSlowly(InProcess):
    """Two files as one, the first by a rename that takes a while."""

    folder: Path

    def output(self) -> tuple[LocalTarget, LocalTarget]:
        return LocalTarget(self.folder / "one"), LocalTarget(self.folder / "two")

    def run(self) -> None:
        rename = os.replace

        def slow(name: str, to: str) -> None:
            rename(name, to)
            if to.endswith("one"):
                (self.folder / "between").touch()
                time.sleep(0.5)

        os.replace = slow  # type: ignore[assignment]
        try:
            one, two = self.output()
            with together(one.open("w"), two.open("w")) as (first, second):
                first.write("1")
                second.write("2")
            time.sleep(60)
        finally:
            os.replace = rename


class LateWrite(InProcess):
    folder: Path
    n: int

    def output(self) -> LocalTarget:
        return LocalTarget(self.folder / f"late {self.n}.txt", durability="none")

    def run(self) -> None:
        time.sleep(0.1)
        with self.output().open("w") as file:
            file.write("too late")


class SaysMuch(InProcess):
    """Large frames all the time, also as it is stopped."""

    folder: Path

    def run(self) -> None:
        (self.folder / "pid").write_text(str(os.getpid()))
        try:
            while True:
                self.progress(0.5, "x" * 200_000)
        finally:
            for _ in range(5):
                self.progress(0.9, "y" * 200_000)


class Accents(InProcess):
    folder: Path

    def run(self) -> str:
        print("é")
        (self.folder / "went on").touch()
        return "printed"


class ForksAndDies(InProcess):
    folder: Path

    def run(self) -> None:
        child = os.fork()
        if not child:
            time.sleep(60)
            os._exit(0)
        (self.folder / "child").write_text(str(child))
        os.kill(os.getpid(), signal.SIGKILL)


class LogsWrongly(InProcess):
    def run(self) -> str:
        logging.getLogger("tests.body").warning("%d rows", "many")
        logging.getLogger("tests.body").warning("odd", extra={"error": Unsendable(1, 2)})
        return "went on"


class Upsets(InProcess):
    """Changes what belongs to the whole process."""

    def run(self) -> int:
        os.chdir("/")
        os.umask(0o777)
        sys.stdout = None  # type: ignore[assignment]
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        return os.getpid()


class Looks(InProcess):
    def run(self) -> list[Any]:
        print("seen")
        umask = os.umask(0o22)
        return [os.getpid(), os.getcwd(), umask, signal.getsignal(signal.SIGTERM) is signal.SIG_IGN]


class AwaitsMany(InProcess):
    async def run(self) -> int:
        return len(await gather(*[OnLoop(n=n) for n in range(100)]))


class InMemory(InProcess):
    def output(self) -> MemoryTarget:
        return MemoryTarget("in/process")

    def run(self) -> None: ...


class MakesInMemory(Task):
    def output(self) -> MemoryTarget:
        return MemoryTarget("of/parent")

    async def run(self) -> None:
        self.output().put(1)


class ReadsMemory(InProcess):
    def requires(self) -> MakesInMemory:
        return MakesInMemory()

    def run(self) -> None: ...


class GivesLambda(Task):
    async def run(self) -> Any:
        return lambda: None


class TakesLambda(InProcess):
    def requires(self) -> GivesLambda:
        return GivesLambda()

    def run(self) -> None: ...


class Parks(InProcess):
    n: int
    folder: Path

    def run(self) -> int:
        value: int = self.require(Number(n=self.n))
        return value


class Burns(InProcess):
    n: int
    seconds: float

    def run(self) -> None:
        end = time.process_time() + self.seconds
        while time.process_time() < end:
            pass
