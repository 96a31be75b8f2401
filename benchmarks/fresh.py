"""One workload in a new process: another engine's, or one whose peak resident size is the question."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

__all__ = ["CACHE", "LIMIT", "run"]

HERE = Path(__file__).resolve().parent.parent
CACHE = HERE / ".cache"
LIMIT = 60.0
"""Seconds a workload may take. "Did not finish" is a result."""


def run(
    engine: str, workload: str, tasks: int, *, python: str = sys.executable, limit: float = LIMIT
) -> dict[str, Any]:
    """What ``benchmarks.peers.with_ENGINE`` answers (see ``protocol.py``), or that it did not within ``limit``."""
    command = [python, "-m", f"benchmarks.peers.with_{engine}", workload, str(tasks)]
    CACHE.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE, prefix="bench-files-", ignore_cleanup_errors=True) as folder:
        return _answer(command, {**os.environ, "PYTHONPATH": str(HERE), "BENCH_FOLDER": folder, "HOME": folder}, limit)


def _answer(command: list[str], environment: Mapping[str, str], limit: float) -> dict[str, Any]:
    folder = environment["BENCH_FOLDER"]
    # Files, not pipes: a pipe is open as long as any process that an engine has forked.
    with open(Path(folder, "answer"), "w+") as answer, open(Path(folder, "errors"), "w+", errors="replace") as errors:
        # A session of its own: what an engine leaves running (workers, a server) ends with it.
        with subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdout=answer,
            stderr=errors,
            start_new_session=True,
        ) as process:
            try:
                process.wait(limit)
            except subprocess.TimeoutExpired:
                return {"status": "not finished", "limit_s": limit}
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
        answer.seek(0)
        errors.seek(0)
        if out := answer.read().strip():
            found: dict[str, Any] = json.loads(out)
            return found
        last = (errors.read().strip().splitlines() or [f"exit code {process.returncode}"])[-1]
        return {"status": "failed", "error": "no answer", "message": last[:200]}
