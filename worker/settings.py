"""Where the worker's things are: read once in `main`, passed on as an argument."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from nanochat import paths


class WorkerSettings(BaseSettings):
    """Environment variables with the prefix NANOCHAT_. Empty strings mean: not set."""

    model_config = SettingsConfigDict(
        env_prefix="NANOCHAT_",
        frozen=True,
        env_ignore_empty=True,
        extra="ignore",
        use_attribute_docstrings=True,
    )

    base_dir: Annotated[Path, AfterValidator(lambda path: path.expanduser().resolve())] = Field(
        default_factory=paths.base_dir
    )
    """Root of all artefacts; the server's, when both run on one host."""
    host_id: str = Field(default="", pattern=r"^([a-z0-9][a-z0-9-]{0,63})?$")
    """Name of this host for the server; empty: from the machine's id and the base directory."""
    url: str = "http://127.0.0.1:8000"
    """The server."""
    redis_url: str = ""
    """The queue; `nanochat up` sets it."""
    storage_url: str = ""
    """Storage that the hosts share artefacts through (s3://bucket/prefix, file:///mnt/x); empty: none."""
    node_address: str = Field(default="", max_length=255)
    """Where other workers reach this host, for runs over several nodes; empty: found by way of the server."""
    worker_token: SecretStr = SecretStr("")
    """Secret for /internal; empty: the file worker.token in the base directory."""
    launcher: Literal["local", "slurm", "ray"] = "local"
    """Where workers run: local: this process is one; slurm, ray: this process asks Slurm or Ray for them."""
    slurm_workers: int = Field(default=1, ge=1, le=1024)
    """Worker jobs to keep going, a node each."""
    slurm_gpus: int = Field(default=0, ge=0, le=64)
    """GPUs of each."""
    slurm_minutes: int = Field(default=1440, ge=10)
    """Time limit of each; when it is over its runs go on elsewhere, and the job is queued again."""
    slurm_options: str = ""
    """More for sbatch, comma-separated: partition=gpu,account=lab."""
    ray_address: str = "auto"
    """Ray's head, host:port; auto: RAY_ADDRESS, else the cluster that this machine is a node of."""
    ray_workers: int = Field(default=1, ge=1, le=1024)
    """Workers to keep going on Ray."""
    ray_gpus: int = Field(default=0, ge=0, le=64)
    """GPUs of each."""
    ray_cpus: int = Field(default=1, ge=1, le=4096)
    """CPUs that each reserves; its trainers are not held to them."""
    ray_place: Literal["spread", "pack"] = "spread"
    """spread: every worker on a node of its own; pack: on as few nodes as possible."""
    grace_s: float = Field(default=30.0, ge=0)
    """Time a trainer has to save and leave before its processes are killed."""
    fake_gpus: int = Field(default=0, ge=0, le=64)
    """Declare so many GPUs that do not exist (tests and demonstrations)."""
    stats_s: float = Field(default=2.0, gt=0)
    """Time between reports of the host's load."""

    @classmethod
    def names(cls) -> frozenset[str]:
        """The variables of the environment with our prefix that a worker reads or hands to trainers."""
        handed_on = {"NANOCHAT_DTYPE", "NANOCHAT_COMPILE", "NANOCHAT_KERNEL_DIR"}
        return frozenset({f"NANOCHAT_{field.upper()}" for field in cls.model_fields} | handed_on)

    def token(self) -> str:
        """The worker token. Raises FileNotFoundError when there is none yet."""
        return self.worker_token.get_secret_value() or (self.base_dir / "worker.token").read_text().strip()
