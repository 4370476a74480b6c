"""What travels over the wire: requests and answers of the API, shared by server, worker, SDK and CLI.

Times are RFC 3339 in UTC, durations are seconds (`_s`), sizes are bytes. Only durations cross the wire
between worker and server, never clock readings.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, JsonValue, field_validator

T = TypeVar("T")
Name = r"^[A-Za-z0-9][A-Za-z0-9 ._-]{0,63}$"


class Wire(BaseModel):
    """Answers: read by clients that may be older than the server, so unknown keys are ignored."""

    model_config = ConfigDict(use_attribute_docstrings=True)


class Request(Wire):
    """Requests: an unknown key is the caller's mistake and is refused."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)


# ---------------------------------------------------------------- runs


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
    parent: str | None = None
    """Run whose checkpoint this one starts from; it waits until that run has succeeded."""
    checkpoint: str = Field(default="last", max_length=64)
    """Which checkpoint of the parent: last, best:<metric> or step:<n>."""
    gpus: int | None = Field(default=None, ge=0, le=64)
    """GPUs to use; absent: what the preset implies, else one if there is one."""
    priority: int = Field(default=0, ge=-100, le=100)
    max_restarts: int = Field(default=3, ge=0, le=100)
    """Times the run goes on by itself after a lost worker, a killed process or a lost GPU."""
    max_duration_s: float | None = Field(default=None, gt=0, le=10_000_000)
    """Seconds its trainers may work, over all attempts; then it saves, leaves and fails with `timeout`."""
    tags: list[str] = Field(default=[], max_length=32)


class RunPatch(Request):
    name: str | None = Field(default=None, pattern=Name)
    tags: list[str] | None = Field(default=None, max_length=32)
    notes: str | None = Field(default=None, max_length=65536)
    priority: int | None = Field(default=None, ge=-100, le=100)


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


class Page(Wire, Generic[T]):
    items: list[T]
    next_cursor: str | None = None


class Event(Wire):
    seq: int
    kind: str
    step: int | None = None
    t: float
    attempt: int
    data: dict[str, JsonValue]


class LogChunk(Wire):
    offset: int
    text: str


class LogPage(Wire):
    items: list[LogChunk]
    first: int
    """Offset of the first byte in `items`."""
    last: int
    """Offset after the last byte in `items`: pass it as `after` to go on."""
    end: int
    """Offset after the last byte stored."""


class Series(Wire):
    key: str
    x: list[float]
    y: list[float | None]


class Metrics(Wire):
    x: Literal["step", "time", "tokens"]
    series: list[Series]
    last: int
    """Sequence number of the newest metric event: the cursor to follow from."""


class Sample(Wire):
    step: int
    prompt: str
    text: str
    t: float


class Checkpoint(Wire):
    id: str
    run_id: str
    stage: str
    step: int
    metrics: dict[str, float] = {}
    bytes: int
    sha256: str
    model: str | None = None
    """Name under /v1/models; null for artefacts that are no language model."""
    path: str
    """Below the base directory."""
    created_at: datetime


class Promotion(Wire):
    alias: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    """Letters, digits, dot, dash and underscore; not `latest`, which is always the newest."""

    @field_validator("alias")
    @classmethod
    def _not_latest(cls, alias: str) -> str:
        if alias == "latest":
            raise ValueError("latest is always the newest model: choose another name")
        return alias


class Evaluation(Wire):
    id: str
    run_id: str
    """The run that measured."""
    checkpoint: str | None = None
    """Id of what was measured; null when the service does not know it."""
    stage: str | None = None
    """Stage that made it."""
    step: int | None = None
    name: str
    values: dict[str, float]
    """By task: shares of right answers (0…1), bits per byte, bytes per token."""
    counts: dict[str, int] = {}
    intervals: dict[str, list[float]] = {}
    """Two numbers each: 95 % intervals of the shares."""
    totals: dict[str, float] = {}
    """Means of centred accuracies, e.g. CORE; of fewer tasks than it has the name says so."""
    details: dict[str, JsonValue] = {}
    created_at: datetime


class Artefact(Wire):
    """A checkpoint or tokenizer that another one was made from."""

    path: str
    """Below the base directory."""
    sha256: str
    """Of its manifest."""
    checkpoint: str | None = None
    """Its id; null when the service does not know it."""


class LineageStep(Wire):
    """One artefact on the way back, as it says itself where it comes from."""

    checkpoint: str
    run_id: str
    run_name: str
    stage: str
    step: int
    path: str
    sha256: str
    preset: str | None = None
    config: dict[str, JsonValue] = {}
    """Of its run, resolved."""
    data: dict[str, JsonValue] | None = None
    """What it learned from: a corpus with its size and fingerprint, or tasks."""
    code: dict[str, JsonValue] | None = None
    """Version, commit, and whether the checkout had changes."""
    tokenizer: Artefact | None = None
    parent: Artefact | None = None
    created_at: datetime


class Lineage(Wire):
    checkpoint: str
    steps: list[LineageStep]
    """The checkpoint itself first, then its parents, the tokenizer last."""
    missing: Artefact | None = None
    """Where the way back ends at something the service does not know."""
    complete: bool
    """Every step says its data and code, and the way leads to a tokenizer."""


class ReportCell(Wire):
    value: float
    low: float | None = None
    high: float | None = None
    """95 % interval."""
    count: int | None = None
    """Problems."""


class ReportRow(Wire):
    title: str
    unit: str
    """accuracy (0…1), bits (per byte) or mean (of centred accuracies)."""
    cells: dict[str, ReportCell]
    """By the stage that made the model: base, mid, sft, rl."""


class Report(Wire):
    title: str
    runs: list[str]
    """Runs it is about."""
    missing: list[str] = []
    """Those that have not succeeded: nothing of them is in it."""
    rows: list[ReportRow]
    markdown: str


# ---------------------------------------------------------------- pipelines


class PipelineStep(Request):
    name: str = Field(pattern=Name)
    stage: str
    config: str | None = None
    overrides: dict[str, JsonValue] = {}
    parent: str | None = None
    """Name of an earlier step; absent: the step before this one."""
    checkpoint: str = Field(default="last", max_length=64)
    gpus: int | None = Field(default=None, ge=0, le=64)
    optional: bool = False
    """The pipeline succeeds also when this step fails, e.g. an evaluation whose data is not here."""


class PipelineCreate(Request):
    preset: str | None = None
    """Name of a shipped pipeline, e.g. demo; or give `steps`."""
    name: str | None = Field(default=None, pattern=Name)
    steps: list[PipelineStep] = Field(default=[], max_length=64)
    overrides: dict[str, dict[str, JsonValue]] = {}
    """By step name: config fields that win over the step's own."""


class Pipeline(Wire):
    id: str
    name: str
    state: RunState
    """Of the whole: failed if a run failed that is not optional, succeeded if all others did, else the state
    of the active run."""
    runs: list[Run]
    model: str | None = None
    """Name under /v1/models of what the pipeline made, once it succeeded."""
    created_at: datetime


# ---------------------------------------------------------------- workers and hosts


class Gpu(Wire):
    index: int
    name: str
    memory_bytes: int
    uuid: str = ""


class GpuProcess(Wire):
    pid: int
    name: str = ""
    """Its command; empty when it lives in another container."""
    memory_bytes: int | None = None


class GpuStats(Wire):
    index: int
    name: str
    utilization: float | None = None
    """0…1"""
    memory_used_bytes: int
    memory_total_bytes: int
    power_w: float | None = None
    temperature_c: float | None = None
    foreign: list[GpuProcess] = []
    """Processes that hold the GPU and belong to no run of this service."""


class HostStats(Wire):
    cpu: float
    """Utilisation of all cores, 0…1."""
    cores: int
    memory_used_bytes: int
    memory_total_bytes: int
    disk_free_bytes: int
    disk_total_bytes: int
    gpus: list[GpuStats] = []


class Worker(Wire):
    id: str
    host_id: str = ""
    """What it calls itself: NANOCHAT_HOST_ID, or made from the machine's id and the base directory."""
    host: str
    name: str
    alive: bool
    slots: int
    gpus: list[Gpu] = []
    busy_gpus: list[int] = []
    runs: list[str] = []
    stats: HostStats | None = None
    registered_at: datetime


class System(Wire):
    version: str
    workers: list[Worker]
    queued: int
    running: int
    database: str
    auth: bool


class StageView(Wire):
    name: str
    title: str
    config_schema: dict[str, Any]
    """JSON schema of the stage's config."""
    inputs: list[dict[str, JsonValue]]
    presets: list[str]
    uses_gpu: bool


class ConfigView(Wire):
    name: str
    path: str
    """Below the checkout; empty: `auto`, which is planned for the GPUs there are."""
    stages: list[str]
    gpus: int | None = None
    values: dict[str, JsonValue]
    resolved: dict[str, JsonValue] | None = None
    problems: list[ProblemItem] = []


class ProblemItem(Wire):
    """One entry of `errors` in a problem document."""

    pointer: str
    message: str
    nearest: JsonValue = None


class PlanCreate(Request):
    stage: str
    config: str | None = None
    """Name of a preset."""
    overrides: dict[str, JsonValue] = {}
    """Config fields that win over the preset."""
    gpus: int | None = Field(default=None, ge=0, le=64)
    """GPUs to plan for; absent: what the preset implies, else one if there is one."""
    gpu: str | None = Field(default=None, max_length=64)
    """Kind of GPU, e.g. RTX 5090; absent: what the best worker has."""
    target_vram_gb: float | None = Field(default=None, gt=0, le=1024)
    """GiB that a rank may take; absent: all of its GPU's memory."""


class MemoryView(Wire):
    """Bytes of one rank at the moment of its peak, by what they hold."""

    weights: int
    gradients: int
    optimizer: int
    activations: int
    loss: int
    buffers: int
    """Rotary tables, ids, temporaries, and what the process itself takes."""
    total: int


class FitView(Wire):
    """The largest micro-batch that fits, the global batch unchanged."""

    device_batch_size: int | None
    """Null: not even one row fits."""
    activation_checkpoint: bool
    total_batch_size: int
    total_bytes: int
    """What a rank takes with it."""


class Plan(Wire):
    """What a run would need. Sizes are counted, times are predicted; nothing is started or stored."""

    stage: str
    preset: str | None = None
    config: dict[str, JsonValue] | None = None
    """Resolved; null when a field is wrong by itself (see `problems`), like everything below."""
    argv: list[str] = []
    """The command that a worker would start."""
    device: str = ""
    gpus: int = 0
    ranks: int = 0
    vocab_size: int | None = None
    """Of the tokenizer the run would take."""
    parameters: int | None = None
    flops_per_token: int | None = None
    steps: int | None = None
    accumulation: int | None = None
    """Micro-batches of a step on each rank."""
    total_batch_size: int | None = None
    tokens: int | None = None
    tokens_per_second: float | None = None
    mfu: float | None = None
    seconds: float | None = None
    energy_kwh: float | None = None
    checkpoint_bytes: int | None = None
    disk_bytes: int | None = None
    memory: MemoryView | None = None
    budget_bytes: int | None = None
    """What a rank may take; null: on a CPU without `target_vram_gb`."""
    fits: bool | None = None
    """Whether `memory` is within `budget_bytes`. An estimate: a run that does not fit is not refused."""
    fit: FitView | None = None
    problems: list[ProblemItem] = []
    """Why the run would be refused, with pointers into this request."""
    notes: list[str] = []


class ProblemDocument(Wire):
    """RFC 9457 `application/problem+json`."""

    type: str = "about:blank"
    title: str
    status: int
    code: str
    detail: str
    errors: list[ProblemItem] = []
    request_id: str


# ---------------------------------------------------------------- worker protocol (/internal)


class WorkerRegister(Request):
    """Sent at start (and again after the server forgot the worker). Proof of death comes with it: attempts
    of this host that are not in `live_attempts` have no process left."""

    host_id: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")
    host: str
    name: str
    slots: int = Field(ge=1, le=256)
    gpus: list[Gpu] = []
    live_attempts: list[str] = []


class WorkerRegistered(Wire):
    worker_id: str
    queue: str
    lease_s: float


class WorkerBeat(Request):
    stats: HostStats


class ClaimRequest(Request):
    worker_id: str


class Earlier(Wire):
    """An attempt of the same run that was lost: its files may hold more than the server has."""

    attempt_id: str
    number: int


class Claim(Wire):
    """A granted claim. `fence` goes with every later write of this attempt."""

    attempt_id: str
    run_id: str
    number: int
    fence: int
    stage: str
    name: str
    config: dict[str, JsonValue]
    """Resolved, inputs filled in: paths below the base directory."""
    gpus: list[int]
    """Indices of the GPUs granted; empty: CPU."""
    processes: int
    """Ranks to start."""
    desired: Desired
    lease_s: float
    seconds_left: float | None = None
    """What is left of the run's `max_duration_s`."""
    earlier: list[Earlier] = []
    """Deliver what they left, where their files can be read, before the trainer starts."""
    log_acked: int
    """Bytes of the attempt's log the server holds."""
    events_acked: int


class Beat(Request):
    fence: int
    movable: bool = False
    """What the worker was told last, and acts on."""
    seconds: float = Field(default=0.0, ge=0)
    """How long the trainer has worked."""


class BeatAnswer(Wire):
    desired: Desired
    movable: bool
    """Another host could go on with the run: without a renewal for 0.8 of the lease, stop the trainer."""
    lease_s: float


class Acked(Wire):
    acked: int
    """Bytes of the file that are durable on the server."""


class Finish(Request):
    """How an attempt ended. `outcome`: what the worker saw; the server decides what becomes of the run."""

    fence: int
    outcome: Literal["succeeded", "failed", "stopped"]
    reason: Reason | None = None
    message: str | None = Field(default=None, max_length=4096)
    exit_code: int | None = None
    signal: int | None = None
    peak_bytes: int | None = None
    seconds: float | None = Field(default=None, ge=0)
    tail: list[str] = Field(default=[], max_length=200)


class Finished(Wire):
    state: RunState


ConfigView.model_rebuild()
