"""What is said when a backend's library is not installed."""

from __future__ import annotations

__all__ = ["not_installed"]


def not_installed(error: ModuleNotFoundError, extra: str) -> ModuleNotFoundError:
    """The error to raise in place of ``error``, with the line that mends it."""
    return ModuleNotFoundError(
        f"{error}: asyncflow.targets.{extra} needs it; pip install 'asyncflow-engine[{extra}]'", name=error.name
    )
