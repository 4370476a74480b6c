"""Plans: what a run would need."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, JsonValue

from nanochat_client.types.problems import ProblemItem
from nanochat_client.types.wire import NUMBER, Gpus, Request, RowId, Wire


class PlanCreate(Request):
    stage: str
    config: str | None = None
    """Name of a preset."""
    parent: RowId | None = None
    """Run to start from; absent: the newest that fits."""
    checkpoint: str = Field(default="last", max_length=64)
    """Of the parent: `last`, `best:<metric>` or `step:<n>`; anything else is among the plan's problems."""
    overrides: dict[str, JsonValue] = {}
    """Config fields that win over the preset."""
    gpus: Gpus | None = None
    """GPUs to plan for; absent: what the preset implies, else one if there is one."""
    gpu: str | None = Field(default=None, max_length=64)
    """Kind of GPU, e.g. RTX 5090; absent: what the best worker has."""
    target_vram_gb: Annotated[float, Field(gt=0, le=1024), NUMBER] | None = None
    """GiB that a rank may take; absent: all of its GPU's memory."""


class MemoryView(Wire):
    """Bytes of one rank at the moment of its peak, by what they hold."""

    weights: int
    gradients: int
    optimizer: int
    activations: int
    loss: int
    buffers: int
    """Rotary tables, ids, temporaries, packed weights, and what the process itself takes."""
    cache: int = 0
    """Keys and values of sequences that are generated or scored."""
    total: int


class RolloutsView(Wire):
    """How a rank of an rl run answers."""

    answers: int
    """Of a step."""
    lanes: int
    """At once."""
    tokens: int
    """Of a sequence at most: prompt and answer."""
    cache_bytes: int
    """Keys and values of all lanes."""
    ids_bytes: int
    """The answers of a step in the host's memory."""
    answering_bytes: int
    """All that the rank takes while it answers."""
    learning_bytes: int
    """All that it takes while it learns from the answers."""


class FitView(Wire):
    """The largest micro-batch that fits, the global batch unchanged."""

    device_batch_size: int | None
    """Null: not even one row fits."""
    activation_checkpoint: bool
    total_batch_size: int | None
    """Null where conversations or answers are counted, not tokens."""
    total_bytes: int
    """What a rank takes with it."""
    lanes: int | None = None
    """rl: the most answers at once."""


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
    """Of the tokenizer the run would take, or of the model it starts from."""
    parameters: int | None = None
    flops_per_token: int | None = None
    steps: int | None = None
    """Null where the trainer alone will know: it depends on the tokens of a mixture."""
    accumulation: int | None = None
    """Micro-batches of a step on each rank; of rl at most."""
    total_batch_size: int | None = None
    tokens: int | None = None
    tokens_per_second: float | None = None
    mfu: float | None = None
    seconds: float | None = None
    energy_kwh: float | None = None
    checkpoint_bytes: int | None = None
    disk_bytes: int | None = None
    memory: MemoryView | None = None
    """Null where it is not planned: see `notes`."""
    rollouts: RolloutsView | None = None
    budget_bytes: int | None = None
    """What a rank may take; null: on a CPU without `target_vram_gb`."""
    fits: bool | None = None
    """Whether `memory` is within `budget_bytes`. An estimate: a run that does not fit is not refused."""
    fit: FitView | None = None
    problems: list[ProblemItem] = []
    """Why the run would be refused, with pointers into this request."""
    notes: list[str] = []
