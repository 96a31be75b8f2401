"""The examples as modules, and as programs in processes of their own."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"

Program = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def python(tmp_path: Path) -> Program:
    """Run `python ARGUMENTS...` in tmp_path, as a reader of the examples would; what it printed."""

    def program(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *map(str, arguments)], cwd=tmp_path, env=environment(), capture_output=True, text=True,
            encoding="utf-8", check=False, timeout=50,
        )  # fmt: skip

    return program


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONUTF8": "1", "NO_COLOR": "1", "PYTHONWARNINGS": "error"}


@pytest.fixture(scope="module")
def pipeline() -> Iterator[ModuleType]:
    """`examples/weather/pipeline.py`, which imports the modules beside it."""
    folder = EXAMPLES / "weather"
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        for name in (path.stem for path in folder.glob("*.py")):
            patch.delitem(sys.modules, name, raising=False)
        yield load(folder / "pipeline.py")
        for name in (path.stem for path in folder.glob("*.py")):
            sys.modules.pop(name, None)


def load(path: Path) -> ModuleType:
    """Import the file at `path`."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[path.stem] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
