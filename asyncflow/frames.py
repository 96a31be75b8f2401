"""Whose code a frame runs: the user's, somebody else's (an installed package, generated code), or Python's and ours."""

from __future__ import annotations

import gc
import os
import sys
from types import FrameType

__all__ = ["OTHERS", "OURS", "USERS", "home", "of_threads", "place", "whose"]

OURS, OTHERS, USERS = range(3)

_PACKAGE = os.path.dirname(os.path.abspath(__file__)) + os.sep
_PYTHON = os.path.dirname(os.path.abspath(os.__file__)) + os.sep
_INSTALLED = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")


def home(module: str | None) -> str | None:
    """The folder of the package ``module`` belongs to, or its file."""
    top = sys.modules.get((module or "").partition(".")[0])
    path: str | None = getattr(top, "__file__", None)
    if top is None or path is None:
        return None
    return os.path.dirname(path) + os.sep if hasattr(top, "__path__") else path


def whose(path: str, root: str | None = None) -> int:
    """``USERS``, ``OTHERS`` or ``OURS``. What lies in ``root`` is the user's: pipelines may be installed packages."""
    if path.startswith("<"):
        return OURS if path.startswith("<frozen ") else OTHERS
    path = os.path.abspath(path)
    if path.startswith(_PACKAGE):
        return OURS
    if root is not None and path.startswith(root):
        return USERS
    if any(part in path for part in _INSTALLED):
        return OTHERS
    return OURS if path.startswith(_PYTHON) else USERS


def place(frame: FrameType) -> str:
    """``path:line in function``."""
    return f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_qualname}"


def of_threads() -> dict[int, FrameType]:
    """``sys._current_frames()``: the frame each thread is in now. Without collecting garbage.

    Before CPython 3.11.9 a collection in there runs code while the list of threads is locked: if it lets another
    thread in that begins or ends a thread, the process stands still for good (python/cpython#106883).
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        return sys._current_frames()
    finally:
        if collects:
            gc.enable()
