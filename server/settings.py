"""Where things are: one frozen class, read once in `main` and passed on as an argument."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr
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
    """auto: open on loopback as long as no key exists."""
    worker_token: SecretStr = SecretStr("")
    """Secret that workers present under /internal; `nanochat up` makes one."""
    lease_s: float = Field(default=300.0, gt=0)
    """How long an attempt lives without a sign of its worker; renewed every 1/30 of it."""
    engine_url: str = ""
    """An OpenAI-compatible engine to use instead of our own (not in this version)."""
    engine_idle_s: float = Field(default=900.0, gt=0)
    """Unload a model that nobody asked for this long."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"

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
