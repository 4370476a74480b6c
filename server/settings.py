"""Where things are: one frozen class, read once in `main` and passed on as an argument."""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from nanochat import paths


class Settings(BaseSettings):
    """Environment variables with the prefix NANOCHAT_. Empty strings mean: not set."""

    model_config = SettingsConfigDict(
        env_prefix="NANOCHAT_",
        frozen=True,
        env_ignore_empty=True,
        extra="ignore",
        use_attribute_docstrings=True,
    )

    base_dir: Path = Field(default_factory=paths.base_dir)
    """Root of all artefacts, of the SQLite database and of the embedded Valkey."""
    database_url: str = ""
    """postgresql://… ; empty: SQLite in the base directory."""
    redis_url: str = ""
    """redis://… or unix://…; empty: the embedded Valkey that `nanochat up` starts."""
    host: str = "127.0.0.1"
    """Address to listen on."""
    port: int = Field(default=8000, ge=1, le=65535)
    """Port to listen on."""
    auth: Literal["auto", "on", "off"] = "auto"
    """auto: open on loopback as long as no key exists; on: always a key; off: never, on loopback only."""
    allowed_hosts: str = ""
    """Names the service is reached by, comma-separated: what a reverse proxy passes on as Host."""
    allowed_origins: str = ""
    """Other sites whose pages may call the API (CORS), comma-separated: https://notebook.example."""
    bootstrap_key_file: str = ""
    """A file with an admin key, stored at the start; where there is none, a fresh one is written to it."""
    worker_token: SecretStr = SecretStr("")
    """Secret that workers present under /internal; `nanochat up` makes one."""
    lease_s: float = Field(default=300.0, gt=0)
    """How long an attempt lives without a sign of its worker; renewed every 1/30 of it."""
    engine_url: str = ""
    """An OpenAI-compatible engine that has the models instead of ours (docs/scale-out.md); we render."""
    engine_key: SecretStr = SecretStr("")
    """The key that engine asks for."""
    engine_idle_s: float = Field(default=900.0, gt=0)
    """Unload a model that nobody asked for this long."""
    engine_models: int = Field(default=2, ge=1, le=64)
    """Models loaded at once; one more unloads what was used least recently."""
    engine_slots: int = Field(default=16, ge=1, le=1024)
    """Sequences a model generates at once; more wait."""
    engine_queue: int = Field(default=512, ge=1, le=100_000)
    """Sequences that may run or wait in one model; more are told to come back (503)."""
    engine_threads: int = Field(default=0, ge=0, le=1024)
    """CPU threads of an engine; 0: all cores but one."""
    engine_dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Precision of weights and products; auto: bfloat16."""
    engine_quantize: Literal["none", "int8"] = "none"
    """int8: weights in 8 bits, faster on CPUs, a little less exact."""
    engine_kv_gib: float = Field(default=0.0, ge=0)
    """Memory for keys and values, GiB; 0: the engine decides by what the device has."""
    engine_gpu: Literal["cpu", "refuse", "evict"] = "cpu"
    """When runs hold every GPU: engines on the CPU, no new ones, or none at all."""
    engine_load_wait_s: float = Field(default=120.0, gt=0)
    """How long a request waits for its model to load before it is told `model_loading`."""
    engine_hang_s: float = Field(default=120.0, gt=0)
    """An engine that owes an answer and is silent this long is killed."""
    storage_url: str = ""
    """Where hosts share artefacts: s3://bucket/prefix, file:///mnt/x; empty: in one base directory."""
    disk_quota_gib: float = Field(default=0.0, ge=0)
    """Old runs go, with their files, when what runs have written is more than this; 0: never."""
    upload_quota_gib: float = Field(default=20.0, ge=0)
    """Most that files which users upload may have together, GiB; 0: none are taken."""
    upload_file_gib: float = Field(default=5.0, gt=0)
    """Most that one of them may have, GiB."""
    keep_logs_days: float = Field(default=0.0, ge=0)
    """Of runs that ended longer ago only the end of the log is kept, here; 0: everything, for ever."""
    keep_metrics_days: float = Field(default=0.0, ge=0)
    """Series of runs that ended longer ago are thinned to 1,000 points; 0: every point, for ever."""
    webhook_networks: str = ""
    """Networks that are not the internet and that webhooks may lead to, comma-separated: 10.0.0.0/8."""
    alert_every_s: float = Field(default=5.0, ge=0)
    """How often it is looked for what a person should know (GET /alerts); 0: never."""
    alert_loss_spike: float = Field(default=8.0, ge=0)
    """A loss so many standard deviations above the ones before it is an alert; 0: never."""
    alert_stall_min: float = Field(default=15.0, ge=0)
    """A trainer that says nothing for so many minutes is an alert; 0: never."""
    alert_gpu_c: float = Field(default=90.0, ge=0)
    """A GPU at this temperature, in degrees Celsius, is an alert; 0: never."""
    alert_disk_gib: float = Field(default=5.0, ge=0)
    """A worker's disk with less free than this, GiB, is an alert; 0: never."""
    alert_worker_s: float = Field(default=60.0, ge=0)
    """A worker that was not heard of for this long is an alert; 0: never."""
    drain_s: float = Field(default=0.0, ge=0, le=3600)
    """How long a server that was asked to stop answers on connections that are open; 0: it closes them."""
    otlp_url: str = ""
    """An OpenTelemetry collector that takes traces over HTTP: http://collector:4318; empty: no traces."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @field_validator("webhook_networks")
    @classmethod
    def _are_networks(cls, text: str) -> str:
        for part in text.split(","):
            if part.strip():
                ip_network(part.strip())
        return text

    @property
    def sqlalchemy_url(self) -> str:
        """`database_url` with the async driver named; SQLite by default."""
        if not self.database_url:
            return f"sqlite+aiosqlite:///{self.base_dir / 'nanochat.db'}"
        scheme, _, rest = self.database_url.partition("://")
        drivers = {
            "postgres": "postgresql+psycopg",
            "postgresql": "postgresql+psycopg",
            "sqlite": "sqlite+aiosqlite",
        }
        return f"{drivers.get(scheme, scheme)}://{rest}"
