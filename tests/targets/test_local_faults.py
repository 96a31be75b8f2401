"""Every system call of a publish, in order, and failing one after the other: absent or whole, and said so."""

from __future__ import annotations

import errno
import io
import os
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import asyncflow
from asyncflow import LocalTarget, Task
from asyncflow.targets import _draft, local
from asyncflow.testing import leaks

SIZE = 600_000  # bytes: several writes of the buffered file
CONTENT = bytes(range(256)) * (SIZE // 256)

ERRORS = [errno.EIO, errno.ENOSPC, errno.EACCES, errno.EMFILE]


class Calls:
    """Every call into the operating system that a publish makes, noted; the n-th may fail."""

    NAMES = ("open", "fsync", "close", "replace", "mkdir")

    def __init__(self, patch: pytest.MonkeyPatch, *, fail: int = 0, code: int = errno.EIO) -> None:
        self.seen: list[str] = []
        self.fail = fail
        self.code = code
        for name in self.NAMES:
            patch.setattr(os, name, self._watched(name, getattr(os, name)))
        patch.setattr(local, "open", self._open_file, raising=False)  # in the module: in place of the builtin

    def _watched(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if name == "close":
                real(*args, **kwargs)  # the descriptor is gone also when close() reports an error
                return self.note(name, args)
            self.note(name, args)
            return real(*args, **kwargs)

        return call

    def note(self, name: str, args: tuple[Any, ...] = ()) -> None:
        where = ""
        if name == "open":
            where = "dir" if os.path.isdir(args[0]) else "temp"
        elif name == "fsync":
            where = "dir" if Path(f"/proc/self/fd/{args[0]}").resolve().is_dir() else "temp"
        self.seen.append(f"{name} {where}".strip())
        if len(self.seen) == self.fail:
            names = [args[0], None, args[1]] if name == "replace" else [args[0]] if name in {"open", "mkdir"} else []
            raise OSError(self.code, os.strerror(self.code), *names)

    def _open_file(self, path: str, mode: str, *, opener: Any = None, **text: Any) -> Any:
        if opener is None:
            return open(path, mode, **text)
        calls = self

        class Raw(io.FileIO):
            def write(self, data: Any) -> Any:
                calls.note("write")
                return super().write(data)

            def close(self) -> None:
                if not self.closed:
                    super().close()
                    calls.note("close")

        buffered = io.BufferedWriter(Raw(path, "w", opener=opener), 65536)
        return io.TextIOWrapper(buffered, **text) if text else buffered


def write(target: LocalTarget) -> None:
    with target.open("wb") as out:
        for at in range(0, len(CONTENT), 150_000):
            out.write(CONTENT[at : at + 150_000])


async def write_on_the_loop(target: LocalTarget) -> None:
    async with target.open("wb") as out:
        for at in range(0, len(CONTENT), 150_000):
            await out.write(CONTENT[at : at + 150_000])


def write_by_path(target: LocalTarget) -> None:
    with target.temporary_path() as path:
        os.mkdir(path)
        for name in "ab":
            Path(path, name).write_bytes(CONTENT)


# The order -----------------------------------------------------------------------------------------------


def test_the_order_of_a_durable_publish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        calls = Calls(patch)
        write(LocalTarget(tmp_path / "out"))
    without_writes = [call for call in calls.seen if call != "write"]
    assert without_writes == ["open temp", "fsync temp", "close", "open dir", "replace", "fsync dir", "close"]
    assert calls.seen.index("fsync temp") > max(n for n, call in enumerate(calls.seen) if call == "write")


def test_new_directories_are_made_durable_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        calls = Calls(patch)
        write(LocalTarget(tmp_path / "a" / "b" / "out"))
    made = ["mkdir", "open dir", "fsync dir", "close"]
    assert calls.seen[: 2 + 2 * len(made)] == ["open temp", *made, *made, "open temp"]


def test_without_durability_nothing_is_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        calls = Calls(patch)
        write(LocalTarget(tmp_path / "a" / "out", durability="none"))
        with LocalTarget(tmp_path / "b" / "out", durability="none").temporary_path() as path:
            Path(path).touch()
    assert not [call for call in calls.seen if "fsync" in call]
    by_handle = ["open temp", "mkdir", "open temp", "close", "replace"]
    by_path = ["mkdir", "open temp", "close", "replace"]  # the touch in the middle is the body's own
    assert [call for call in calls.seen if call != "write"] == by_handle + by_path


STRACE = shutil.which("strace")


def traced(folder: Path, code: str, *options: str) -> tuple[subprocess.CompletedProcess[str], list[tuple[str, str]]]:
    """Run `code` under strace; its calls that name a path below `folder`, in order."""
    log = folder.with_suffix(".strace")
    command = [str(STRACE), "-f", "-y", "-s", "1", "-o", str(log), *options, sys.executable, "-c", code, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    if "ptrace" in done.stderr and done.returncode:
        pytest.skip(f"strace may not trace here: {done.stderr.strip()}")
    found = []
    for line in log.read_text().splitlines():
        step = re.match(r"\d+ +(\w+)\((.*)", line)
        if step and str(folder) in line and not line.rstrip().endswith("resumed>"):
            found.append((step[1], step[2]))
    return done, found


@pytest.mark.skipif(STRACE is None, reason="strace is not installed: the order is only tested by patching os")
def test_the_order_the_kernel_sees(tmp_path: Path) -> None:
    folder = tmp_path / "box"
    folder.mkdir()
    code = """
import asyncio, sys
from asyncflow import LocalTarget
async def main():
    for n in range(10):
        async with LocalTarget(f"{sys.argv[1]}/async{n}").open("wb") as out:
            await out.write(b"x" * 300_000)
        with LocalTarget(f"{sys.argv[1]}/sync{n}").open("w") as out:
            out.write("x")
asyncio.run(main())
"""
    done, calls = traced(folder, code, "-e", "trace=openat,write,fsync,fdatasync,close,rename,renameat,renameat2")
    assert done.returncode == 0, done.stderr
    names: list[str] = []
    for name, args in calls:
        if name == "openat" and ".af-" in args and "O_EXCL" in args:
            names.append("create")
        elif name in {"write", "close"} and ".af-" in args:
            names.append(name)
        elif name == "fsync":
            names.append("fsync temp" if ".af-" in args else "fsync dir")
        elif name.startswith("rename"):
            names.append("rename")
    text = " ".join(names)
    publish = r"create (?:write )+fsync temp close rename fsync dir"
    assert re.fullmatch(f"{publish}(?: {publish}){{19}}", text), text


# The n-th call fails -------------------------------------------------------------------------------------


def sweep(tmp_path: Path, run: Callable[[LocalTarget], Any], code: int) -> Iterator[tuple[int, str, Path]]:
    """Let the n-th call fail with `code`, for each n; give what failed. Ends when nothing fails any more."""
    for n in range(1, 200):
        folder = tmp_path / f"{code}-{n}"
        target = LocalTarget(folder / "new" / "out")
        folder.mkdir()
        before = leaks.Snapshot.take()
        caught: OSError | None = None
        with pytest.MonkeyPatch.context() as patch:
            calls = Calls(patch, fail=n, code=code)
            try:
                run(target)
            except OSError as error:
                caught = error
        leaks.check_open_files(before)
        left = [path for path in folder.rglob("*") if ".af-" in path.name]
        assert left == [], f"call {n}, {calls.seen[n - 1]}: temporary left"
        if len(calls.seen) < n:
            assert caught is None
            return
        failed = calls.seen[n - 1]
        visible = os.path.lexists(target.path)
        if caught is None:
            # Closing a directory that was only read tells nothing, nor does one that may not be opened.
            harmless = (failed == "close" and calls.seen[n - 2] == "fsync dir") or (
                failed == "open dir" and code == errno.EACCES
            )
            assert harmless, f"call {n}, {failed}: the error was swallowed"
            assert visible
        else:
            assert caught.errno == code, f"call {n}, {failed}: {caught!r}"
            if failed != "write":  # that one is raised in the body, by the plain file
                assert str(folder) in str(caught), f"call {n}, {failed}: {caught} names no file"
            assert ".af-" not in str(caught) or run is write_by_path
            last_step = failed == "fsync dir" and "replace" in calls.seen
            assert visible == last_step, f"call {n}, {failed}: visible {visible}"
        yield n, failed, Path(target.path)


@pytest.mark.parametrize("code", ERRORS, ids=errno.errorcode.get)
def test_the_nth_call_fails(tmp_path: Path, code: int) -> None:
    failed = []
    for _, call, path in sweep(tmp_path, write, code):
        failed.append(call)
        if path.exists():
            assert path.read_bytes() == CONTENT
    assert set(failed) == {"open temp", "mkdir", "open dir", "fsync dir", "close", "write", "fsync temp", "replace"}


@pytest.mark.parametrize("late", [False, True], ids=["opened on entering", "opened by the first hop"])
@pytest.mark.parametrize("code", ERRORS, ids=errno.errorcode.get)
def test_the_nth_call_fails_on_the_loop(tmp_path: Path, code: int, late: bool) -> None:
    import asyncio

    def run(target: LocalTarget) -> None:
        if late:
            _draft._proven.add(os.path.dirname(target.path))
        asyncio.run(write_on_the_loop(target))

    # The loop's own calls into `os` are not made between its start and its end; its sockets are not os.open's.
    failed = []
    for _, call, path in sweep(tmp_path, run, code):
        failed.append(call)
        if path.exists():
            assert path.read_bytes() == CONTENT
    assert {"open temp", "mkdir", "fsync temp", "write", "close", "replace", "fsync dir"} <= set(failed)


@pytest.mark.parametrize("code", ERRORS, ids=errno.errorcode.get)
def test_the_nth_call_fails_for_a_temporary_path(tmp_path: Path, code: int) -> None:
    failed = []
    for _, call, path in sweep(tmp_path, write_by_path, code):
        failed.append(call)
        if path.exists():
            assert sorted(os.listdir(path)) == ["a", "b"]
    assert {"mkdir", "fsync temp", "replace", "fsync dir"} <= set(failed)


def test_an_fsync_that_failed_once_is_not_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel may have dropped the pages: a second fsync would say they are there."""
    target = LocalTarget(tmp_path / "out")
    synced: list[int] = []
    real = os.fsync

    def once(fd: int) -> None:
        synced.append(fd)
        if len(synced) == 1:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(fd)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", once)
        with pytest.raises(OSError, match=r"Input/output error: '.*out'"):
            write(target)
        assert len(synced) == 1
        assert list(tmp_path.iterdir()) == []
        write(target)  # the whole content, once more
    assert Path(target.path).read_bytes() == CONTENT


def test_a_file_system_without_fsync_of_directories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.fsync

    def refuse(fd: int) -> None:
        if os.path.isdir(f"/proc/self/fd/{fd}"):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        real(fd)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", refuse)
        write(LocalTarget(tmp_path / "out"))
    assert (tmp_path / "out").read_bytes() == CONTENT


# A disk that is full -------------------------------------------------------------------------------------


@pytest.fixture
def full_at() -> Iterator[Callable[[int], None]]:
    """`full_at(n)`: no file grows over n bytes; the write that would is cut or fails with EFBIG."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("limit", [0, 1000, 300_000, SIZE - 1000])
async def test_a_full_disk(tmp_path: Path, full_at: Callable[[int], None], limit: int) -> None:
    full_at(limit)
    for n, way in enumerate((write, write_on_the_loop)):
        with pytest.raises(OSError) as caught:  # noqa: PT011  # the errno says which
            result = way(LocalTarget(tmp_path / str(n)))
            if result is not None:
                await result
        assert caught.value.errno == errno.EFBIG
    full_at(resource.RLIM_INFINITY)
    assert list(tmp_path.iterdir()) == []


async def test_a_full_disk_shows_up_when_the_block_ends(tmp_path: Path, full_at: Callable[[int], None]) -> None:
    """Small content is written when it is flushed: the error must not be lost there."""
    full_at(10)
    target = LocalTarget(tmp_path / "out.txt")
    with pytest.raises(OSError, match=r"File too large: '.*out\.txt'"), target.open("w") as out:
        out.write("more than ten characters")
    with pytest.raises(OSError, match="File too large"):
        async with target.open("w") as aout:
            await aout.write("more than ten characters")
    full_at(resource.RLIM_INFINITY)
    assert list(tmp_path.iterdir()) == []


async def test_an_error_that_the_body_swallows_comes_again_at_the_end(
    tmp_path: Path, full_at: Callable[[int], None]
) -> None:
    """Space is there again by then; the content has a hole all the same."""
    full_at(1000)
    with pytest.raises(OSError, match="File too large"):
        async with LocalTarget(tmp_path / "out").open("wb") as out:
            try:
                await out.write(CONTENT)
            except OSError:
                full_at(resource.RLIM_INFINITY)
    assert list(tmp_path.iterdir()) == []


async def test_a_build_on_a_full_disk_and_after(tmp_path: Path, full_at: Callable[[int], None]) -> None:
    class Make(Task):
        n: int

        def output(self) -> LocalTarget:
            return LocalTarget(tmp_path / f"{self.n}.bin")

        async def run(self) -> None:
            async with self.output().open("wb") as out:
                await out.write(CONTENT[: 10_000 * self.n])

    tasks = [Make(n=n) for n in range(20)]
    full_at(100_000)
    result = await asyncflow.build(tasks)
    full_at(resource.RLIM_INFINITY)
    assert result.counts == {"succeeded": 11, "failed": 9}
    assert sorted(tmp_path.iterdir()) == sorted(tmp_path / f"{n}.bin" for n in range(11))
    result = await asyncflow.build(tasks)
    assert result.counts == {"succeeded": 9, "complete": 11}


def test_too_many_open_files(tmp_path: Path) -> None:
    code = """
import resource, sys, os
from asyncflow import LocalTarget, healing
healing.begin = lambda: None  # it opens files in the background
with LocalTarget(sys.argv[1] + "/warm").open("w") as out: pass
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) - 1, hard))
try:
    with LocalTarget(sys.argv[1] + "/out").open("w") as out: out.write("x")
except OSError as error:
    assert error.errno == 24 and error.filename.endswith("/out"), error
else:
    raise SystemExit("no error")
"""
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, timeout=30)
    assert [entry.name for entry in tmp_path.iterdir()] == ["warm"]


@pytest.mark.skipif(STRACE is None, reason="strace is not installed: no faults from the kernel")
@pytest.mark.parametrize("call", ["fsync", "rename", "close"])
def test_a_fault_from_the_kernel(tmp_path: Path, call: str) -> None:
    """As above, but below Python: the error comes out of the system call itself."""
    folder = tmp_path / "box"
    folder.mkdir()
    code = """
import sys
from asyncflow import LocalTarget
target = LocalTarget(sys.argv[1] + "/out")
try:
    with target.open("w") as out:
        out.write("x")
except OSError as error:
    assert error.errno == 5 and str(error).endswith("out'"), error
else:
    raise SystemExit("no error")
"""
    # -P: only calls on files below the folder count, so the first one is ours.
    paths = [option for name in ("box", "box/out") for option in ("-P", str(tmp_path / name))]
    draft = "import asyncflow.targets._draft as d\nd.os.urandom = lambda n: bytes(n)\n"
    paths += ["-P", str(folder / f".af-{'0' * 20}")]
    done, _ = traced(folder, draft + code, *paths, "-e", f"inject={call}:error=EIO:when=1")
    assert done.returncode == 0, done.stderr + done.stdout
    assert list(folder.iterdir()) == []
