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

__all__ = ["look", "remembering", "resolve"]

LIMIT = 1024
"""Directories a build remembers, those it asked for last: 0.3 MB at most."""


def look(directory: str) -> str:
    """The real path of ``directory``, now."""
    return os.path.realpath(directory)


def remembering() -> Callable[[str], str]:
    """A ``look`` that remembers, for one build."""
    return lru_cache(LIMIT)(look)


resolve: ContextVar[Callable[[str], str]] = ContextVar("asyncflow_resolve", default=look)
"""In a build's context the one that remembers, elsewhere the one that looks."""
