"""``target_for``: the target at a URL, whatever kind it is."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib import import_module
from typing import Any

from ..target import Target

__all__ = ["GROUP", "target_for"]

GROUP = "asyncflow.targets"
"""The group of entry points in which other distributions say how they make a target of a URL, each under its scheme."""


def target_for(url: str | os.PathLike[str], **options: Any) -> Target:
    """The target at ``url``. ``options`` are those of its class: ``codec``, say, or ``store`` for S3.

    ``file:///path`` and plain paths, ``memory:name``, ``s3://bucket/key``, ``ftp://``, ``ftpes://`` (explicit TLS) and
    ``ftps://`` (implicit) with ``user@host/path``, ``sqlite:///file`` and ``postgresql://user@host/database`` with
    ``?update_id=...`` (a marker) and ``&table=...`` (rows). Others by entry points of the group ``asyncflow.targets``:
    the scheme is the name, and what it names is called with the URL and the options.

    Raises ``TypeError`` for what is no text, ``ValueError`` for a URL of no known kind and what its class raises,
    ``ModuleNotFoundError`` (with the line that mends it) where its library is not installed.
    """
    if not isinstance(url, (str, os.PathLike)):
        raise TypeError(f"target_for({url!r}): expected a URL or a path")
    text = os.fspath(url)
    scheme, colon, _ = text.partition(":")
    if not colon or not scheme.isascii() or not scheme.replace("+", "").replace("-", "").isalnum() or len(scheme) < 2:
        return _file(text, **options)  # a path; one letter is a drive of Windows
    scheme, text = scheme.lower(), scheme.lower() + text[len(scheme) :]
    maker = _OURS.get(scheme) or _of_others(scheme)
    if maker is None:
        raise ValueError(_unknown(text, scheme))
    return maker(text, **options)


def _file(url: str, **options: Any) -> Target:
    from urllib.parse import unquote, urlsplit

    from .local import LocalTarget

    if not url.lower().startswith("file:"):
        return LocalTarget(url, **options)
    parts = urlsplit(url)
    if parts.netloc not in {"", "localhost"} or not parts.path.startswith("/") or parts.query or parts.fragment:
        raise ValueError(f"target_for({url!r}): expected file:///absolute/path, with %3F for ? and %23 for #")
    return LocalTarget(unquote(parts.path), **options)


def _memory(url: str, **options: Any) -> Target:
    from .memory import MemoryTarget

    return MemoryTarget(url.partition(":")[2], **options)


def _s3(url: str, **options: Any) -> Target:
    target: Target = import_module("asyncflow.targets.s3").S3Target(url, **options)
    return target


def _ftp(url: str, **options: Any) -> Target:
    target: Target = import_module("asyncflow.targets.ftp").FTPTarget.from_url(url, **options)
    return target


def _sql(url: str, **options: Any) -> Target:
    from difflib import get_close_matches
    from urllib.parse import parse_qsl, urlencode

    sql = import_module("asyncflow.targets.sql")
    base, _, query = url.partition("?")
    ours = {"table", "update_id"}
    pairs = parse_qsl(query, keep_blank_values=True)
    options = {**{name: value for name, value in pairs if name in ours}, **options}
    others = [pair for pair in pairs if pair[0] not in ours]
    for name, _ in others:
        if near := get_close_matches(name, ours, n=1, cutoff=0.75):
            raise ValueError(f"target_for({_shown(base)!r}): there is no ?{name}=...; did you mean {near[0]!r}?")
    rest = urlencode(others)
    if "update_id" not in options:
        raise ValueError(f"target_for({_shown(base)!r}): expected ?update_id=..., which names what is written there")
    kind = sql.TableTarget if "table" in options else sql.MarkerTarget
    target: Target = kind(f"{base}?{rest}" if rest else base, **options)
    return target


_OURS: dict[str, Callable[..., Target]] = {
    "file": _file,
    "memory": _memory,
    "s3": _s3,
    **dict.fromkeys(("ftp", "ftps", "ftpes"), _ftp),
    **dict.fromkeys(("sqlite", "sqlite+aiosqlite", "postgresql", "postgresql+asyncpg", "postgres"), _sql),
}


def _of_others(scheme: str) -> Callable[..., Target] | None:
    from importlib.metadata import entry_points

    for entry in entry_points(group=GROUP, name=scheme):
        maker: Callable[..., Target] = entry.load()
        return maker
    return None


def _shown(url: str) -> str:
    """``url`` without a password that may be in it."""
    head, at, tail = url.partition("?")[0].rpartition("@")
    return f"{head.partition('://')[0]}://...@{tail}" if at else tail


def _unknown(url: str, scheme: str) -> str:
    from difflib import get_close_matches
    from importlib.metadata import entry_points

    known = sorted({*_OURS, *(entry.name for entry in entry_points(group=GROUP))})
    near = get_close_matches(scheme, known, n=1, cutoff=0.5)
    return (
        f"target_for({_shown(url)!r}): no kind of target is known for {scheme!r}"
        + (f"; did you mean {near[0]!r}?" if near else f"; known are {', '.join(known)}.")
        + f" Others come with a distribution that has an entry point {scheme!r} in the group {GROUP!r}"
    )
