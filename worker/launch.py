"""Starting a trainer: argument list, environment, process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from nanochat.allocator import with_huge_pages
from nanochat.paths import attempt_dir, repo_dir
from nanochat.stages import STAGES
from nanochat_client.types import Claim
from worker.host import interface
from worker.processes import die_with_parent

#: how long a node waits for the others: they may have a checkpoint to fetch
JOIN_S = 600
#: what a trainer inherits; everything else (tokens, database URLs) stays out of its environment
ALLOWED = (
    "PATH", "HOME", "USER", "LANG", "LC_ALL", "TMPDIR", "TZ", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "CUDA_HOME",
    "GLIBC_TUNABLES",
    "NANOCHAT_DTYPE", "NANOCHAT_COMPILE", "NANOCHAT_KERNEL_DIR", "NANOCHAT_UP",
    "SSL_CERT_FILE", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY",
)  # fmt: skip
#: its ranks meet on loopback; torchrun would ask what the host's name leads to, and many a name leads nowhere
ALONE = ("--standalone", "--local-addr", "127.0.0.1")
ALLOWED_PREFIXES = ("GLOO_", "HF_", "NCCL_", "TORCH_", "CUDA_MODULE_", "WANDB_")


@dataclass(frozen=True)
class Meeting:
    """Where the nodes of an attempt meet. `address`: of this node; the lowest one is node 0."""

    endpoint: str
    address: str


def argv(claim: Claim, config: Path, meeting: Meeting | None = None) -> list[str]:
    """The command of an attempt; torchrun for distributed stages, one rank included."""
    stage = STAGES[claim.stage]
    if not stage.distributed:
        return [sys.executable, "-m", stage.script, "--config", str(config)]
    return [
        sys.executable,
        *("-m", "torch.distributed.run", "--max-restarts", "0"),
        *(_rendezvous(claim, meeting) if meeting else ALONE),
        *("--nproc-per-node", str(claim.processes)),
        *("-m", stage.script, "--config", str(config)),
    ]


def _rendezvous(claim: Claim, meeting: Meeting) -> list[str]:
    """torchrun's own rendezvous: node 0 keeps the store, and nodes are numbered by their addresses."""
    conf = f"is_host={int(claim.node == 0)},join_timeout={JOIN_S},read_timeout={JOIN_S}"
    return [
        *("--nnodes", str(claim.nodes), "--rdzv-backend", "c10d", "--rdzv-conf", conf),
        *("--rdzv-endpoint", meeting.endpoint, "--rdzv-id", f"{claim.run_id}-{claim.number}"),
        *("--local-addr", meeting.address),
    ]


def _through(meeting: Meeting) -> dict[str, str]:
    """The interface that the ranks of several nodes talk through: that of the address they are met at.

    Left to itself, gloo takes the address that the host's name leads to, which on many a host is loopback,
    and NCCL the first interface that it likes. "=": this one, not all whose names begin so.
    """
    name = interface(meeting.address)
    return {"GLOO_SOCKET_IFNAME": name, "NCCL_SOCKET_IFNAME": f"={name}"} if name else {}


def environment(
    claim: Claim,
    base_dir: Path,
    directory: Path,
    environ: Mapping[str, str],
    host: str = "",
    meeting: Meeting | None = None,
) -> dict[str, str]:
    """The environment of an attempt's processes: the allow-list and what the trainer needs to know."""
    kept = {
        key: value for key, value in environ.items() if key in ALLOWED or key.startswith(ALLOWED_PREFIXES)
    }
    return {
        **(_through(meeting) if meeting else {}),
        **with_huge_pages(kept),
        "NANOCHAT_BASE_DIR": str(base_dir),
        "NANOCHAT_RUN_ID": claim.run_id,
        "NANOCHAT_ATTEMPT_DIR": str(directory),
        "NANOCHAT_MARKER": claim.attempt_id,
        "NANOCHAT_HOST_ID": host,
        "OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // max(1, claim.processes))),
        "CUDA_VISIBLE_DEVICES": ",".join(map(str, claim.gpus)),
        "PYTHONUNBUFFERED": "1",
    }


def start(
    claim: Claim, base_dir: Path, host: str = "", meeting: Meeting | None = None
) -> tuple[subprocess.Popen[bytes], Path]:
    """Write the exact config and start the trainer in a session of its own.

    Returns the process and the attempt's directory. Raises OSError (disk full, read-only).
    """
    directory = attempt_dir(base_dir, claim.run_id, claim.number)
    if claim.node:  # the base directory may be shared with node 0
        directory /= f"node_{claim.node}"
    directory.mkdir(parents=True, exist_ok=True)
    config = directory / "config.json"
    config.write_text(json.dumps(claim.config, indent=1))
    with (directory / "run.log").open("ab") as log:
        process = subprocess.Popen(
            argv(claim, config, meeting),
            cwd=repo_dir(),
            env=environment(claim, base_dir, directory, os.environ, host, meeting),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_with_parent,
        )
    return process, directory


def _with_parent() -> None:
    # when the work-horse is killed, torchrun hears it, and forwards it to the ranks: they save and leave
    die_with_parent(signal.SIGTERM)
