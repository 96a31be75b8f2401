"""An environment of its own for each engine, below ``.cache``; made on first use."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from .fresh import CACHE

__all__ = ["PINS", "CannotInstall", "python_of"]

PINS: Mapping[str, Sequence[str]] = {
    "luigi": ("luigi==3.8.1",),
    "stardag": ("stardag==0.28.0",),
    "dask": ("distributed==2026.8.0",),
    "prefect": ("prefect==3.8.8", "fastapi==0.139.*"),
    "hamilton": ("sf-hamilton==1.90.0",),
    "doit": ("doit==0.37.0",),
    "redun": ("redun==0.44.1",),
}
"""What is installed; the first of each names the engine and its version."""

LIMIT = 600.0  # seconds


class CannotInstall(Exception):
    """An engine could not be installed here; the message says why."""


def python_of(engine: str, packages: Sequence[str] = ()) -> str:
    """The interpreter of ``engine``'s environment, with ``packages`` beside its pins. Raises ``CannotInstall``."""
    wanted = [*PINS.get(engine, ()), *packages]
    folder = CACHE / f"bench-{engine}"
    python, stamp = folder / "bin" / "python", folder / ".made"
    pins = " ".join(wanted)
    if not stamp.exists() or stamp.read_text() != pins:
        print(f"==> installing {pins} below {folder.relative_to(CACHE.parent)}", file=sys.stderr, flush=True)
        _call(sys.executable, "-m", "venv", str(folder))
        _call(str(python), "-m", "pip", "install", "-q", *wanted)
        Path(stamp).write_text(pins)
    return str(python)


def _call(*command: str) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=False)
    except subprocess.TimeoutExpired:
        raise CannotInstall(f"{command[-1]}: not installed within {LIMIT:g} s") from None
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines()
        raise CannotInstall(lines[-1][:200] if lines else f"{command[-1]}: exit code {done.returncode}")
