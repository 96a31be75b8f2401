"""Where a directory really is: the links on the way to it followed, once in a build.

To resolve a path is an ``lstat`` for each of its parts, and the outputs of one build lie in few directories.
What a build has seen it keeps to its end, as it does what it has found complete; the next build looks anew, so
a link that was turned to another directory in between is noticed. Only names for locks and books are made of the
answer: files are opened by the path their target was given, wherever that leads by then.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextvars import ContextVar
from functools import lru_cache

__all__ = ["remembering", "resolve"]

LIMIT = 1024
"""Directories a build remembers, those it asked for last: 0.3 MB at most."""

resolve: ContextVar[Callable[[str], str]] = ContextVar("asyncflow_resolve", default=os.path.realpath)
"""Gives the real path of a directory; in a build's context one that remembers, elsewhere one that looks."""


def remembering() -> Callable[[str], str]:
    """A ``resolve`` for one build."""
    return lru_cache(LIMIT)(os.path.realpath)
