"""File system paths."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Unpack

from .base import MISSING, Parameter, ParameterOptions

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["PathParameter"]


class PathParameter(Parameter["Path"]):
    """A ``pathlib.Path``; strings and other path-like values become one."""

    expected = "a path, e.g. data/orders.csv"
    exact = None
    native = False

    def __init__(
        self,
        default: Path | str = MISSING,
        *,
        absolute: bool = False,
        exists: bool = False,
        **options: Unpack[ParameterOptions],
    ) -> None:
        """Declare a path; ``absolute`` completes it with the working directory, ``exists`` wants it there."""
        super().__init__(default, **options)  # type: ignore[arg-type]  # normalised when the class is created
        self.absolute = absolute
        self.exists = exists
        # Both look at the world of the moment, so a default is not settled when the class is created.
        self.volatile = absolute or exists

    def parse(self, text: str) -> Path:
        from pathlib import Path

        return Path(text)

    def normalize(self, value: object) -> Path:
        """A Path from a str or path-like value; ValueError for others and for a missing one if ``exists``."""
        from pathlib import Path

        text = os.fspath(value) if isinstance(value, (str, os.PathLike)) else None
        if not isinstance(text, str):
            raise self.mismatch()
        path = Path(text)
        if self.absolute:
            path = path.absolute()
        if self.exists and not path.exists():
            raise ValueError("expected a path that exists")
        return path
