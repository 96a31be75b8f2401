"""The target at a URL."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from asyncflow import LocalTarget, MemoryTarget, target_for
from asyncflow.codecs import Json


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("file:///tmp/a%20b%3F", LocalTarget("/tmp/a b?")),
        ("FILE:///tmp/x", LocalTarget("/tmp/x")),
        ("file://localhost/tmp/x", LocalTarget("/tmp/x")),
        ("/tmp/a%20b", LocalTarget("/tmp/a%20b")),
        ("rel/ative", LocalTarget("rel/ative")),
        (Path("/tmp/x"), LocalTarget("/tmp/x")),
        ("/tmp/12:30", LocalTarget("/tmp/12:30")),
        (Path("memory:x"), LocalTarget("memory:x")),
        (Path("report:2024.csv"), LocalTarget("report:2024.csv")),
        ("memory:name", MemoryTarget("name")),
    ],
)
def test_files_and_memory(url: Any, target: Any) -> None:
    assert target_for(url) == target


def test_options_are_those_of_the_class() -> None:
    assert target_for("file:///tmp/x", codec=Json()).codec == Json()  # type: ignore[attr-defined]
    with pytest.raises(TypeError, match="codex"):
        target_for("file:///tmp/x", codex=Json())


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("file://host/x", "expected file:///absolute/path"),
        ("file:x", "expected file:///absolute/path"),
        ("file:///x?y", "with %3F for ?"),
        (
            "s4://bucket/key",
            r"\('s4://bucket/key'\): no kind of target is known for 's4'; did you mean 's3'\?",
        ),
        (
            "sqlite+aiosqlite://u:canary@h/x.db",
            r"\('sqlite\+aiosqlite://...@h/x.db'\): expected \?update_id=...",
        ),
        ("sqlite:///x.db?update_id=a&tabel=t", r"there is no \?tabel=...; did you mean 'table'\?"),
        ("sqlite:///x.db?update_id=a&columns=t", r"columns go beside the URL: target_for\(url, columns=...\)"),
        ("me:canary@host/db", r"\('...@host/db'\): no kind of target is known for 'me'"),
        ("postgresql:me:canary@host/db", r"\('...@host/db'\): expected \?update_id=..."),
        ("s3://u:canary@bucket/key", "credentials do not go into the URL"),
        ("gopher://u:canary@host/x", r"known are file, ftp.*entry point 'gopher' in the group 'asyncflow.targets'"),
    ],
)
def test_urls_that_are_refused(url: str, said: str) -> None:
    if url.startswith(("s3:", "sqlite", "postgresql")):
        pytest.importorskip("botocore" if url.startswith("s3:") else "sqlalchemy")
    with pytest.raises(ValueError, match=said) as raised:
        target_for(url)
    assert "canary" not in str(raised.value)
    with pytest.raises(TypeError, match=r"target_for\(None\): expected a URL or a path"):
        target_for(None)  # type: ignore[arg-type]


@pytest.fixture
def of_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LocalTarget:
    """A distribution with entry points, one of which makes this target."""
    made = LocalTarget(tmp_path / "x")
    module = SimpleNamespace(make=lambda url, **options: (url, options, made)[2], nothing=lambda url: None)
    monkeypatch.setitem(sys.modules, "of_others", module)  # type: ignore[arg-type]
    folder = tmp_path / "of_others-1.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: of-others\nVersion: 1\n")
    (folder / "entry_points.txt").write_text(
        "[asyncflow.targets]\nGopher = of_others:make\nwais = of_others:nothing\n"
        "nowhere = not_a_module:make\nnameless = of_others:not_there\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    return made


def test_others_come_by_entry_points(of_others: LocalTarget) -> None:
    assert target_for("gopher://host/x") is of_others
    assert target_for("GOPHER://host/x") is of_others


@pytest.mark.parametrize(
    ("url", "kind", "said"),
    [
        (
            "wais:x",
            TypeError,
            r"\('wais:x'\): the entry point wais = of_others:nothing of of-others gave None",
        ),
        ("nowhere:x", ImportError, "nowhere = not_a_module:make of of-others cannot be loaded: No module named"),
        ("nameless:x", ImportError, "nameless = of_others:not_there of of-others cannot be loaded: .*not_there"),
        ("gophr:x", ValueError, r"did you mean 'gopher'\?"),
    ],
)
@pytest.mark.usefixtures("of_others")
def test_entry_points_that_give_no_target(url: str, kind: type[Exception], said: str) -> None:
    with pytest.raises(kind, match=said):
        target_for(url)


@pytest.mark.parametrize("module", ["s3", "ftp", "sql"])
def test_a_library_that_is_not_installed(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    library = {"s3": "botocore.exceptions", "ftp": "aioftp", "sql": "sqlalchemy"}[module]
    for name in [name for name in sys.modules if name.startswith(f"asyncflow.targets.{module}")]:
        monkeypatch.delitem(sys.modules, name)
    for name in [name for name in sys.modules if name.startswith(f"asyncflow.targets._{module}")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, library, None)
    url = {"s3": "s3://bucket/key", "ftp": "ftp://host/x", "sql": "sqlite:///x.db?update_id=1"}[module]
    with pytest.raises(ModuleNotFoundError, match=rf"pip install 'asyncflow-engine\[{module}\]'"):
        target_for(url)
