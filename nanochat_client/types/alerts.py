"""What travels over /alerts."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from nanochat_client.types.wire import Wire


class AlertKind(StrEnum):
    LOSS_SPIKE = "loss_spike"  # far above the losses before it
    NAN = "nan"  # the loss is no number
    STALLED = "stalled"  # the trainer says nothing
    GPU_HOT = "gpu_hot"
    DISK_LOW = "disk_low"
    WORKER_LOST = "worker_lost"


class Alert(Wire):
    id: str
    kind: AlertKind
    run_id: str | None = None
    worker_id: str | None = None
    message: str
    value: float | None = None
    """What was measured when it was raised: nats, minutes, degrees Celsius, GiB, seconds."""
    threshold: float | None = None
    """The limit, in the unit of `value`."""
    created_at: datetime
    cleared_at: datetime | None = None
    """When it was over; null: it is not."""
