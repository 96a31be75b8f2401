"""Which frames of a traceback are the user's own: not Python's, not an installed package's, not asyncflow's."""

from __future__ import annotations

import linecache
import os
import traceback
from typing import NamedTuple

from ..frames import USERS, home, whose

__all__ = ["Frame", "shown_path", "user_frames"]


class Frame(NamedTuple):
    """A place in the user's code."""

    path: str
    line: int
    function: str

    @property
    def source(self) -> str:
        """The line itself, without its indentation; empty if it cannot be read."""
        return linecache.getline(self.path, self.line).strip()

    def __str__(self) -> str:
        return f"{shown_path(self.path)}:{self.line} in {self.function}"


def user_frames(error: BaseException, module: str | None = None) -> list[Frame]:
    """The user's frames in the traceback of ``error``, outermost first.

    ``module`` is the user's whatever folder it is in: a pipeline may be an installed package.
    """
    root = home(module)
    frames = [
        Frame(frame.f_code.co_filename, line, frame.f_code.co_qualname)
        for frame, line in traceback.walk_tb(error.__traceback__)
        if whose(frame.f_code.co_filename, root) == USERS
    ]
    if isinstance(error, SyntaxError) and error.filename and whose(error.filename, root) == USERS:
        frames.append(Frame(error.filename, error.lineno or 1, "<module>"))
    return frames


def shown_path(path: str) -> str:
    """``path`` as a person in this directory would write it."""
    try:
        inside = os.path.relpath(path)
    except ValueError:  # another drive
        return path
    return path if inside.startswith(os.pardir + os.sep) else inside
