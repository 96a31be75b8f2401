"""Help for those who test their own tasks."""

from __future__ import annotations

from .blocking import LoopBlockedError, no_blocking

__all__ = ["LoopBlockedError", "no_blocking"]
