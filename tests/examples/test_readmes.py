"""Every command the first two READMEs name is run, in order, as a reader would."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from tests.examples.conftest import EXAMPLES, Program

READMES = ("README.md", "weather/README.md")
SERVED = ("s3_pipeline", "ftp_ingest", "csv_to_postgres")  # they want a server: see test_with_servers.py


def commands(readme: str) -> list[str]:
    text = (EXAMPLES / readme).read_text("utf-8")
    found = re.findall(r"(?:\$ |`)((?:asyncflow run|python) [^`#\n]+)", text)
    return [command.strip() for command in found if "NAME" not in command and "pause" not in command]


@pytest.mark.parametrize("readme", READMES)
def test_every_command_of_a_readme_works(readme: str, python: Program, tmp_path: Path) -> None:
    (tmp_path / "examples").symlink_to(EXAMPLES)
    assert commands(readme)
    for command in commands(readme):
        if any(name in command for name in SERVED):
            continue
        words = shlex.split(command)
        done = python(*(["-m", *words] if words[0] == "asyncflow" else words[1:]))
        assert done.returncode == 0, f"{command}\n{done.stderr}"
    assert (tmp_path / "output").is_dir()


def test_the_readmes_name_every_example() -> None:
    named = " ".join(commands(READMES[0]))
    # Of several modules, which is the program.
    several = {"weather": "pipeline.py", "fastapi_service": "", "servers": ""}
    files = [path for path in EXAMPLES.rglob("*.py") if several.get(path.parent.name, path.name) == path.name]
    assert "`uvicorn --app-dir examples/fastapi_service service:app`" in (EXAMPLES / READMES[0]).read_text("utf-8")
    assert [path for path in files if path.relative_to(EXAMPLES).as_posix() not in named] == []


@pytest.mark.parametrize("readme", [*READMES, *(f"{name}/README.md" for name in SERVED)])
def test_a_readme_has_at_most_forty_lines(readme: str) -> None:
    assert len((EXAMPLES / readme).read_text("utf-8").splitlines()) <= 40
