"""Runs: what is asked for, what is, and their attempts."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field, JsonValue

from nanochat_client.types.wire import NUMBER, Gpus, Name, Request, RowId, Storable, Tag, Whole, Wire

_CHOICE = r"best:[A-Za-z0-9_@/.-]{1,48}|step:[0-9]{1,18}"
SELECTOR = rf"^(last|{_CHOICE})$"
Selector = Annotated[str, Field(max_length=64, json_schema_extra={"pattern": SELECTOR})]
#: or an id, or none
RETRY_FROM = rf"^([0-9A-Za-z]{{1,16}}|{_CHOICE})$"


class RunState(StrEnum):
    WAITING = "waiting"  # for its parent
    QUEUED = "queued"  # for a worker (see `blocked`)
    STARTING = "starting"  # claimed; the trainer has not spoken yet
    RUNNING = "running"
    STOPPING = "stopping"  # asked to save and leave
    LOST = "lost"  # its worker stopped answering
    PAUSED = "paused"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Desired(StrEnum):
    RUN = "run"
    PAUSE = "pause"
    CANCEL = "cancel"


class Reason(StrEnum):
    CONFIG_ERROR = "config_error"
    DATA_ERROR = "data_error"
    CUDA_OOM = "cuda_oom"
    HOST_OOM = "host_oom"
    NCCL_TIMEOUT = "nccl_timeout"
    NAN_LOSS = "nan_loss"
    DISK_FULL = "disk_full"
    GPU_LOST = "gpu_lost"
    KILLED_SIGNAL = "killed_signal"
    TIMEOUT = "timeout"
    LOST_WORKER = "lost_worker"
    CRASH_LOOP = "crash_loop"
    PARENT_FAILED = "parent_failed"
    INTERNAL = "internal"


class Blocked(Wire):
    """Why a queued run does not start. `code`: no_capable_worker, no_free_slot, missing_input, no_worker."""

    code: Literal["no_worker", "no_capable_worker", "no_free_slot", "missing_input"]
    message: str
    asked: dict[str, JsonValue] = {}
    offered: list[dict[str, JsonValue]] = []
    preset: str | None = None
    """A preset that would run here."""


class RunCreate(Request):
    stage: str
    config: str | None = None
    """Name of a preset."""
    overrides: dict[str, JsonValue] = {}
    """Config fields that win over the preset."""
    name: str | None = Field(default=None, pattern=Name)
    parent: RowId | None = None
    """Run whose checkpoint this one starts from; it waits until that run has succeeded."""
    checkpoint: Selector = "last"
    """Which checkpoint of the parent: last, best:<metric> or step:<n>."""
    gpus: Gpus | None = None
    """GPUs to use; absent: what the preset implies, else one if there is one."""
    nodes: Whole = Field(default=1, ge=1, le=64)
    """Workers that the run spreads over, all of them or none; `gpus` is the sum."""
    min_nodes: Annotated[int, Field(ge=1, le=64), NUMBER] | None = None
    """Once it has run, it may go on with so few when others are lost; absent: never fewer than `nodes`."""
    priority: Whole = Field(default=0, ge=-100, le=100)
    max_restarts: Whole = Field(default=3, ge=0, le=100)
    """Times the run goes on by itself after a lost worker, a killed process or a lost GPU."""
    max_duration_s: Annotated[float, Field(gt=0, le=10_000_000), NUMBER] | None = None
    """Seconds its trainers may work, over all attempts; then it saves, leaves and fails with `timeout`."""
    tags: list[Tag] = Field(default=[], max_length=32)


class RunRetry(Request):
    checkpoint: str = Field(default="last", max_length=64, json_schema_extra={"pattern": RETRY_FROM})
    """Which one of the old run to go on from: last (none is fine), best:<metric>, step:<n>, a checkpoint's
    id, or none: from the beginning."""


class RunPatch(Request):
    name: str | None = Field(default=None, pattern=Name)
    tags: list[Tag] | None = Field(default=None, max_length=32)
    notes: Storable | None = Field(default=None, max_length=65536)
    priority: Annotated[int, Field(ge=-100, le=100), NUMBER] | None = None


class Run(Wire):
    id: str
    stage: str
    name: str
    state: RunState
    desired: Desired
    reason: Reason | None = None
    message: str | None = None
    """One sentence on how the run ended, when there is something to say."""
    config: dict[str, JsonValue]
    """Resolved: every field of the stage's config."""
    preset: str | None = None
    parent: str | None = None
    pipeline: str | None = None
    retry_of: str | None = None
    optional: bool = False
    """Its pipeline succeeds without it."""
    gpus: int
    nodes: int = 1
    blocked: Blocked | None = None
    attempt: int
    """Number of the current or last attempt; 0 before the first."""
    exit_code: int | None = None
    signal: int | None = None
    peak_bytes: int | None = None
    step: int | None = None
    steps: int | None = None
    summary: dict[str, float] = {}
    """Latest value of every metric."""
    tags: list[str] = []
    notes: str = ""
    priority: int = 0
    max_restarts: int = 0
    restarts_left: int = 0
    max_duration_s: float | None = None
    created_at: datetime
    started_at: datetime | None = None
    ended_at: datetime | None = None
    version: int


class Attempt(Wire):
    number: int
    state: RunState
    worker: str | None = None
    fence: int = 0
    """Grows with every claim; who writes under an older one is refused."""
    gpus: list[int] = []
    """Of its first node."""
    nodes: int = 1
    """Workers that took part."""
    seconds: float = 0.0
    """How long its trainer worked, as its worker measured it."""
    renewed_at: datetime | None = None
    """Last renewal of its lease."""
    reason: Reason | None = None
    exit_code: int | None = None
    signal: int | None = None
    peak_bytes: int | None = None
    message: str | None = None
    tail: list[str] = []
    """Last 200 lines of the log, when the attempt failed."""
    created_at: datetime
    started_at: datetime | None = None
    ended_at: datetime | None = None
