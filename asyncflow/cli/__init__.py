"""The command ``asyncflow``: ``run``, ``plan`` and ``list`` for tasks in modules and files.

Data (a plan, a list, ``--json``) goes to standard output, everything else to standard error. The exit code is
0 if all is there, 1 if a task failed, 2 for a mistake in the call, the task classes or the graph, 3 if an
external input is missing, 4 if something could not be established, 130 and 143 after SIGINT and SIGTERM.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from .terminal import Terminal, open_terminal

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Carry out one command line (``sys.argv[1:]`` if none is given); the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    with open_terminal() as terminal:
        code = _main(terminal, arguments)
    if terminal.leave_at_once:  # threads or tasks that do not stop would hold up Python's own exit
        os._exit(code)
    return code


def _main(terminal: Terminal, arguments: list[str]) -> int:
    if arguments == ["--version"]:  # by itself, so that it need not wait for argparse
        from .._version import __version__

        terminal.data(f"asyncflow {__version__}")
        return 0
    from .commands import dispatch

    return dispatch(terminal, arguments)
