"""What ends a command before or instead of a result."""

from __future__ import annotations

__all__ = ["USAGE", "CommandError"]

USAGE = 2


class CommandError(Exception):
    """Something is wrong with the call, or with the code it leads to.

    ``code`` is its stable name in ``--json``; ``__cause__`` is what ``--full-traceback`` shows.
    """

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        code: str = "usage",
        exit_code: int = USAGE,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.code = code
        self.exit_code = exit_code
