#!/usr/bin/env python3
"""Writes `.env` for docker-compose.yml: fresh secrets, mode 0600. Never replaces one that is there."""

from __future__ import annotations

import os
import secrets
import sys
from pathlib import Path

NAMES = ("POSTGRES_PASSWORD", "VALKEY_PASSWORD", "NANOCHAT_WORKER_TOKEN", "GRAFANA_PASSWORD")


def main(argv: list[str]) -> int:
    file = Path(argv[0]) if argv else Path(__file__).resolve().parent.parent / ".env"
    try:
        handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        print(f"{file} exists: its secrets are in use, so it stays as it is", file=sys.stderr)
        return 1
    with os.fdopen(handle, "w") as out:
        out.writelines(f"{name}={secrets.token_hex(24)}\n" for name in NAMES)
    print(file)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
