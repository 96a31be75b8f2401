"""Pyright sees the errors it must see. (Mypy is told by `warn_unused_ignores`, where it checks `tests/typing`.)"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
WRONG = ROOT / "tests" / "typing" / "errors.py"
IGNORE = re.compile(r"  # type: ignore\[[a-z, -]+\]")


def test_pyright_refuses_exactly_the_lines_it_must(tmp_path: Path) -> None:
    lines = WRONG.read_text().splitlines()
    expected = {number for number, line in enumerate(lines, 1) if IGNORE.search(line)}
    assert len(expected) > 30
    (tmp_path / "errors.py").write_text("\n".join(IGNORE.sub("", line) for line in lines) + "\n")
    settings = {"include": ["errors.py"], "extraPaths": [str(ROOT)], "pythonVersion": "3.11"}
    (tmp_path / "pyrightconfig.json").write_text(json.dumps({**settings, "typeCheckingMode": "standard"}))
    command = [sys.executable, "-m", "pyright", "-p", str(tmp_path), "--pythonpath", sys.executable, "--outputjson"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50)
    report = json.loads(done.stdout)
    found = {item["range"]["start"]["line"] + 1 for item in report["generalDiagnostics"] if item["severity"] == "error"}
    assert report["summary"]["filesAnalyzed"] == 1
    assert sorted(found) == sorted(expected), done.stdout
