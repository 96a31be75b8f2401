"""Journals at every interleaving: of their owner, those who look at what is left, and kills of either.

The code is stopped before each of its calls into the system, and goes on when the test says so.
"""

from __future__ import annotations

import fcntl
import importlib.util
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from asyncflow import healing, journal

DECISION = '[{"kind": "step"}]'


class Killed(BaseException):
    """What ends a puppet; nothing of it is carried out any more."""


class Puppet:
    """Another process: ``work`` in a thread that stops before each call into the system."""

    acting = threading.local()

    def __init__(self, work: Callable[[], object]) -> None:
        self.over = False
        self.files: set[int] = set()
        self._work = work
        self._killed = False
        self._go, self._stopped = threading.Semaphore(0), threading.Semaphore(0)
        self._error: BaseException | None = None
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        self.acting.puppet = self
        self._go.acquire()
        try:
            self._work()
        except Killed:
            pass
        except BaseException as error:
            self._error = error
        self.over = True
        self._stopped.release()

    def stop(self) -> None:
        """Said in its own thread."""
        self._stopped.release()
        self._go.acquire()
        if self._killed:
            raise Killed

    def run(self, steps: int = 10_000) -> Puppet:
        """So many steps, or to its end."""
        for _ in range(steps):
            if self.over:
                break
            self._go.release()
            assert self._stopped.acquire(timeout=20)
        if self._error is not None:
            raise self._error
        return self

    def kill(self) -> None:
        self._killed = True
        self.run()
        for fd in self.files:
            os.close(fd)
        self.files.clear()


class Watched:
    """A module of the system whose calls stop the puppet that makes them."""

    CALLS = ("open", "close", "write", "replace", "rename", "unlink", "listdir", "stat", "fstat", "flock", "sleep")

    def __init__(self, module: Any) -> None:
        self._module = module

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._module, name)
        puppet: Puppet | None = getattr(Puppet.acting, "puppet", None)
        if puppet is None or name not in self.CALLS:
            return real

        def call(*args: Any) -> Any:
            if name != "close" or not puppet._killed:
                puppet.stop()
            result = real(*args)
            if name == "open":
                puppet.files.add(result)
            elif name == "close":
                puppet.files.discard(args[0])
            return result

        return call


def another_journal() -> ModuleType:
    spec = importlib.util.spec_from_file_location("asyncflow.journal_of_another", journal.__file__)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


owner: Any = another_journal()
"""The journal as another process has it."""


class World:
    """What has been done to what the owner has left."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.finished = 0
        self.cleaned: set[str] = set()

    def finish(self, step: Any) -> None:
        self.finished += 1

    def clean(self, place: str, token: str) -> int:
        assert token == owner.token()
        self.cleaned.add(place)
        return 1

    def begin(self, work: Callable[[], object]) -> Puppet:
        """The owner is a new process."""
        for name, value in {"_token": "", "_fd": None, "_past": 0, "_broken": False}.items():
            setattr(owner, name, value)
        owner._noted.clear()
        self.finished = 0
        self.cleaned.clear()
        return Puppet(work)

    def left(self) -> list[str]:
        try:
            return os.listdir(self.folder / "journal")
        except FileNotFoundError:
            return []


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    world = World(tmp_path)
    monkeypatch.setenv("ASYNCFLOW_STATE", str(tmp_path))
    monkeypatch.setattr(healing, "begin", lambda: None)
    monkeypatch.setattr(healing, "_PAUSE", 0)
    monkeypatch.setattr(healing, "time", Watched(time))
    monkeypatch.setattr(owner, "CROWDED", 0)  # all that is done has the journal written anew
    monkeypatch.setattr(owner, "atexit", type("Atexit", (), {"register": lambda *_: None}))
    for module in (owner, journal, healing):
        monkeypatch.setattr(module, "os", Watched(os))
        if module is not healing:
            monkeypatch.setattr(module, "fcntl", Watched(fcntl))
    monkeypatch.setitem(healing.finishers, "step", world.finish)
    monkeypatch.setitem(healing.cleaners, "thing", world.clean)
    yield world
    assert not world.left()


def life() -> None:
    owner.note("thing", "one")
    owner.note("together", DECISION)
    owner.done("together", DECISION)
    owner.note("thing", "two")


def half_a_life() -> None:
    owner.note("thing", "one")
    owner.note("together", DECISION)


def steps_of(puppet: Puppet) -> range:
    """The numbers of its steps, and one more, when it is over."""
    number = 0
    while not puppet.over:
        puppet.run(1)
        number += 1
    puppet.kill()
    healing.clean()
    return range(number + 1)


def check_alive(world: World) -> None:
    assert not world.finished
    assert not world.cleaned
    assert not owner._broken, "nothing is written down any more"


def check_end(world: World, alive: Puppet) -> None:
    check_alive(world)
    assert world.left() == [owner.token()]
    owner.leave()
    alive.kill()
    assert not world.left()


def test_nothing_is_done_to_what_is_of_a_process_that_is_alive(world: World) -> None:
    """Whoever looks is stopped at each of its steps, begun at each of the owner's, who lives on meanwhile."""
    steps = steps_of(world.begin(life))
    assert len(steps) > 12
    for begun in steps:
        for stopped in range(12):
            alive = world.begin(life).run(begun)
            other = Puppet(healing.clean).run(stopped)
            alive.run()
            other.run()
            check_end(world, alive)


def test_nor_in_any_other_order(world: World) -> None:
    for seed in range(150):
        chosen = random.Random(seed)
        puppets = [world.begin(life), Puppet(healing.clean), Puppet(healing.clean)]
        while not all(puppet.over for puppet in puppets):
            chosen.choice(puppets).run(chosen.randrange(1, 6))
        check_end(world, puppets[0])


def test_a_journal_is_kept_at_every_kill_of_its_owner(world: World) -> None:
    """Whatever the owner had noted by then is acted upon, also when somebody had begun to look while it was alive."""
    steps = steps_of(world.begin(life))
    for killed in steps[:-1]:
        for stopped in range(0, 12, 3):
            noted: set[str] = set()

            def work() -> None:
                for place in ("one", "two"):
                    owner.note("thing", place)
                    noted.add(place)  # noqa: B023
                    owner.note("together", f" {DECISION}")
                    owner.done("together", f" {DECISION}")

            dying = world.begin(work).run(killed)
            other = Puppet(healing.clean).run(stopped)
            check_alive(world)
            before = set(noted)
            dying.kill()
            other.run()
            healing.clean()
            assert world.cleaned >= before, (killed, stopped)
            assert not world.left(), (killed, stopped)


def test_a_kill_of_who_heals_leaves_it_to_the_next(world: World) -> None:
    world.begin(half_a_life).run().kill()
    steps = steps_of(Puppet(healing.clean))
    assert len(steps) > 10
    for killed in steps:
        world.begin(half_a_life).run().kill()
        Puppet(healing.clean).run(killed).kill()
        healing.clean()
        assert world.finished, killed
        assert world.cleaned == {"one"}
        assert not world.left()


def test_who_comes_second_waits_for_what_had_been_decided(world: World) -> None:
    """One is stopped at each of its steps, the other goes on; and it does what the first, killed there, has not."""
    world.begin(half_a_life).run().kill()
    steps = steps_of(Puppet(healing.clean))
    waited = 0
    for killed in (False, True):
        for stopped in steps:
            healing._decided.clear()
            world.begin(half_a_life).run().kill()
            first, second = Puppet(healing.clean).run(stopped), Puppet(healing.clean).run(80)
            assert world.finished or not healing._decided.is_set(), stopped
            waited += not healing._decided.is_set()
            if killed:
                first.kill()
            second.run(80)
            if killed:
                assert healing._decided.is_set()
            first.run()
            second.run()
            assert world.finished == 1 or (killed and world.finished == 2), stopped  # killed before it could say so
            assert world.cleaned == {"one"} or killed, stopped
            healing.clean()
            assert world.cleaned == {"one"}
            assert not world.left()
    assert waited


@contextmanager
def another_waits_in(calls: dict[str, Any], kind: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Another healer has come to what is of that ``kind``, and its server is silent until the block ends."""
    silent, asked = threading.Event(), threading.Event()

    def slow(*_: Any) -> int:
        asked.set()
        silent.wait(20)
        return 1

    monkeypatch.setitem(calls, kind, slow)
    other = threading.Thread(target=healing.clean)
    other.start()
    try:
        assert asked.wait(20)
        yield
    finally:
        silent.set()
        other.join()


def test_what_is_never_done_is_not_waited_for_without_end(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(healing, "PATIENCE", 0.05)
    world.begin(half_a_life).run().kill()
    with another_waits_in(healing.finishers, "step", monkeypatch):
        assert healing.clean() == 0
        assert "it may be made again here" in caplog.text


def test_nobody_waits_for_what_is_only_to_be_removed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server from which it is to be removed may be silent; what had been decided is done by then."""
    monkeypatch.setattr(healing, "PATIENCE", 3600)
    world.begin(half_a_life).run().kill()
    with another_waits_in(healing.cleaners, "thing", monkeypatch):
        assert healing.clean() == 0
        assert world.finished == 1


def test_what_one_process_cannot_do_another_may(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """It knows how to reach the store, say; and need not wait until the first has removed what others have left."""
    world.begin(half_a_life).run().kill()
    (world.folder / "journal" / "00000000").write_bytes(b"+silent place\0")
    with ExitStack() as stack:
        with monkeypatch.context() as patch:
            patch.delitem(healing.finishers, "step")
            stack.enter_context(another_waits_in(healing.cleaners, "silent", monkeypatch))
        assert healing.clean() == 1
        assert world.finished == 1
        assert world.cleaned == {"one"}


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_the_child_of_a_fork_holds_no_journal_of_others(tmp_path: Path) -> None:
    path = tmp_path / "deadbeef.decided"
    path.touch()
    one = healing._Left(str(path))
    assert one.locked()
    assert one._fd is not None
    child = os.fork()
    if not child:
        try:
            os.fstat(one._fd)
        except OSError:
            os._exit(0)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    one.close()
    other = healing._Left(str(path))
    assert other.locked()
    other.close()
