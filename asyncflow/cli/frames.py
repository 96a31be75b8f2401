"""Which frames of a traceback are the user's own: not Python's, not an installed package's, not asyncflow's."""

from __future__ import annotations

import linecache
import os
import sys
import traceback
from typing import NamedTuple

__all__ = ["Frame", "shown_path", "user_frames"]

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_PYTHON = os.path.dirname(os.path.abspath(os.__file__)) + os.sep
_INSTALLED = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")


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
    home = _home(module)
    frames = [
        Frame(frame.f_code.co_filename, line, frame.f_code.co_qualname)
        for frame, line in traceback.walk_tb(error.__traceback__)
        if _is_users(frame.f_code.co_filename, home)
    ]
    if isinstance(error, SyntaxError) and error.filename and _is_users(error.filename, home):
        frames.append(Frame(error.filename, error.lineno or 1, "<module>"))
    return frames


def shown_path(path: str) -> str:
    """``path`` as a person in this directory would write it."""
    try:
        inside = os.path.relpath(path)
    except ValueError:  # another drive
        return path
    return path if inside.startswith(os.pardir + os.sep) else inside


def _home(module: str | None) -> str | None:
    """The folder of the package ``module`` belongs to, or its file."""
    top = sys.modules.get((module or "").partition(".")[0])
    path: str | None = getattr(top, "__file__", None)
    if top is None or path is None:
        return None
    return os.path.dirname(path) + os.sep if hasattr(top, "__path__") else path


def _is_users(path: str, home: str | None) -> bool:
    if path.startswith("<"):
        return False
    path = os.path.abspath(path)
    if path.startswith(_PACKAGE):
        return False
    if home is not None and path.startswith(home):
        return True
    return not path.startswith(_PYTHON) and not any(part in path for part in _INSTALLED)
