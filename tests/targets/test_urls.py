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
        ("s3://u:canary@bucket/key", "credentials do not go into the URL"),
        ("gopher://u:canary@host/x", r"known are file, ftp.*entry point 'gopher' in the group 'asyncflow.targets'"),
    ],
)
def test_urls_that_are_refused(url: str, said: str) -> None:
    if url.startswith(("s3:", "sqlite")):
        pytest.importorskip("botocore" if url.startswith("s3:") else "sqlalchemy")
    with pytest.raises(ValueError, match=said) as raised:
        target_for(url)
    assert "canary" not in str(raised.value)
    with pytest.raises(TypeError, match=r"target_for\(None\): expected a URL or a path"):
        target_for(None)  # type: ignore[arg-type]


def test_others_come_by_entry_points(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = LocalTarget(tmp_path / "x")
    module = SimpleNamespace(make=lambda url, **options: (url, options, made)[2])
    monkeypatch.setitem(sys.modules, "of_others", module)  # type: ignore[arg-type]
    folder = tmp_path / "of_others-1.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: of-others\nVersion: 1\n")
    (folder / "entry_points.txt").write_text("[asyncflow.targets]\ngopher = of_others:make\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert target_for("gopher://host/x") is made


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
