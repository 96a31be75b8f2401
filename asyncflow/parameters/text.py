"""Strings."""

from __future__ import annotations

from .base import Parameter

__all__ = ["StrParameter"]


class StrParameter(Parameter[str]):
    """A string; the same as :class:`Parameter` itself, by a name that says so."""
