"""Reading an uploaded file in a process of its own (`python -m nanochat.file_check`), within limits."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from nanochat.paths import repo_dir

log = logging.getLogger(__name__)
#: the largest file there may be is read in minutes
LIMIT_S = 3600.0
#: what the reader inherits: no secret of the service
INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "PYTHONPATH", "VIRTUAL_ENV", "LD_LIBRARY_PATH")


@dataclass(frozen=True)
class Report:
    """`message`: what is wrong with it; None: nothing. `sha256`: empty when it could not be read."""

    sha256: str
    items: int | None = None
    message: str | None = None


async def read(kind: str, name: str, file: Path) -> Report:
    """What the reader says. When this is cancelled, the reader is ended."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "nanochat.file_check", kind, name, str(file),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={key: os.environ[key] for key in INHERITED if key in os.environ},
        cwd=repo_dir(),
    )  # fmt: skip
    try:
        said, complaint = await asyncio.wait_for(process.communicate(), LIMIT_S)
    except TimeoutError:
        return Report("", message=f"{name} could not be checked within {LIMIT_S:.0f} s")
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    try:
        return _report(said)
    except (ValueError, KeyError, TypeError):
        last = complaint.decode("utf-8", "replace").strip().splitlines()[-1:]
        log.warning("the check of %s ended with %s: %s", name, process.returncode, " ".join(last))
        return Report("", message=f"{name} could not be read: its reader ended with {process.returncode}")


def _report(said: bytes) -> Report:
    found = json.loads(said)
    message = found.get("message")
    if message is not None:  # every database can hold it
        message = str(message).replace("\0", "").encode("utf-8", "replace").decode()
    return Report(found["sha256"], found.get("items"), message)
