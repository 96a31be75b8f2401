"""The examples that start a real server: what they print is what their READMEs say, and nothing is left of it."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.examples.conftest import EXAMPLES, Program
from tests.examples.test_readmes import SERVED
from tests.servers import lacking

pytestmark = [pytest.mark.services, pytest.mark.timeout(30)]

# The same lookups, on a machine that has no servers.
WITHOUT = """
import os, runpy, shutil, sys
os.access = lambda *arguments: False
shutil.which = lambda name: None
runpy.run_path(sys.argv[1], run_name="__main__")
"""


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder for temporary files that is the program's own; PostgreSQL enters it as another user."""
    folder = Path(tempfile.mkdtemp(prefix="asyncflow-examples-"))
    folder.chmod(0o755)
    monkeypatch.setenv("TMPDIR", str(folder))
    yield folder
    shutil.rmtree(folder)


def program(name: str) -> Path:
    return EXAMPLES / name / "pipeline.py"


def shown(name: str) -> str:
    """What the README says that the program prints."""
    text = (EXAMPLES / name / "README.md").read_text("utf-8")
    found = re.search(rf"\$ python examples/{name}/pipeline.py\n(.*?)```", text, re.DOTALL)
    assert found is not None
    return found[1]


def masked(text: str) -> str:
    """What is the same each time: not how long it took, nor how well this machine's zlib compresses."""
    return re.sub(r"[\d,]+ bytes", "... bytes", re.sub(r" in [\d.e-]+ s\b", " in ... s", text))


@pytest.mark.parametrize("name", SERVED)
def test_it_prints_what_its_readme_says(name: str, python: Program, temporary: Path, tmp_path: Path) -> None:
    done = python(program(name))
    if done.returncode == 1 and "is not on this machine" in done.stderr:
        lacking(done.stderr.strip())
    assert done.stderr == ""
    assert masked(done.stdout) == masked(shown(name))
    assert done.returncode == 0
    assert [*temporary.iterdir(), *tmp_path.iterdir()] == []


@pytest.mark.parametrize("name", SERVED)
def test_without_its_server_it_says_what_to_install(name: str, python: Program, temporary: Path) -> None:
    done = python("-c", WITHOUT, program(name))
    assert (done.stdout, done.returncode) == ("", 1)
    assert re.fullmatch(r"\w+ is not on this machine: .*(pip install|apt install|fetch\.sh).*\n", done.stderr)
    assert [*temporary.iterdir()] == []
