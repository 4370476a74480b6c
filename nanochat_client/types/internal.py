"""The worker's protocol below /internal. Only durations cross the wire, never clock readings."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, JsonValue

from nanochat_client.types.hosts import Gpu, HostStats
from nanochat_client.types.runs import Desired, Reason, RunState
from nanochat_client.types.wire import NUMBER, STORABLE, Count, Flag, Request, Whole, Wire

#: of a process, as the operating system counts
Small = Annotated[int, Field(ge=-(2**31), lt=2**31), NUMBER]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False), NUMBER]


class WorkerRegister(Request):
    """Sent at start (and again after the server forgot the worker). Proof of death comes with it: attempts
    of this host that are not in `live_attempts` have no process left."""

    host_id: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")
    host: str = Field(max_length=255, pattern=STORABLE)
    name: str = Field(max_length=255, pattern=STORABLE)
    slots: Whole = Field(ge=1, le=256)
    gpus: list[Gpu] = []
    address: str = Field(default="", max_length=255, pattern=STORABLE)
    """Where other nodes reach this host; empty: it takes part in no run over several nodes."""
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
    """Ranks to start on this node."""
    nodes: int = 1
    """Nodes of the attempt; they gather before their trainers start."""
    node: int = 0
    """Which of them this is; the first one writes events and checkpoints."""
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
    fence: Whole
    movable: Flag = False
    """What the worker was told last, and acts on."""
    seconds: Seconds = 0.0
    """How long the trainer has worked."""


class BeatAnswer(Wire):
    desired: Desired
    broken: bool = False
    """Another node of the attempt is gone: stop the trainer, the run goes on from its last checkpoint."""
    movable: bool
    """Another host could go on with the run: without a renewal for 0.8 of the lease, stop the trainer."""
    lease_s: float


class Acked(Wire):
    acked: int
    """Bytes of the file that are durable on the server."""


class Finish(Request):
    """How an attempt ended. `outcome`: what the worker saw; the server decides what becomes of the run."""

    fence: Whole
    outcome: Literal["succeeded", "failed", "stopped"]
    reason: Reason | None = None
    message: str | None = Field(default=None, max_length=4096)
    exit_code: Small | None = None
    signal: Small | None = None
    peak_bytes: Count | None = None
    seconds: Seconds | None = None
    tail: list[str] = Field(default=[], max_length=200)


class Finished(Wire):
    state: RunState
