"""Why a run failed, as one word and one sentence that the service can show.

A trainer that raises leaves `failure.json` in its attempt directory. The first rank to fail writes it;
the others fail because of the first, and must not overwrite the reason.
Not covered: deaths without an exception (SIGKILL, a lost node); the worker infers those.
"""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

from nanochat.errors import NanLoss

FILE = "failure.json"


def reason_of(error: BaseException) -> str:
    """The service's reason for an exception (values of `nanochat_client.types.Reason`)."""
    names = {cls.__name__ for cls in type(error).__mro__}
    if "OutOfMemoryError" in names:  # torch's, without importing torch here
        return "cuda_oom"
    if isinstance(error, MemoryError) or "DefaultCPUAllocator: can't allocate" in str(error):
        return "host_oom"
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    if full or f"(os error {errno.ENOSPC})" in str(error):  # what safetensors' errors carry
        return "disk_full"
    if isinstance(error, NanLoss):
        return "nan_loss"
    if names & {"ConfigError", "PresetError", "ValidationError"}:
        return "config_error"
    if names & {"DataError", "BrokenCheckpoint", "ConversationError", "FileNotFoundError"}:
        return "data_error"
    if names & {"DistError", "DistBackendError", "DistNetworkError"} or "/gloo/transport/" in str(error):
        return "nccl_timeout"  # another rank is gone; whoever watches knows why
    if isinstance(error, SystemExit) and error.code == 2:
        return "config_error"
    return "internal"


def write_failure(directory: Path, error: BaseException) -> bool:
    """Write `failure.json` unless another rank already did. False: it was there, or cannot be written."""
    message = " ".join(f"{error}".split())[:2000] or type(error).__name__
    body = json.dumps({"reason": reason_of(error), "message": message}, ensure_ascii=False).encode()
    try:
        descriptor = os.open(directory / FILE, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    except OSError:
        return False
    with os.fdopen(descriptor, "wb") as file:
        file.write(body)
    return True
