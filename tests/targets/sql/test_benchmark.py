"""The measurement works, at a size at which nothing can be measured."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from examples.servers.postgres import Postgres

ROOT = Path(__file__).parents[3]


def test_rows_are_measured(server: Postgres) -> None:
    command = [sys.executable, "-m", "benchmarks.sql", "--at-most", "100"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for workload in ("COPY from a list", "COPY from a generator", "SQLite, beside"):
        assert workload in done.stdout
