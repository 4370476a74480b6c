"""One slot of a worker, alone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def test_a_slot_without_a_queue_leaves_with_one_sentence(tmp_path: Path) -> None:
    here = {"NANOCHAT_REDIS_URL": f"unix://{tmp_path}/nobody.sock", "NANOCHAT_BASE_DIR": str(tmp_path)}
    slot = subprocess.run(
        [sys.executable, "-m", "worker.slot", "w0000000001", "host:nobody", str(os.getpid())],
        env={**os.environ, **here}, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert slot.returncode == 1
    assert "the queue is gone" in slot.stderr and "Traceback" not in slot.stderr
