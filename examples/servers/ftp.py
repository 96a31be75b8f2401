"""FTP servers: ProFTPD, which can do most of what there is, and vsftpd, which knows no MLSD.

Both say the same of themselves (an ``FtpServer``) and keep their files in a folder on this disk, where a test sees what
the server has. TLS is ``None``, ``"explicit"`` (``AUTH TLS``) or ``"implicit"``; a certificate is made each time.
"""

from __future__ import annotations

import grp
import os
import pwd
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from .process import UNPACKED, ServerMissing, free_ports, listening, program, running

__all__ = ["FtpServer", "Tls", "proftpd", "vsftpd"]

Tls = Literal["explicit", "implicit"]

HINT = "run examples/servers/fetch.sh, which unpacks Debian's into .cache/servers"


@dataclass(frozen=True)
class FtpServer:
    """What a client has to know, and where the files are."""

    host: str
    port: int
    user: str
    password: str
    tls: Tls | None
    certificate: Path | None
    """What the server shows, and what a client has to be told to trust."""
    home: str
    """The folder, as the server calls it, that may be written to."""
    root: Path
    """The same folder on this disk."""


@contextmanager
def proftpd(*, tls: Tls | None = None, lines: Sequence[str] = ()) -> Iterator[FtpServer]:
    """ProFTPD with one user, who sees the folder as ``/``. ``lines`` are added to its configuration.

    Raises ``ServerMissing`` where it is not on this machine.
    """
    binary = program("proftpd", HINT)
    with tempfile.TemporaryDirectory(prefix="asyncflow-proftpd-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        root = _writable(folder / "root", os.getuid())
        (port,) = free_ports(1)
        uid, gid = os.getuid(), os.getgid()
        (folder / "users").write_text(f"flow:{_crypted('secret')}:{uid}:{gid}::{root}:/bin/false\n")
        (folder / "groups").write_text(f"flow:x:{gid}:\n")
        (folder / "users").chmod(0o600)
        (folder / "groups").chmod(0o600)
        certificate = _certificate(folder) if tls else None
        config = [
            *("ServerType standalone", "DefaultServer on", "DefaultAddress 127.0.0.1", "SocketBindTight on"),
            *("UseIPv6 off", "UseReverseDNS off", "WtmpLog off", "TransferLog none", "DelayEngine off"),
            *("UseFtpUsers off", "RequireValidShell off", "RootLogin on", "AuthOrder mod_auth_file.c"),
            *("AllowOverwrite on", "AllowStoreRestart on", "AllowRetrieveRestart on", "MaxInstances 100", "Umask 022"),
            *(f"Port {port}", f"PidFile {folder}/pid", f"ScoreboardFile {folder}/scores", f"SystemLog {folder}/log"),
            *(f"AuthUserFile {folder}/users", f"AuthGroupFile {folder}/groups"),
            *("<IfModule mod_ctrls.c>", "ControlsEngine off", "</IfModule>"),
            *((f"DefaultRoot {root}",) if uid == 0 else (f"User {_user(uid)}", f"Group {_group(gid)}")),
            *(_proftpd_tls(folder, tls) if tls else ()),
            *lines,
        ]
        (folder / "config").write_text("\n".join(config) + "\n")
        argv = [binary, "-n", "-c", str(folder / "config")]
        with running(argv, lambda: listening(port), log=folder / "output", env=_libraries()):
            home = "/" if uid == 0 else str(root)
            yield FtpServer("localhost", port, "flow", "secret", tls, certificate, home, root)


def _proftpd_tls(folder: Path, tls: Tls) -> list[str]:
    modules = next(
        (path for path in (UNPACKED / "usr/lib/proftpd", Path("/usr/lib/proftpd")) if (path / "mod_tls.so").exists()),
        None,
    )
    if modules is None:
        raise ServerMissing(f"proftpd's mod_tls (proftpd-mod-crypto) is not on this machine: {HINT}")
    return [
        *(
            f"ModulePath {modules}",
            "LoadModule mod_tls.c",
            "TLSEngine on",
            "TLSRequired on",
            f"TLSLog {folder}/tls.log",
        ),
        *(f"TLSRSACertificateFile {folder}/cert.pem", f"TLSRSACertificateKeyFile {folder}/key.pem"),
        *(("TLSOptions UseImplicitSSL",) if tls == "implicit" else ()),
    ]


@contextmanager
def vsftpd(*, tls: Tls | None = None, lines: Sequence[str] = ()) -> Iterator[FtpServer]:
    """vsftpd for the user "anonymous", who may write in ``/files``. ``lines`` are added to its configuration.

    With TLS, data connections have to be of the control connection's session. Raises ``ServerMissing`` where it is not
    on this machine, or not root is asking.
    """
    binary = program("vsftpd", HINT)
    if os.getuid() != 0:
        raise ServerMissing("vsftpd has to be started by root")
    with tempfile.TemporaryDirectory(prefix="asyncflow-vsftpd-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o755)
        user = "daemon"  # any that the system has
        (folder / "top").mkdir(mode=0o755)
        (folder / "empty").mkdir(mode=0o755)
        root = _writable(folder / "top" / "files", pwd.getpwnam(user).pw_uid)
        (port,) = free_ports(1)
        certificate = _certificate(folder) if tls else None
        config = [
            *("listen=YES", "listen_ipv6=NO", "listen_address=127.0.0.1", "background=NO", "seccomp_sandbox=NO"),
            *("anonymous_enable=YES", "local_enable=NO", "write_enable=YES", "no_anon_password=YES"),
            *("anon_upload_enable=YES", "anon_mkdir_write_enable=YES", "anon_other_write_enable=YES"),
            *("anon_umask=022", "xferlog_enable=NO", "pasv_address=127.0.0.1", "connect_from_port_20=NO"),
            *(f"listen_port={port}", f"ftp_username={user}", f"nopriv_user={user}", f"anon_root={folder}/top"),
            *(f"secure_chroot_dir={folder}/empty",),
            *(_vsftpd_tls(folder, tls) if tls else ()),
            *lines,
        ]
        (folder / "config").write_text("\n".join(config) + "\n")
        argv = [binary, str(folder / "config")]
        with running(argv, lambda: listening(port), log=folder / "output", env=_libraries()):
            yield FtpServer("localhost", port, "anonymous", "guest@", tls, certificate, "/files", root)


def _vsftpd_tls(folder: Path, tls: Tls) -> list[str]:
    return [
        *("ssl_enable=YES", "allow_anon_ssl=YES", "force_anon_logins_ssl=YES", "force_anon_data_ssl=YES"),
        *("ssl_tlsv1=YES", "ssl_ciphers=HIGH", "require_ssl_reuse=YES"),
        *(f"rsa_cert_file={folder}/cert.pem", f"rsa_private_key_file={folder}/key.pem"),
        *(("implicit_ssl=YES",) if tls == "implicit" else ()),
    ]


def _writable(folder: Path, uid: int) -> Path:
    folder.mkdir(mode=0o755)
    if os.getuid() == 0:
        os.chown(folder, uid, -1)
    return folder


def _user(uid: int) -> str:
    return pwd.getpwuid(uid).pw_name


def _group(gid: int) -> str:
    return grp.getgrgid(gid).gr_name


def _libraries() -> dict[str, str]:
    """Where the libraries lie that were unpacked together with the servers."""
    folders = [str(path) for path in (UNPACKED / "usr" / "lib", UNPACKED / "lib") for path in path.glob("*-linux-gnu")]
    return {"LD_LIBRARY_PATH": os.pathsep.join([*folders, os.environ.get("LD_LIBRARY_PATH", "")])} if folders else {}


def _crypted(password: str) -> str:
    return subprocess.run(
        ["openssl", "passwd", "-6", password], check=True, capture_output=True, text=True
    ).stdout.strip()


def _certificate(folder: Path) -> Path:
    """One for ``localhost``, made here and now."""
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30", "-subj", "/CN=localhost"),
            *("-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"),
            *("-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")),
        ],
        check=True,
        capture_output=True,
    )
    return folder / "cert.pem"
