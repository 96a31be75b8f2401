from __future__ import annotations

import asyncio
import csv
import errno
import gc
import gzip
import io
import json
import os
import pickle
import stat
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import asyncflow
from asyncflow import LocalTarget, TargetStateUnknown, Task, healing, journal
from asyncflow.targets._hops import HOP
from asyncflow.testing import leaks

needs_root = pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="not root: cannot drop rights")


@pytest.fixture
def target(tmp_path: Path) -> LocalTarget:
    return LocalTarget(tmp_path / "out.txt")


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


# Write and read ------------------------------------------------------------------------------------------


def test_sync_round_trip(target: LocalTarget) -> None:
    with target.open("w") as out:
        assert out.write("grün\n") == 5
        assert not os.path.exists(target.path)  # nothing before the end of the block
        assert not out.closed
    assert out.closed
    with target.open() as file:
        assert file.read() == "grün\n"
    with target.open("rb") as raw:
        assert raw.read() == "grün\n".encode()
    assert names(Path(target.path).parent) == ["out.txt"]


async def test_async_round_trip(target: LocalTarget) -> None:
    async with target.open("w") as out:
        assert await out.write("grün\n") == 5
        await out.writelines(["b\n", "c"])
        assert not os.path.exists(target.path)
    async with target.open() as file:
        assert await anext(file) == "grün\n"
        assert await file.read() == "b\nc"
        assert await file.read() == ""
    async with target.open("rb") as raw:
        assert [line async for line in raw] == ["grün\n".encode(), b"b\n", b"c"]
        assert await raw.read() == b""


async def test_bytes_like_data_is_taken_as_it_is_at_that_moment(target: LocalTarget) -> None:
    async with target.open("wb") as out:
        data = bytearray(b"abc")
        assert await out.write(data) == 3  # type: ignore[type-var]
        data[:] = b"xyz"
        import array

        assert await out.write(memoryview(array.array("I", [1, 2]))) == 8  # type: ignore[type-var]
    assert Path(target.path).read_bytes()[:3] == b"abc"


async def test_a_value_of_the_wrong_kind_is_refused_where_it_is_written(target: LocalTarget) -> None:
    async with target.open("wb") as out:
        for wrong in ("text", 5, None):
            with pytest.raises(TypeError):
                await out.write(wrong)  # type: ignore[type-var]
        await out.write(b"good")
    async with target.open("w") as text:
        with pytest.raises(TypeError, match="wb"):
            await text.write(b"bytes")  # type: ignore[type-var]
    assert Path(target.path).read_bytes() == b""


async def test_an_error_of_a_gathered_write_leaves_nothing(target: LocalTarget) -> None:
    """The text cannot be encoded: the content is not whole any more, also if the body goes on."""
    with pytest.raises(UnicodeEncodeError):
        async with target.open("w", encoding="ascii") as out:
            try:
                await out.write("ä" * HOP)
            except UnicodeEncodeError:
                pass
            with pytest.raises(ValueError, match="closed"):
                await out.write("more")
    with pytest.raises(UnicodeEncodeError):
        async with target.open("w", encoding="ascii") as out:
            await out.write("ä")
    with pytest.raises(UnicodeEncodeError), target.open("w", encoding="ascii") as sync:
        sync.write("ä")
    assert names(Path(target.path).parent) == []


@pytest.mark.parametrize("size", [0, 1, HOP - 1, HOP, HOP + 1, 5 * HOP + 17])
async def test_large_content(target: LocalTarget, size: int) -> None:
    data = os.urandom(size)
    async with target.open("wb") as out:
        await out.write(data)
    async with target.open("rb") as file:
        assert await file.read() == data
    async with target.open("wb") as out:
        for at in range(0, size, 100_000):
            await out.write(data[at : at + 100_000])
    assert Path(target.path).read_bytes() == data


async def test_tasks_that_share_a_handle_take_turns(target: LocalTarget) -> None:
    lines = [f"{n:07d}\n" * (HOP // 16) for n in range(20)]
    async with target.open("w") as out:
        await asyncio.gather(*map(out.write, lines))
    assert Path(target.path).read_text() == "".join(lines)
    got: list[str] = []

    async def some(file: Any) -> None:
        async for line in file:
            got.append(line)
            await asyncio.sleep(0) if len(got) % 1000 == 0 else None

    async with target.open() as file:
        await asyncio.gather(some(file), some(file), some(file))
    assert sorted(got) == sorted("".join(lines).splitlines(keepends=True))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "latin-1"])
@pytest.mark.parametrize("newline", [None, "", "\n", "\r\n"])
async def test_encoding_and_newline_are_those_of_open(target: LocalTarget, encoding: str, newline: str | None) -> None:
    text = "ä\nb\r\nc\rd"
    plain = target.path + ".plain"
    with open(plain, "w", encoding=encoding, newline=newline) as file:
        file.write(text)
    with target.open("w", encoding=encoding, newline=newline) as out:
        out.write(text)
    assert Path(target.path).read_bytes() == Path(plain).read_bytes()
    async with target.open("w", encoding=encoding, newline=newline) as aout:
        await aout.write(text)
    assert Path(target.path).read_bytes() == Path(plain).read_bytes()
    with open(plain, encoding=encoding, newline=newline) as file:
        lines = list(file)
    async with target.open(encoding=encoding, newline=newline) as reader:
        assert [line async for line in reader] == lines


async def test_the_default_encoding_is_utf_8_and_not_the_machines(target: LocalTarget) -> None:
    code = "import sys, asyncflow\nwith asyncflow.LocalTarget(sys.argv[1]).open('w') as f: f.write('\\xe4')"
    env = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PATH": os.environ["PATH"]}
    subprocess.run([sys.executable, "-c", code, target.path], check=True, env=env, timeout=30)
    assert Path(target.path).read_bytes() == "ä".encode()


texts = st.text(st.sampled_from("ab\n\r\x0b\x85\u2028ä"), max_size=60)


def read_in_hops(patch: pytest.MonkeyPatch, hop: int, *, small: bool = False) -> None:
    """Read this many characters at a time, unless a ``small`` file is read whole."""
    patch.setattr("asyncflow.targets._reading.HOP", hop)
    if not small:
        patch.setattr("asyncflow.targets._reading.SMALL", -1)


@settings(max_examples=60)
@given(texts, st.sampled_from([None, "", "\n", "\r", "\r\n"]), st.integers(1, 40), st.booleans())
def test_lines_are_those_of_open(
    tmp_path_factory: pytest.TempPathFactory, text: str, newline: str | None, hop: int, small: bool
) -> None:
    path = tmp_path_factory.getbasetemp() / "lines.txt"
    path.write_bytes(text.encode())

    async def read(mode: str, **kwargs: Any) -> list[Any]:
        async with LocalTarget(path).open(mode, **kwargs) as file:  # type: ignore[call-overload]
            return [line async for line in file]

    with pytest.MonkeyPatch.context() as patch:
        read_in_hops(patch, hop, small=small)
        with open(path, newline=newline, encoding="utf-8") as plain:
            assert asyncio.run(read("r", newline=newline)) == list(plain)
        with open(path, "rb") as raw:
            assert asyncio.run(read("rb")) == list(raw)


calls = st.lists(st.one_of(st.integers(-1, 12), st.sampled_from(["readline", "next"])), max_size=25)


@settings(max_examples=300)
@given(texts, st.sampled_from([None, "", "\n", "\r", "\r\n", "rb"]), st.integers(1, 40), st.booleans(), calls)
@example("aaaaaaaaaa\r\na", "\r\n", 1, False, [11, "readline"])
@example("aaaaaaaaaa\r\na", "\r\n", 40, True, [11, "readline", "readline"])
@example("aaaaaaaaaa\r\n", "\r\n", 1, False, [11, "next", "readline"])
@example("aaaaaaaaaa\r\n", "\r\n", 1, True, [11, "next", "readline"])
def test_calls_in_any_order_give_what_a_plain_file_gives(
    tmp_path_factory: pytest.TempPathFactory, text: str, newline: str | None, hop: int, small: bool, calls: list[Any]
) -> None:
    path = tmp_path_factory.getbasetemp() / "calls.txt"
    path.write_bytes(text.encode())
    mode, options = ("rb", {}) if newline == "rb" else ("r", {"newline": newline, "encoding": "utf-8"})

    async def read() -> list[Any]:
        async with LocalTarget(path).open(mode, **options) as file:  # type: ignore[call-overload]
            return [
                await file.read(call) if isinstance(call, int) else
                await file.readline() if call == "readline" else
                await anext(file, None)
                for call in calls
            ]  # fmt: skip

    with pytest.MonkeyPatch.context() as patch, open(path, mode, **options) as plain:
        read_in_hops(patch, hop, small=small)
        expected = [
            plain.read(call) if isinstance(call, int) else
            plain.readline() if call == "readline" else
            next(plain, None)
            for call in calls
        ]  # fmt: skip
        assert asyncio.run(read()) == expected


@pytest.mark.parametrize("mode", ["r", "rb"])
async def test_small_reads_do_not_cost_a_hop_each(target: LocalTarget, mode: Any, hops: list[Any]) -> None:
    Path(target.path).write_text("0123456\n" * (HOP // 4))  # two hops
    async with target.open(mode) as file:
        read = 0
        while piece := await file.read(100):
            read += len(piece)
        assert await file.readline() == piece
    assert read == 2 * HOP
    assert len(hops) <= 8  # open, two of content, the ends, close


async def test_a_reader_shared_by_tasks_reads_to_the_end(target: LocalTarget, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that finds what it waited for taken by another has not come to the end."""
    read_in_hops(monkeypatch, 1)
    Path(target.path).write_text("".join(f"{n:03d}\n" for n in range(30)))
    got: list[str] = []

    async def some(file: Any, call: str) -> None:
        while data := await (file.readline() if call == "readline" else file.read(4)):
            got.append(data)

    async with target.open() as file:
        await asyncio.gather(*(some(file, call) for call in ("readline", "read") * 3))
    assert sorted("".join(got).split()) == [f"{n:03d}" for n in range(30)]


# A forgotten await ---------------------------------------------------------------------------------------


async def test_what_is_written_without_await_is_published(target: LocalTarget) -> None:
    async with target.open("w") as out:
        out.write("a")
        await out.write("b")
        out.writelines(["c", "d"])
        later = out.write("e" * HOP)
        gc.collect()  # and no RuntimeWarning: warnings are errors here
        out.write("f")
        assert await later == HOP
        assert await later == HOP
        out.write("g")
    assert Path(target.path).read_text() == "abcd" + "e" * HOP + "fg"
    async with target.open("wb") as raw:
        data = bytearray(b"then")
        raw.write(data)  # type: ignore[type-var]
        data[:] = b"late"
    assert Path(target.path).read_bytes() == b"then"


async def test_a_write_that_cannot_be_says_so_without_await(target: LocalTarget) -> None:
    async with target.open("w") as out:
        with pytest.raises(TypeError):
            out.write(b"bytes")  # type: ignore[type-var]
        with pytest.raises(TypeError):
            out.writelines(["a", 5])  # type: ignore[list-item]
        big = out.write("b" * HOP)
        await out.commit()
        with pytest.raises(ValueError, match="closed"):
            out.write("more")
        with pytest.raises(ValueError, match="closed"):
            out.writelines(["more"])
        assert await big == HOP  # published with the commit
    assert Path(target.path).read_text() == "a" + "b" * HOP
    with pytest.raises(UnicodeEncodeError):  # as where each is awaited
        async with target.open("w", encoding="ascii") as out:
            out.write("ä")
    assert Path(target.path).read_text() == "a" + "b" * HOP


def test_the_sync_handle_serves_the_standard_library(tmp_path: Path) -> None:
    rows = [["a", "b"], ["1", "x,y"]]
    table = LocalTarget(tmp_path / "t.csv")
    with table.open("w", newline="") as out:
        csv.writer(out).writerows(rows)
    with table.open(newline="") as file:
        assert list(csv.reader(file)) == rows

    document = LocalTarget(tmp_path / "d.json")
    with document.open("w") as out:
        json.dump({"rows": rows}, out)
        print(file=out, flush=True)
    assert json.loads(Path(document.path).read_text()) == {"rows": rows}

    pickled = LocalTarget(tmp_path / "p.pickle")
    with pickled.open("wb") as raw:
        pickle.dump(rows, raw)
    with pickled.open("rb") as file:
        assert pickle.load(file) == rows

    archive = LocalTarget(tmp_path / "a.zip")
    with archive.open("wb") as raw, zipfile.ZipFile(raw, "w") as packed:  # type: ignore[arg-type]  # seeks and tells
        packed.writestr("x", "y")
    assert zipfile.ZipFile(archive.path).testzip() is None

    compressed = LocalTarget(tmp_path / "b.csv.gz")
    with compressed.open("wb") as raw, gzip.open(raw, "wb") as squeezed:  # type: ignore[call-overload]
        squeezed.write(b"content")
    assert gzip.decompress(Path(compressed.path).read_bytes()) == b"content"
    assert b".af-" not in Path(compressed.path).read_bytes()  # the temporary's name is nobody's business

    wrapped = LocalTarget(tmp_path / "w.txt")
    with wrapped.open("wb") as raw:
        text = io.TextIOWrapper(raw, encoding="utf-16")  # type: ignore[type-var]
        text.write("wrapped")
        text.detach()
    assert Path(wrapped.path).read_text(encoding="utf-16") == "wrapped"


# Not published -------------------------------------------------------------------------------------------


class _Mine(BaseException):
    pass


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit, GeneratorExit, _Mine])
def test_an_exception_in_the_block(target: LocalTarget, error: type[BaseException]) -> None:
    with pytest.raises(error), target.open("w") as out:
        out.write("half")
        out.flush()
        raise error
    assert names(Path(target.path).parent) == []


async def test_an_exception_in_the_async_block(target: LocalTarget) -> None:
    for error in (ValueError, GeneratorExit, _Mine, asyncio.CancelledError):
        with pytest.raises(error):
            async with target.open("w") as out:
                await out.write("half" * HOP)
                raise error
    assert names(Path(target.path).parent) == []


async def test_close_without_success_publishes_nothing(target: LocalTarget) -> None:
    with target.open("w") as out:
        out.write("half")
        out.close()
        out.close()
        assert out.closed
        assert names(Path(target.path).parent) == []
        with pytest.raises(ValueError, match="closed"):
            out.write("more")
    async with target.open("w") as aout:
        await aout.write("half")
        await aout.close()
        await aout.close()
        with pytest.raises(ValueError, match="closed"):
            await aout.write("more")
        with pytest.raises(ValueError, match="nothing more is published"):
            await aout.commit()
    assert names(Path(target.path).parent) == []


def test_try_finally_close_publishes_nothing(target: LocalTarget) -> None:
    """Luigi publishes half a file here."""
    out = target.open("w").__enter__()
    with pytest.raises(ZeroDivisionError):
        try:
            out.write("half")
            1 / 0  # noqa: B018
        finally:
            out.close()
    assert names(Path(target.path).parent) == []


async def test_commit_is_explicit_and_once(target: LocalTarget) -> None:
    with pytest.raises(LookupError), target.open("w") as out:
        out.write("first")
        out.commit()
        assert Path(target.path).read_text() == "first"
        with pytest.raises(ValueError, match="closed"):
            out.commit()
        with pytest.raises(ValueError, match="closed"):
            out.write("more")
        raise LookupError  # what has been committed stays
    assert Path(target.path).read_text() == "first"
    async with target.open("w") as aout:
        await aout.write("second")
        await aout.commit()
        with pytest.raises(ValueError, match="closed"):
            await aout.commit()
        with pytest.raises(ValueError, match="closed"):
            await aout.write("more")
    assert Path(target.path).read_text() == "second"
    assert names(Path(target.path).parent) == ["out.txt"]


async def test_a_forgotten_handle_goes_with_its_temporary(target: LocalTarget) -> None:
    folder = Path(target.path).parent
    out = target.open("w").__enter__()
    out.write("half")
    assert len(names(folder)) == 1
    del out
    gc.collect()
    assert names(folder) == []  # and no ResourceWarning: warnings are errors here
    aout = await target.open("w").__aenter__()
    await aout.write("half" * HOP)
    assert len(names(folder)) == 1
    del aout
    gc.collect()
    assert names(folder) == []


def test_a_handle_open_at_the_end_of_the_interpreter(tmp_path: Path) -> None:
    code = """
import sys, threading
from asyncflow import LocalTarget
kept = LocalTarget(sys.argv[1] + "/main.txt").open("w").__enter__()
kept.write("half")
entered = threading.Event()
def body():
    with LocalTarget(sys.argv[1] + "/thread.txt").open("w") as out:
        out.write("half"); out.flush()
        entered.set()
        threading.Event().wait()
threading.Thread(target=body, daemon=True).start()
entered.wait(10)
"""
    command = [sys.executable, "-W", "error", "-c", code, str(tmp_path)]
    done = subprocess.run(command, check=True, timeout=30, capture_output=True, text=True)
    assert done.stderr == ""
    assert names(tmp_path) == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_leaves_its_parents_handle_alone(tmp_path: Path) -> None:
    code = """
import os, sys
from asyncflow import LocalTarget
with LocalTarget(sys.argv[1] + "/text.txt").open("w") as text, LocalTarget(sys.argv[1] + "/b").open("wb") as raw:
    text.write("once"); raw.write(b"once")
    child = os.fork()
    if child == 0:
        sys.exit(0)            # unwinds the blocks, runs the exit handlers, flushes what is buffered
    assert os.waitpid(child, 0)[1] == 0
    text.write(" and whole"); raw.write(b" and whole")
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, str(tmp_path)], timeout=30, capture_output=True, text=True
    )
    assert done.stderr == ""
    assert done.returncode == 0
    assert names(tmp_path) == ["b", "text.txt"]
    assert (tmp_path / "text.txt").read_text() == "once and whole"
    assert (tmp_path / "b").read_bytes() == b"once and whole"


def test_a_handle_before_its_block_says_what_to_write(target: LocalTarget) -> None:
    with pytest.raises(AttributeError, match="with target.open"):
        target.open("w").write("x")  # type: ignore[attr-defined]
    with pytest.raises(AttributeError, match="with target.open"):
        target.open().read()  # type: ignore[attr-defined]
    assert names(Path(target.path).parent) == []  # nothing is created before the block is entered


def test_a_mode_that_does_not_write_whole_files(target: LocalTarget) -> None:
    for mode in ("a", "r+", "x", "w+", "wt"):
        with pytest.raises(ValueError, match="written whole"):
            target.open(mode)  # type: ignore[call-overload]


def test_a_wrong_encoding_leaves_no_descriptor_and_no_temporary(target: LocalTarget) -> None:
    before = leaks.Snapshot.take()
    for wrong, options in ((LookupError, {"encoding": "nope"}), (ValueError, {"newline": "x"})):
        with pytest.raises(wrong), target.open("w", **options):  # type: ignore[call-overload]
            pass
    leaks.check_open_files(before)
    assert names(Path(target.path).parent) == []


def test_two_writers_at_once(target: LocalTarget) -> None:
    both = threading.Barrier(2)

    def write(letter: str) -> None:
        with target.open("w") as out:
            out.write(letter * 100_000)
            both.wait(10)

    for _ in range(10):
        pair = [threading.Thread(target=write, args=letter) for letter in "ab"]
        for thread in pair:
            thread.start()
        for thread in pair:
            thread.join()
        assert Path(target.path).read_text() in {"a" * 100_000, "b" * 100_000}
    assert names(Path(target.path).parent) == ["out.txt"]


def test_the_last_rename_wins(target: LocalTarget) -> None:
    with target.open("w") as first:
        first.write("first to open, last to end")
        with target.open("w") as second:
            second.write("second")
        assert Path(target.path).read_text() == "second"
    assert Path(target.path).read_text() == "first to open, last to end"


def test_a_reader_keeps_what_it_has_opened(target: LocalTarget) -> None:
    with target.open("w") as out:
        out.write("old")
    with target.open() as file:
        with target.open("w") as out:
            out.write("new")
        assert file.read() == "old"


# The temporary -------------------------------------------------------------------------------------------


def test_the_temporary_is_private_and_beside_its_target(tmp_path: Path) -> None:
    target = LocalTarget(tmp_path / ("n" * 250))
    seen = set()
    for _ in range(20):
        with target.open("w"):
            (name,) = (name for name in names(tmp_path) if name != "n" * 250)
            assert name.startswith(".af-")
            assert len(name) == 24
            assert "nn" not in name
            seen.add(name)
    assert len(seen) == 20
    longest = LocalTarget(tmp_path / ("x" * 200 + "." + "y" * 54))  # 255 bytes, with a suffix of 54
    with longest.open("w"):
        pass
    with longest.temporary_path() as path:
        Path(path).touch()
    assert longest.exists()


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_the_umask_is_applied(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        for name in ("out", "again"):  # into a directory made for it, and into one that is there
            with LocalTarget(tmp_path / "new" / name).open("w"):
                pass
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "new" / "again").stat().st_mode) == 0o666 & ~umask
    assert stat.S_IMODE((tmp_path / "new" / "out").stat().st_mode) == 0o666 & ~umask
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o777 & ~umask


def test_a_link_planted_at_the_temporarys_name_is_not_followed(
    target: LocalTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    victim = Path(target.path).parent / "victim"
    victim.write_text("precious")
    writing = target.open("w")
    os.symlink(victim, writing._draft.path)  # somebody has guessed the name
    with pytest.raises(FileExistsError, match=r"out\.txt"), writing:
        pass
    assert victim.read_text() == "precious"
    os.unlink(writing._draft.path)  # it is not ours, and has been left alone
    assert not os.path.exists(target.path)


def test_parents_are_created(tmp_path: Path) -> None:
    with LocalTarget(tmp_path / "a" / "b" / "c" / "out").open("w") as out:
        out.write("x")
    with LocalTarget(tmp_path / "d" / "e" / "out").temporary_path() as path:
        Path(path).write_text("x")
    assert (tmp_path / "a/b/c/out").read_text() == (tmp_path / "d/e/out").read_text() == "x"


def test_parents_created_by_many_at_once(tmp_path: Path) -> None:
    start = threading.Barrier(8)
    errors: list[BaseException] = []

    def write(n: int) -> None:
        start.wait(10)
        try:
            with LocalTarget(tmp_path / "a" / "b" / "c" / str(n)).open("w") as out:
                out.write("x")
        except BaseException as error:
            errors.append(error)

    crowd = [threading.Thread(target=write, args=(n,)) for n in range(8)]
    for thread in crowd:
        thread.start()
    for thread in crowd:
        thread.join()
    assert errors == []
    assert len(names(tmp_path / "a/b/c")) == 8


# Strange places ------------------------------------------------------------------------------------------


def test_a_file_in_place_of_a_directory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    target = LocalTarget(tmp_path / "file" / "out.txt")
    with pytest.raises(NotADirectoryError, match=r"file/out\.txt"), target.open("w"):
        pass
    with pytest.raises(OSError, match="file"), target.temporary_path():
        pass
    deeper = LocalTarget(tmp_path / "file" / "more" / "out.txt")
    with pytest.raises(NotADirectoryError, match=r"more/out\.txt"), deeper.open("w"):
        pass
    assert not target.exists()
    assert (tmp_path / "file").read_text() == "x"


def test_a_directory_in_place_of_the_file(tmp_path: Path) -> None:
    target = LocalTarget(tmp_path / "out")
    (tmp_path / "out").mkdir()
    with pytest.raises(IsADirectoryError, match=r"out'$"), target.open("w") as out:
        out.write("x")
    assert target.exists()  # a directory may be what the target stands for
    assert names(tmp_path) == ["out"]


def test_a_dangling_link_at_the_final_name(tmp_path: Path) -> None:
    target = LocalTarget(tmp_path / "link")
    os.symlink(tmp_path / "nowhere" / "gone", target.path)
    assert not target.exists()
    with target.open("w") as out:
        out.write("x")
    assert not os.path.islink(target.path)  # the link is replaced, not followed
    assert Path(target.path).read_text() == "x"
    assert not (tmp_path / "nowhere").exists()


def test_a_link_to_a_file_is_replaced_and_the_file_kept(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("kept")
    os.symlink(tmp_path / "real", tmp_path / "link")
    with LocalTarget(tmp_path / "link").open("w") as out:
        out.write("new")
    assert (tmp_path / "real").read_text() == "kept"
    assert (tmp_path / "link").read_text() == "new"


def test_a_missing_file_is_the_plain_error(target: LocalTarget) -> None:
    with pytest.raises(FileNotFoundError, match=r"out\.txt"), target.open():
        pass


async def test_a_missing_file_on_the_loop(target: LocalTarget) -> None:
    with pytest.raises(FileNotFoundError, match=r"out\.txt"):
        async with target.open():
            pass


@pytest.mark.parametrize("name", ["new\nline", "emoji🙂", " space ", "-dash", "a'b\"c", "x" * 255, "\x01\x7f"])
def test_names(tmp_path: Path, name: str) -> None:
    target = LocalTarget(tmp_path / name)
    with target.open("w") as out:
        out.write("x")
    assert target.exists()
    assert names(tmp_path) == [name]


# exists --------------------------------------------------------------------------------------------------


async def test_absent_and_there(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert await LocalTarget(tmp_path / "file").exists() is True
    assert await LocalTarget(tmp_path).exists() is True
    assert await LocalTarget(tmp_path / "none").exists() is False
    assert await LocalTarget(tmp_path / "none" / "deeper").exists() is False
    assert await LocalTarget(tmp_path / "file" / "below").exists() is False


async def test_what_cannot_be_established_is_not_absent(tmp_path: Path) -> None:
    os.symlink(tmp_path / "loop", tmp_path / "loop")
    for path in (tmp_path / "loop", tmp_path / "loop" / "below", tmp_path / ("x" * 256), tmp_path / ("y/" * 3000)):
        with pytest.raises(TargetStateUnknown, match="cannot tell whether") as caught:
            await LocalTarget(path).exists()
        assert isinstance(caught.value.__cause__, OSError)


@needs_root
def test_a_directory_without_permission(tmp_path: Path) -> None:
    """In a child that has given up root: root may look everywhere."""
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "there").touch()
    secret.chmod(0o700)
    for parent in [tmp_path, *tmp_path.parents]:
        parent.chmod(parent.stat().st_mode | 0o011)
        if parent.name.startswith("pytest-of"):
            break
    code = """
import asyncio, os, sys
sys.path.insert(0, sys.argv[2])
import asyncflow
from asyncflow import LocalTarget, TargetStateUnknown, Task, build
ran = []
class Make(Task):
    name: str
    def output(self): return LocalTarget(sys.argv[1] + "/" + self.name)
    def run(self): ran.append(self.name)
class After(Task):
    def requires(self): return Make(name="there")
    def run(self): ran.append("after")
async def ask():
    return await LocalTarget(sys.argv[1] + "/there").exists()
os.setgroups([]); os.setgid(65534); os.setuid(65534)
for question in (lambda: bool(LocalTarget(sys.argv[1] + "/there").exists()), lambda: asyncio.run(ask())):
    try:
        raise SystemExit(f"answered {question()}")
    except TargetStateUnknown as error:
        assert "Permission denied" in str(error), error
result = asyncflow.run([Make(name="there"), Make(name="absent"), After()])
assert not result
assert ran == [], ran
assert result.counts == {"unknown": 2, "blocked": 1}, result.counts
try:
    with LocalTarget(sys.argv[1] + "/new").open("w"): pass
except PermissionError as error:
    assert "/new" in str(error) and ".af-" not in str(error), error
else:
    raise SystemExit("written")
"""
    root = str(Path(asyncflow.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", code, str(secret), root], timeout=30, capture_output=True, text=True, cwd="/"
    )
    if "No module named" in done.stderr or "Permission denied: '/root" in done.stderr:
        pytest.skip("the unprivileged child cannot read this checkout")
    assert done.stderr == ""
    assert done.returncode == 0
    assert names(secret) == ["there"]


@needs_root
def test_a_directory_that_may_be_written_and_not_read(tmp_path: Path) -> None:
    """Its fsync is out of reach; the file is published all the same."""
    box = tmp_path / "dropbox"
    box.mkdir()
    box.chmod(0o733)
    for parent in tmp_path.parents:
        parent.chmod(parent.stat().st_mode | 0o011)
        if parent.name.startswith("pytest-of"):
            break
    tmp_path.chmod(0o755)
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            with LocalTarget(box / "out").open("w") as out:
                out.write("x")
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    assert (box / "out").read_text() == "x"


async def test_a_build_with_an_unknown_target_neither_runs_nor_is_done(tmp_path: Path) -> None:
    os.symlink(tmp_path / "loop", tmp_path / "loop")
    ran: list[str] = []

    class Unknown(Task):
        def output(self) -> LocalTarget:
            return LocalTarget(tmp_path / "loop")

        def run(self) -> None:
            ran.append("unknown")

    class Needs(Task):
        def requires(self) -> Unknown:
            return Unknown()

        def run(self) -> None:
            ran.append("needs")

    result = await asyncflow.build(Needs())
    assert not result
    assert ran == []
    assert result.counts == {"unknown": 1, "blocked": 1}


# The path and the key ------------------------------------------------------------------------------------


def test_spellings_of_one_file_have_one_key(tmp_path: Path) -> None:
    (tmp_path / "real" / "sub").mkdir(parents=True)
    os.symlink(tmp_path / "real", tmp_path / "link")
    key = LocalTarget(tmp_path / "real" / "out").key
    assert key == f"file://{os.path.realpath(tmp_path)}/real/out"
    base = str(tmp_path)
    for spelling in (
        base + "//real///out",
        base + "/./real/./out",
        base + "/real/sub/../out",
        base + "/link/out",
        base + "/link/sub/../out",
        base + "/real/out/",
    ):
        assert LocalTarget(spelling).key == key, spelling


def test_dot_dot_after_a_link_is_what_the_file_system_says(tmp_path: Path) -> None:
    (tmp_path / "elsewhere" / "deep").mkdir(parents=True)
    os.symlink(tmp_path / "elsewhere" / "deep", tmp_path / "link")
    spelling = str(tmp_path / "link") + "/../out"
    with LocalTarget(spelling).open("w") as out:
        out.write("x")
    assert Path(spelling).read_text() == "x"
    assert (tmp_path / "elsewhere" / "out").exists()


def test_a_relative_path_stays_where_it_was_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    monkeypatch.chdir(tmp_path / "a")
    target = LocalTarget("out")
    up = LocalTarget("../a/./out")
    monkeypatch.chdir(tmp_path / "b")
    with target.open("w"):
        pass
    assert (tmp_path / "a" / "out").exists()
    assert target.key == up.key
    assert target != LocalTarget("out")


def test_a_value_like_any_other(tmp_path: Path) -> None:
    target = LocalTarget(tmp_path / "out", durability="none")
    again = pickle.loads(pickle.dumps(target))
    assert again == target == LocalTarget(tmp_path / "x" / ".." / "out")
    assert hash(again) == hash(target)
    assert again.durability == "none"
    assert repr(target) == f"LocalTarget({str(tmp_path / 'out')!r})"
    assert os.fspath(target) == str(tmp_path / "out")
    assert target != str(tmp_path / "out")


@pytest.mark.parametrize(
    ("path", "options", "error"),
    [
        ("", {}, ValueError),
        ("a\0b", {}, ValueError),
        (b"bytes", {}, TypeError),
        (5, {}, TypeError),
        (None, {}, TypeError),
        ("x", {"durability": "maybe"}, ValueError),
        ("x", {"durability": None}, ValueError),
    ],
)
def test_a_wrong_argument_is_refused(path: Any, options: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        LocalTarget(path, **options)


# temporary_path ------------------------------------------------------------------------------------------


async def test_temporary_path_of_a_file_and_of_a_directory(tmp_path: Path) -> None:
    target = LocalTarget(tmp_path / "new" / "model.tar.gz")
    with target.temporary_path() as path:
        assert path.endswith(".gz")
        assert os.path.dirname(path) == str(tmp_path / "new")
        assert not os.path.lexists(path)
        Path(path).write_text("file")
        assert not await target.exists()  # the path is there, and nobody sees it
    assert Path(target.path).read_text() == "file"

    folder = LocalTarget(tmp_path / "folder")
    async with folder.temporary_path() as path:
        os.makedirs(path + "/a/b")
        Path(path, "a", "b", "c").write_text("deep")
        os.symlink("nowhere", path + "/link")
        os.mkfifo(path + "/pipe")  # opening it would wait for ever
    assert Path(folder.path, "a/b/c").read_text() == "deep"
    assert names(tmp_path) == ["folder", "new"]


@pytest.mark.parametrize("kind", ["file", "directory", "nothing", "link"])
async def test_temporary_path_after_an_error(tmp_path: Path, kind: str) -> None:
    target = LocalTarget(tmp_path / "out")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").touch()

    def leave(path: str) -> None:
        if kind == "file":
            Path(path).touch()
        elif kind == "directory":
            os.makedirs(path + "/a")
            Path(path, "a", "b").touch()
        elif kind == "link":
            os.symlink(outside, path)

    with pytest.raises(LookupError), target.temporary_path() as path:
        leave(path)
        raise LookupError
    with pytest.raises(LookupError):
        async with target.temporary_path() as path:
            leave(path)
            raise LookupError
    assert names(tmp_path) == ["outside"]
    assert names(outside) == ["kept"]  # a link is removed, not what it points at


async def test_nothing_written_to_a_temporary_path(target: LocalTarget) -> None:
    with pytest.raises(FileNotFoundError, match=r"nothing was written.*out\.txt"), target.temporary_path():
        pass
    with pytest.raises(FileNotFoundError, match=r"nothing was written.*out\.txt"):
        async with target.temporary_path():
            pass


@pytest.mark.parametrize("sync", [True, False])
async def test_what_was_never_made_does_not_keep_the_journal(tmp_path: Path, sync: bool) -> None:
    (tmp_path / "file").touch()
    below, fine = LocalTarget(tmp_path / "file" / "below"), LocalTarget(tmp_path / "out")

    def blocks() -> Iterator[Any]:
        yield below.open("w")
        yield below.temporary_path()
        yield fine.temporary_path()  # and nothing is written there

    before = set(journal.unfinished)
    for block in blocks():
        with pytest.raises(OSError, match=r"file|nothing was written"):
            if sync:
                with block:
                    pass
            else:
                async with block:
                    pass
    assert journal.unfinished == before
    entering = asyncio.ensure_future(fine.temporary_path().__aenter__())
    await asyncio.sleep(0)  # its hop has begun
    entering.cancel()
    with pytest.raises(asyncio.CancelledError):
        await entering
    assert journal.unfinished == before


REPLACED = """
import os, shutil, sys
from asyncflow import LocalTarget, journal
from asyncflow.targets import _draft

def killing(name, real):
    def call(*args, **options):
        global calls
        if calls == int(sys.argv[2]):
            os._exit(9)
        calls += 1
        return real(*args, **options)
    return call

calls = 0
with LocalTarget(sys.argv[1]).temporary_path() as path:
    os.mkdir(path)
    open(path + "/new", "w").close()
    os.rename, journal.note = killing("rename", os.rename), killing("note", journal.note)
    journal.done, shutil.rmtree = killing("done", journal.done), killing("rmtree", shutil.rmtree)
"""


def directory_of(target: LocalTarget, name: str) -> None:
    with target.temporary_path() as path:
        os.mkdir(path)
        Path(path, name).touch()


async def test_a_directory_is_replaced_by_another(tmp_path: Path) -> None:
    for durability in ("fsync", "none"):
        target = LocalTarget(tmp_path / "folder", durability=durability)  # type: ignore[arg-type]
        directory_of(target, "old")
        async with target.temporary_path() as path:
            os.mkdir(path)
            Path(path, "new").touch()
        assert names(tmp_path / "folder") == ["new"]
        assert names(tmp_path) == ["folder"]
        assert not [name for name in journal.unfinished if str(tmp_path) in name]


def test_a_directory_replaces_no_file_and_no_link(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("kept")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to("elsewhere")
    for name in ("file", "link"):
        with pytest.raises(OSError, match=rf"{name}'$"):
            directory_of(LocalTarget(tmp_path / name), "new")
    (tmp_path / "elsewhere" / "kept").touch()
    with pytest.raises(OSError, match=r"elsewhere'$"), LocalTarget(tmp_path / "elsewhere").open("w") as file:
        file.write("a file")
    assert names(tmp_path) == ["elsewhere", "file", "link"]
    assert names(tmp_path / "elsewhere") == ["kept"]


@pytest.mark.parametrize("failing", [1, 2, 3])
def test_a_directory_that_cannot_be_replaced_is_put_back(
    tmp_path: Path, failing: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where that is impossible, too, the next process does it."""
    target, rename, calls = LocalTarget(tmp_path / "folder"), os.rename, 0
    directory_of(target, "old")

    def fails(*args: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == failing or (failing == 3 and calls == 2):
            raise OSError(errno.EIO, "no", args[0], None, args[1])
        rename(*args)

    decided: list[str] = []
    monkeypatch.setattr(journal, "note", lambda kind, place: kind == "together" and decided.append(place))
    monkeypatch.setattr(journal, "done", lambda kind, place: kind == "together" and decided.remove(place))
    with monkeypatch.context() as patch, pytest.raises(OSError, match=r"no: '.*folder'") as raised:
        patch.setattr(os, "rename", fails)
        directory_of(target, "new")
    assert bool(decided) == (failing == 3)
    for decision in decided:
        assert "puts it back" in raised.value.__notes__[0]
        assert not os.path.exists(target.path)
        healing._finish(decision)
        journal.unfinished.discard(json.loads(decision)[0]["former"])
    assert names(tmp_path / "folder") == ["old"]
    assert names(tmp_path) == ["folder"]
    assert not [name for name in journal.unfinished if str(tmp_path) in name]


@pytest.mark.parametrize("after", [1, 2])
def test_a_directory_whose_replacement_is_stopped_is_there(
    tmp_path: Path, after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By Ctrl-C right after one of the renames."""
    target, rename, calls = LocalTarget(tmp_path / "folder"), os.rename, 0
    directory_of(target, "old")
    unfinished = set(journal.unfinished)

    def stopped(*args: Any) -> None:
        nonlocal calls
        rename(*args)
        calls += 1
        if calls == after:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(os, "rename", stopped)
        directory_of(target, "new")
    assert names(tmp_path / "folder") == ["old" if after == 1 else "new"]
    assert names(tmp_path) == ["folder"]
    assert journal.unfinished == unfinished


def test_of_two_who_replace_a_directory_the_last_one_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target, rename = LocalTarget(tmp_path / "folder"), os.rename
    directory_of(target, "old")
    others = iter(["other", "another"])

    def and_somebody_else(*args: Any) -> None:
        rename(*args)
        if args[0] == target.path and (name := next(others, None)):
            with monkeypatch.context() as patch:
                patch.setattr(os, "rename", rename)
                directory_of(target, name)

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", and_somebody_else)
        directory_of(target, "new")
    assert names(tmp_path / "folder") == ["new"]
    assert names(tmp_path) == ["folder"]


@pytest.mark.parametrize("killed", range(6))
def test_a_kill_while_a_directory_is_replaced(tmp_path: Path, killed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASYNCFLOW_STATE", str(tmp_path / "state"))
    target = LocalTarget(tmp_path / "data" / "folder")
    directory_of(target, "old")
    process = subprocess.run([sys.executable, "-c", REPLACED, target.path, str(killed)])
    assert process.returncode == (9 if killed < 5 else 0)
    assert killed in (0, 1, 2, 3, 4) or names(tmp_path / "data") == ["folder"]
    healing.clean()
    assert names(tmp_path / "data" / "folder") == ["old" if killed < 2 else "new"]
    assert names(tmp_path / "data") == ["folder"]


def test_a_program_may_use_the_path(tmp_path: Path) -> None:
    target = LocalTarget(tmp_path / "out.txt")
    with target.temporary_path() as path:
        subprocess.run(["sh", "-c", 'printf x > "$1"', "sh", path], check=True, timeout=10)
    assert Path(target.path).read_text() == "x"


def test_a_temporary_that_cannot_be_removed_does_not_hide_the_error(
    target: LocalTarget,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    abandoned: Callable[..., None],
) -> None:
    abandoned(files=1)

    def refuse(path: str) -> None:
        raise PermissionError(13, "Permission denied", path)

    with monkeypatch.context() as patch, pytest.raises(LookupError), target.open("w"):
        patch.setattr(os, "unlink", refuse)
        raise LookupError
    assert "left behind" in caplog.text
    assert len(journal.unfinished) == 1
    journal.unfinished.clear()
