"""The tables. Each class is one; relations are followed by explicit queries in the repositories."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, ClassVar

from sqlalchemy import (
    JSON,
    BigInteger,
    DateTime,
    Dialect,
    Float,
    ForeignKey,
    Index,
    LargeBinary,
    MetaData,
    String,
    Text,
    TypeDecorator,
    UniqueConstraint,
    false,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from nanochat_client.types import Desired, RunState


class UtcDateTime(TypeDecorator[datetime]):
    """A datetime that is always aware and in UTC, also on SQLite, which stores none."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        del dialect
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        del dialect
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Base(DeclarativeBase):
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map: ClassVar = {datetime: UtcDateTime, dict[str, Any]: JSON, list[Any]: JSON}


def now() -> datetime:
    return datetime.now(UTC)


class Pipeline(Base):
    __tablename__ = "pipelines"
    id: Mapped[str] = mapped_column(String(16), primary_key=True)
    name: Mapped[str] = mapped_column(String(64))
    preset: Mapped[str | None] = mapped_column(String(64))
    created_at: Mapped[datetime] = mapped_column(default=now)


class Run(Base):
    """One stage to train or evaluate. `desired` is what the user wants, `state` what is."""

    __tablename__ = "runs"
    __table_args__ = (Index("ix_runs_created_at_id", "created_at", "id"), Index("ix_runs_state", "state"))
    id: Mapped[str] = mapped_column(String(16), primary_key=True)
    stage: Mapped[str] = mapped_column(String(32))
    name: Mapped[str] = mapped_column(String(64))
    state: Mapped[str] = mapped_column(String(16), default=RunState.QUEUED)
    desired: Mapped[str] = mapped_column(String(16), default=Desired.RUN)
    reason: Mapped[str | None] = mapped_column(String(32))
    message: Mapped[str | None] = mapped_column(Text)
    config: Mapped[dict[str, Any]]
    preset: Mapped[str | None] = mapped_column(String(64))
    parent_id: Mapped[str | None] = mapped_column(ForeignKey("runs.id"))
    parent_checkpoint: Mapped[str] = mapped_column(String(64), default="last")
    pipeline_id: Mapped[str | None] = mapped_column(ForeignKey("pipelines.id"), index=True)
    pipeline_step: Mapped[str | None] = mapped_column(String(64))
    retry_of: Mapped[str | None] = mapped_column(String(16))
    optional: Mapped[bool] = mapped_column(default=False, server_default=false())
    """Its pipeline succeeds without it."""
    gpus: Mapped[int]
    nodes: Mapped[int] = mapped_column(default=1, server_default="1")
    """Workers it spreads over; `gpus` is the sum."""
    min_nodes: Mapped[int] = mapped_column(default=1, server_default="1")
    blocked: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    attempt: Mapped[int] = mapped_column(default=0)
    max_restarts: Mapped[int] = mapped_column(default=0)
    restarts_left: Mapped[int]
    max_duration_s: Mapped[float | None] = mapped_column(Float(53))
    priority: Mapped[int] = mapped_column(default=0)
    tags: Mapped[list[Any]] = mapped_column(default=list)
    notes: Mapped[str] = mapped_column(Text, default="")
    exit_code: Mapped[int | None]
    signal: Mapped[int | None]
    peak_bytes: Mapped[int | None] = mapped_column(BigInteger)
    step: Mapped[int | None] = mapped_column(BigInteger)
    steps: Mapped[int | None] = mapped_column(BigInteger)
    summary: Mapped[dict[str, Any]] = mapped_column(default=dict)
    log_end: Mapped[int] = mapped_column(BigInteger, default=0)
    """Bytes of log stored, over all attempts: the next offset readers will see."""
    log_start: Mapped[int] = mapped_column(BigInteger, default=0, server_default="0")
    """The first offset that is still kept (server/telemetry/retention.py)."""
    last_seq: Mapped[int] = mapped_column(BigInteger, default=0)
    """Sequence number of the newest event."""
    metric_start: Mapped[int] = mapped_column(BigInteger, default=0, server_default="0")
    """Metric events up to this sequence number are kept no longer; their series are, thinned."""
    created_at: Mapped[datetime] = mapped_column(default=now)
    started_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]
    version: Mapped[int] = mapped_column(default=1)


class Worker(Base):
    """A host that trains. Identified by `host_id`, so a restarted worker is the same row."""

    __tablename__ = "workers"
    id: Mapped[str] = mapped_column(String(16), primary_key=True)
    host_id: Mapped[str] = mapped_column(String(64), unique=True)
    key_id: Mapped[str | None] = mapped_column(String(16))
    """The key it registered with; null: the worker token."""
    host: Mapped[str] = mapped_column(String(255))
    name: Mapped[str] = mapped_column(String(255))
    slots: Mapped[int]
    address: Mapped[str] = mapped_column(String(255), default="", server_default="")
    """Where other nodes reach it; empty: they do not."""
    gpus: Mapped[list[Any]] = mapped_column(default=list)
    stats: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    registered_at: Mapped[datetime] = mapped_column(default=now)
    seen_at: Mapped[datetime] = mapped_column(default=now)


class Attempt(Base):
    """One try of a run on one worker. `fence` grows with every claim; stale writers are refused."""

    __tablename__ = "attempts"
    __table_args__ = (UniqueConstraint("run_id", "number"), Index("ix_attempts_state", "state"))
    id: Mapped[str] = mapped_column(String(16), primary_key=True)
    run_id: Mapped[str] = mapped_column(ForeignKey("runs.id", ondelete="CASCADE"))
    number: Mapped[int]
    state: Mapped[str] = mapped_column(String(16), default=RunState.QUEUED)
    worker_id: Mapped[str | None] = mapped_column(ForeignKey("workers.id"))
    """Chosen by reconcile when enqueued, confirmed by the claim."""
    fence: Mapped[int] = mapped_column(default=0)
    adoptable: Mapped[bool] = mapped_column(default=False)
    """Its restarted worker found the trainer alive and may claim it once more, under a new fence."""
    movable: Mapped[bool] = mapped_column(default=False, server_default=false())
    """When its lease is over no process of it lives: its worker stops it by itself, or has proved it dead."""
    seconds: Mapped[float] = mapped_column(Float(53), default=0.0, server_default="0")
    """How long its trainer worked, on its worker's clock."""
    gpus: Mapped[list[Any]] = mapped_column(default=list)
    nodes: Mapped[int] = mapped_column(default=1, server_default="1")
    endpoint: Mapped[str | None] = mapped_column(String(300))
    """Where its nodes meet, once all are there."""
    resume_from: Mapped[str | None] = mapped_column(Text)
    """The checkpoint that all of them go on from."""
    log_acked: Mapped[int] = mapped_column(BigInteger, default=0)
    events_acked: Mapped[int] = mapped_column(BigInteger, default=0)
    reason: Mapped[str | None] = mapped_column(String(32))
    exit_code: Mapped[int | None]
    signal: Mapped[int | None]
    peak_bytes: Mapped[int | None] = mapped_column(BigInteger)
    message: Mapped[str | None] = mapped_column(Text)
    tail: Mapped[list[Any]] = mapped_column(default=list)
    job_id: Mapped[str | None] = mapped_column(String(64))
    """Id of the last wake-up message on the queue; ends with how many there were."""
    created_at: Mapped[datetime] = mapped_column(default=now)
    enqueued_at: Mapped[datetime | None]
    started_at: Mapped[datetime | None]
    beat_at: Mapped[datetime | None]
    """Last renewal of the lease."""
    ended_at: Mapped[datetime | None]


class Member(Base):
    """A node of an attempt beside the first one, which is the attempt's own worker."""

    __tablename__ = "members"
    id: Mapped[str] = mapped_column(String(16), primary_key=True)
    attempt_id: Mapped[str] = mapped_column(ForeignKey("attempts.id", ondelete="CASCADE"), index=True)
    node: Mapped[int]
    worker_id: Mapped[str] = mapped_column(ForeignKey("workers.id"))
    state: Mapped[str] = mapped_column(String(16), index=True)
    gpus: Mapped[list[Any]] = mapped_column(default=list)
    beat_at: Mapped[datetime | None]
    reason: Mapped[str | None] = mapped_column(String(32))
    message: Mapped[str | None] = mapped_column(Text)
    log_acked: Mapped[int] = mapped_column(BigInteger, default=0, server_default="0")
    """Bytes of its own log that are stored, as lines of the run's."""


class LogChunk(Base):
    """Bytes [first, last) of a run's log, in the order they arrived over all attempts."""

    __tablename__ = "log_chunks"
    run_id: Mapped[str] = mapped_column(ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True)
    first: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    last: Mapped[int] = mapped_column(BigInteger)
    attempt: Mapped[int]
    data: Mapped[bytes] = mapped_column(LargeBinary)


class Event(Base):
    """One trainer event that is no metric; `seq` is gap-free per run over all kinds."""

    __tablename__ = "events"
    __table_args__ = (Index("ix_events_run_id_kind_seq", "run_id", "kind", "seq"),)
    run_id: Mapped[str] = mapped_column(ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True)
    seq: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    attempt: Mapped[int]
    kind: Mapped[str] = mapped_column(String(16))
    step: Mapped[int | None] = mapped_column(BigInteger)
    t: Mapped[float] = mapped_column(Float(53))
    data: Mapped[dict[str, Any]]


class MetricHead(Base):
    """What is known of a run's metrics: their names, and how much of them is in blocks."""

    __tablename__ = "metric_heads"
    run_id: Mapped[str] = mapped_column(ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True)
    keys: Mapped[list[Any]] = mapped_column(default=list)
    packed: Mapped[int] = mapped_column(BigInteger, default=0)
    """Everything up to this sequence number is in `metric_blocks`."""
    tail_events: Mapped[int] = mapped_column(default=0)
    tail_chunks: Mapped[int] = mapped_column(default=0)


class MetricChunk(Base):
    """Metric events as they arrived, several in one row: what readers of the stream are sent."""

    __tablename__ = "metric_chunks"
    run_id: Mapped[str] = mapped_column(ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True)
    first: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    last: Mapped[int] = mapped_column(BigInteger)
    """Sequence numbers of the first and the last of them; events of other kinds may lie between."""
    attempt: Mapped[int]
    count: Mapped[int]
    data: Mapped[bytes] = mapped_column(LargeBinary)
    """JSON: [{seq, step, t, values, data?}, …]"""


class MetricBlock(Base):
    """Up to 4,096 consecutive points of one series, in order of step: server/telemetry/blocks.py."""

    __tablename__ = "metric_blocks"
    run_id: Mapped[str] = mapped_column(ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True)
    key: Mapped[str] = mapped_column(String(128), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    last_step: Mapped[int] = mapped_column(BigInteger)
    count: Mapped[int]
    coarse: Mapped[bytes] = mapped_column(LargeBinary)
    fine: Mapped[bytes] = mapped_column(LargeBinary)
    points: Mapped[bytes] = mapped_column(LargeBinary)


class Checkpoint(Base):
    __tablename__ = "checkpoints"
    __table_args__ = (UniqueConstraint("run_id", "step"),)
    id: Mapped[str] = mapped_column(String(16), primary_key=True)
    run_id: Mapped[str] = mapped_column(ForeignKey("runs.id", ondelete="CASCADE"))
    stage: Mapped[str] = mapped_column(String(32), index=True)
    step: Mapped[int] = mapped_column(BigInteger)
    path: Mapped[str] = mapped_column(Text)
    bytes: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str] = mapped_column(String(64))
    metrics: Mapped[dict[str, Any]] = mapped_column(default=dict)
    model_config_: Mapped[dict[str, Any] | None] = mapped_column("model_config", JSON(none_as_null=True))
    """Sizes of the language model; null for artefacts that are none (a tokenizer)."""
    origin: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    """What it was made from, as the trainer wrote it down: parent, tokenizer, data, code."""
    created_at: Mapped[datetime] = mapped_column(default=now)


class Alias(Base):
    """A name under /v1/models that a checkpoint was promoted to; the last promotion counts."""

    __tablename__ = "aliases"
    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    checkpoint_id: Mapped[str] = mapped_column(ForeignKey("checkpoints.id", ondelete="CASCADE"))
    created_at: Mapped[datetime] = mapped_column(default=now)


class Evaluation(Base):
    """What a run measured of a checkpoint: its own, or the one it was given."""

    __tablename__ = "evaluations"
    __table_args__ = (
        UniqueConstraint("run_id", "name", "step"),
        Index("ix_evaluations_created_at_id", "created_at", "id"),
    )
    id: Mapped[str] = mapped_column(String(16), primary_key=True)
    run_id: Mapped[str] = mapped_column(ForeignKey("runs.id", ondelete="CASCADE"))
    checkpoint_id: Mapped[str | None] = mapped_column(
        ForeignKey("checkpoints.id", ondelete="SET NULL"), index=True
    )
    """What was measured; null when the service does not know it (imported, removed since)."""
    stage: Mapped[str | None] = mapped_column(String(32))
    """Stage that made what was measured."""
    step: Mapped[int | None] = mapped_column(BigInteger)
    name: Mapped[str] = mapped_column(String(128))
    values: Mapped[dict[str, Any]]
    counts: Mapped[dict[str, Any]] = mapped_column(default=dict)
    details: Mapped[dict[str, Any]] = mapped_column(default=dict)
    created_at: Mapped[datetime] = mapped_column(default=now)


class IdempotencyKey(Base):
    """What a creating POST answered, so that a repeated one answers the same."""

    __tablename__ = "idempotency_keys"
    key: Mapped[str] = mapped_column(String(255), primary_key=True)
    route: Mapped[str] = mapped_column(String(64), primary_key=True)
    body_sha256: Mapped[str] = mapped_column(String(64))
    resource_id: Mapped[str] = mapped_column(String(16))
    created_at: Mapped[datetime] = mapped_column(default=now)


class File(Base):
    """A file that a user uploads, then its check, then what runs are told by its path (server/files)."""

    __tablename__ = "files"
    __table_args__ = (
        UniqueConstraint("kind", "name"),
        Index("ix_files_created_at_id", "created_at", "id"),
    )
    id: Mapped[str] = mapped_column(String(16), primary_key=True)
    kind: Mapped[str] = mapped_column(String(16))
    name: Mapped[str] = mapped_column(String(64))
    state: Mapped[str] = mapped_column(String(16), index=True)
    size: Mapped[int] = mapped_column(BigInteger)
    """Bytes it will have."""
    received: Mapped[int] = mapped_column(BigInteger, default=0)
    """Bytes that are on the disk for good."""
    sha256: Mapped[str] = mapped_column(String(64))
    items: Mapped[int | None] = mapped_column(BigInteger)
    message: Mapped[str | None] = mapped_column(Text)
    """Why it was rejected."""
    created_at: Mapped[datetime] = mapped_column(default=now)
    touched_at: Mapped[datetime] = mapped_column(default=now)
    """When the last bytes came, or it was rejected: a day later it is forgotten, unless it is ready."""
    ready_at: Mapped[datetime | None]


class Key(Base):
    """Who may call the service. The secret itself is stored nowhere."""

    __tablename__ = "keys"
    id: Mapped[str] = mapped_column(String(16), primary_key=True)
    name: Mapped[str] = mapped_column(String(64))
    digest: Mapped[str] = mapped_column(String(64))
    """SHA-256 of the secret, hex. The secret has 256 random bits, so a slow hash would add nothing."""
    scopes: Mapped[list[Any]]
    created_at: Mapped[datetime] = mapped_column(default=now)
    expires_at: Mapped[datetime | None]
    used_at: Mapped[datetime | None]
    """Last use, to the minute."""


class Webhook(Base):
    """Where to tell what happens. The secret is stored as it is: signing needs it."""

    __tablename__ = "webhooks"
    id: Mapped[str] = mapped_column(String(16), primary_key=True)
    url: Mapped[str] = mapped_column(Text)
    name: Mapped[str] = mapped_column(String(64), default="")
    events: Mapped[list[Any]]
    secret: Mapped[str] = mapped_column(String(128))
    created_at: Mapped[datetime] = mapped_column(default=now)


class WebhookDelivery(Base):
    """One message for one webhook, written in the transaction in which it happened."""

    __tablename__ = "webhook_deliveries"
    __table_args__ = (
        Index("ix_webhook_deliveries_state_next_at", "state", "next_at"),
        Index("ix_webhook_deliveries_webhook_id_created_at", "webhook_id", "created_at"),
    )
    id: Mapped[str] = mapped_column(String(16), primary_key=True)
    webhook_id: Mapped[str] = mapped_column(ForeignKey("webhooks.id", ondelete="CASCADE"))
    type: Mapped[str] = mapped_column(String(32))
    payload: Mapped[dict[str, Any]]
    state: Mapped[str] = mapped_column(String(16), default="pending")
    tries: Mapped[int] = mapped_column(default=0)
    status: Mapped[int | None]
    error: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(default=now)
    next_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]


class Alert(Base):
    """Something that a person should look at; raised once, and cleared when it is over."""

    __tablename__ = "alerts"
    __table_args__ = (
        Index(
            "uq_alerts_open", "kind", "subject", unique=True,
            sqlite_where=text("cleared_at IS NULL"), postgresql_where=text("cleared_at IS NULL"),
        ),
        Index("ix_alerts_created_at_id", "created_at", "id"),
    )  # fmt: skip
    id: Mapped[str] = mapped_column(String(16), primary_key=True)
    kind: Mapped[str] = mapped_column(String(32))
    subject: Mapped[str] = mapped_column(String(64))
    """What it is about: a run's id, a worker's, a worker's and a GPU's number."""
    run_id: Mapped[str | None] = mapped_column(ForeignKey("runs.id", ondelete="CASCADE"))
    worker_id: Mapped[str | None] = mapped_column(ForeignKey("workers.id", ondelete="CASCADE"))
    message: Mapped[str] = mapped_column(Text)
    value: Mapped[float | None] = mapped_column(Float(53))
    threshold: Mapped[float | None] = mapped_column(Float(53))
    created_at: Mapped[datetime] = mapped_column(default=now)
    cleared_at: Mapped[datetime | None]
