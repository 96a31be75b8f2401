"""Which server, as whom, how protected; and where the password is."""

from __future__ import annotations

import ipaddress
import logging
import netrc
import os
import ssl
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import parse_qsl, quote, unquote, urlsplit

__all__ = ["Server", "Tls"]

log = logging.getLogger("asyncflow")

Tls = Literal["none", "explicit", "implicit"]

SCHEMES: dict[str, Tls] = {"ftp": "none", "ftpes": "explicit", "ftps": "implicit"}

accepted: dict[tuple[str, int, str], str] = {}
"""Passwords that servers have taken from this process, by host, port and user: for cleaning up after another one."""

_warned: set[tuple[str, str]] = set()


@dataclass(frozen=True, slots=True)
class Server:
    """Where to log in, and as whom. ``password`` is never printed; None means that it is looked up."""

    host: str
    port: int
    user: str
    password: str | None = field(repr=False)
    tls: Tls
    ca: str | None

    @property
    def name(self) -> str:
        """``user@host:port``, for messages and keys."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{quote(self.user, safe='')}@{host}:{self.port}"

    def url(self, path: str) -> str:
        """Everything but the password, for another process."""
        scheme = next(scheme for scheme, tls in SCHEMES.items() if tls == self.tls)
        ca = f"?ca={quote(self.ca, safe='')}" if self.ca else ""
        return f"{scheme}://{self.name}{quote(path)}{ca}"

    def secret(self) -> str:
        """The password: the one given, else that of ``~/.netrc``. In a thread, since it reads a file.

        Raises ``PermissionError`` if there is none, and the user is not "anonymous".
        """
        if self.password is not None:
            return self.password
        known = self._of_netrc()
        if known is not None:
            return known
        if self.user in ("anonymous", "ftp"):
            return "anonymous@"
        raise PermissionError(
            f"there is no password for {self.name}: give FTPTarget(password=...), or write to ~/.netrc: "
            f"machine {self.host} login {self.user} password ..."
        )

    def _of_netrc(self) -> str | None:
        path = os.environ.get("NETRC") or os.path.expanduser("~/.netrc")
        try:
            found = netrc.netrc(path).authenticators(self.host)
        except FileNotFoundError:
            return None
        except (OSError, netrc.NetrcParseError) as error:  # its text may show what is in the file
            raise PermissionError(f"{path} cannot be read ({type(error).__name__})") from None
        return found[2] if found is not None and found[0] == self.user else None

    def context(self) -> ssl.SSLContext | None:
        """What its certificate is checked by, always. In a thread, since it reads files. Raises ``OSError``."""
        if self.tls == "none":
            self._warn()
            return None
        try:
            return ssl.create_default_context(cafile=self.ca)
        except OSError as error:
            raise OSError(f"FTPTarget(ca={self.ca!r}): {error.strerror or error}") from None

    def _warn(self) -> None:
        if self.user in ("anonymous", "ftp") or (self.host, self.user) in _warned or _is_local(self.host):
            return
        _warned.add((self.host, self.user))
        log.warning("the password of %s crosses the network in clear; use tls='explicit' if the server can", self.name)


def parse(url: str) -> tuple[Server, str]:
    """The server and the path that a URL names: ``ftp``, ``ftpes`` (explicit TLS) or ``ftps`` (implicit).

    Raises ``ValueError`` without the password that may be in it.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ValueError("this is not a URL like ftp://user@host:port/path; check its host and port") from None
    shown = f"{parts.scheme}://{parts.hostname or ''}{parts.path}"
    if parts.scheme not in SCHEMES:
        raise ValueError(f"{shown}: expected ftp://, ftpes:// (explicit TLS) or ftps:// (implicit)")
    if parts.fragment or "#" in url:
        raise ValueError(f"{shown}: write %23 for a # in a name")
    query = dict(parse_qsl(parts.query))
    if ("?" in url and not query) or query.keys() - {"ca"}:
        raise ValueError(f"{shown}: write %3F for a ? in a name; the one thing that may follow a ? is ca=FILE")
    tls = SCHEMES[parts.scheme]
    user = unquote(parts.username) if parts.username else "anonymous"
    password = unquote(parts.password) if parts.password is not None else None
    server = Server(parts.hostname or "", port or default_port(tls), user, password, tls, query.get("ca"))
    return server, unquote(parts.path)


def default_port(tls: Tls) -> int:
    return 990 if tls == "implicit" else 21


def _is_local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
