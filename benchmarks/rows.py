"""One line of the table: a workload at a size, what it took, and what it is meant to take."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["Goal", "Row"]


@dataclass(frozen=True)
class Goal:
    """Limits: of the figure in its own unit, and of its ratio to mini."""

    figure: float
    ratio: float | None = None

    def __str__(self) -> str:
        return f"{self.figure:g}" if self.ratio is None else f"{self.figure:g}, {self.ratio:g}x"


@dataclass(frozen=True)
class Row:
    """A measured figure. ``mini`` is the floor's, in the same unit; ``ratio`` the median of the turns' ratios."""

    workload: str
    tasks: int
    unit: str
    asyncflow: float
    mini: float | None = None
    ratio: float | None = None
    goal: Goal | None = None
    peer_workload: str | None = None  # what other engines call it (``peers/``), where they are asked for it too

    @property
    def met(self) -> bool | None:
        """Whether the goal is met; None where there is none."""
        if self.goal is None:
            return None
        if self.goal.ratio is not None and self.ratio is not None and self.ratio > self.goal.ratio:
            return False
        return self.asyncflow <= self.goal.figure

    def to_json(self) -> dict[str, Any]:
        """The row without what it has not got."""
        found = {**asdict(self), "met": self.met}
        return {name: value for name, value in found.items() if value is not None}
