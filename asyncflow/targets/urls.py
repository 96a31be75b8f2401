"""``target_for``: the target at a URL, whatever kind it is."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any

from ..target import Target

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint, EntryPoints

__all__ = ["GROUP", "target_for"]

GROUP = "asyncflow.targets"
"""The group of entry points in which other distributions say how they make a target of a URL, each under its scheme."""


def target_for(url: str | os.PathLike[str], **options: Any) -> Target:
    """The target at ``url``. ``options`` are those of its class: ``codec``, say, or ``store`` for S3.

    ``file:///path`` and plain paths (a ``Path`` is always one), ``memory:name``, ``s3://bucket/key``, ``ftp://``,
    ``ftpes://`` (explicit TLS) and ``ftps://`` (implicit) with ``user@host/path``, ``sqlite:///file`` and
    ``postgresql://user@host/database`` with ``?update_id=...`` (a marker), ``&table=...`` (rows) and
    ``&marker_table=...``. Others by entry points of the group ``asyncflow.targets``: the scheme is the name, and what
    it names is called with the URL and the options.

    Raises ``TypeError`` for what is no text, ``ValueError`` for a URL of no known kind and what its class raises,
    ``ModuleNotFoundError`` (with the line that mends it) where its library is not installed, ``ImportError`` where an
    entry point cannot be loaded.
    """
    if isinstance(url, os.PathLike):
        return _path(os.fspath(url), **options)
    if not isinstance(url, str):
        raise TypeError(f"target_for({url!r}): expected a URL or a path")
    text = url
    scheme, colon, _ = text.partition(":")
    if not colon or not scheme.isascii() or not scheme.replace("+", "").replace("-", "").isalnum() or len(scheme) < 2:
        return _path(text, **options)  # one letter is a drive of Windows
    scheme, text = scheme.lower(), scheme.lower() + text[len(scheme) :]
    maker = _OURS.get(scheme)
    return _of_others(text, scheme, options) if maker is None else maker(text, **options)


def _path(path: str, **options: Any) -> Target:
    from .local import LocalTarget

    return LocalTarget(path, **options)


def _file(url: str, **options: Any) -> Target:
    from urllib.parse import unquote, urlsplit

    parts = urlsplit(url)
    if parts.netloc not in {"", "localhost"} or not parts.path.startswith("/") or parts.query or parts.fragment:
        raise ValueError(f"target_for({url!r}): expected file:///absolute/path, with %3F for ? and %23 for #")
    return _path(unquote(parts.path), **options)


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
    ours = {"table", "update_id", "marker_table"}
    pairs = parse_qsl(query, keep_blank_values=True)
    options = {**{name: value for name, value in pairs if name in ours}, **options}
    others = [pair for pair in pairs if pair[0] not in ours]
    for name, _ in others:
        if name == "columns":
            raise ValueError(f"target_for({_shown(base)!r}): columns go beside the URL: target_for(url, columns=...)")
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


def _entry_points() -> EntryPoints:
    from importlib.metadata import entry_points

    return entry_points(group=GROUP)


def _of_others(url: str, scheme: str, options: dict[str, Any]) -> Target:
    entry = next((entry for entry in _entry_points() if entry.name.lower() == scheme), None)
    if entry is None:
        raise ValueError(_unknown(url, scheme))
    try:
        maker = entry.load()
    except (ImportError, AttributeError) as error:
        raise ImportError(f"target_for({_shown(url)!r}): {_said(entry)} cannot be loaded: {error}") from error
    target = maker(url, **options)
    if not isinstance(target, Target):
        raise TypeError(f"target_for({_shown(url)!r}): {_said(entry)} gave {target!r}, which is no target")
    return target


def _said(entry: EntryPoint) -> str:
    return f"the entry point {entry.name} = {entry.value}" + (f" of {entry.dist.name}" if entry.dist else "")


def _shown(url: str) -> str:
    """``url`` without a password that may be in it."""
    head, at, tail = url.partition("?")[0].rpartition("@")
    scheme, slashes, _ = head.partition("://")
    return f"{scheme + slashes if slashes else ''}...@{tail}" if at else tail


def _unknown(url: str, scheme: str) -> str:
    from difflib import get_close_matches

    known = sorted({*_OURS, *(entry.name.lower() for entry in _entry_points())})
    near = get_close_matches(scheme, known, n=1, cutoff=0.5)
    return (
        f"target_for({_shown(url)!r}): no kind of target is known for {scheme!r}"
        + (f"; did you mean {near[0]!r}?" if near else f"; known are {', '.join(known)}.")
        + f" Others come with a distribution that has an entry point {scheme!r} in the group {GROUP!r}"
    )
