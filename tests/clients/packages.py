"""Packages of others, installed apart from ours: a directory for PYTHONPATH, kept between runs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from nanochat.locks import file_lock

LM_EVAL_VERSION = "0.4.13"
#: a directory's name, and what goes into it with all it needs: 750 MB
LM_EVAL = (f"lm-eval-{LM_EVAL_VERSION}", f"lm-eval[api]=={LM_EVAL_VERSION}")


class NotInstallable(Exception):
    """pip got nothing; says its last line."""


def install(place: Path, *requirements: str, deps: bool = False) -> Path:
    """`place` with these packages in it, and without `deps` nothing else: what they need is ours then.

    Raises NotInstallable.
    """
    done = place / "installed.txt"
    wanted = "\n".join(requirements)
    place.mkdir(parents=True, exist_ok=True)
    with file_lock(place / ".lock"):  # of the other xdist workers
        if done.exists() and done.read_text() == wanted:
            return place
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--upgrade", "--target", str(place)]
        command += [*([] if deps else ["--no-deps"]), *requirements]
        got = subprocess.run(command, capture_output=True, text=True, timeout=900)
        if got.returncode:
            last = (got.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise NotInstallable(f"{requirements[0]} cannot be installed here: {last[:200]}")
        done.write_text(wanted)
    return place
