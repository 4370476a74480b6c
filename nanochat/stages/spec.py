"""What a stage is: a typed config, the script that runs it, what it needs and what it makes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9 ._-]{0,63}$"


@dataclass(frozen=True)
class Problem:
    """Why a config cannot run, where (JSON pointer into the config), and the nearest value that can."""

    pointer: str
    message: str
    nearest: Any = None


class StageConfig(BaseModel):
    """Fields every stage shares. Strict: no `"8"` for 8, no true for 1, no NaN, no unknown key."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, use_attribute_docstrings=True, allow_inf_nan=False
    )

    run: str = Field(default="", max_length=64, pattern=r"^([A-Za-z0-9][A-Za-z0-9 ._-]*)?$")
    """Name of the run, used in log file names and reports; empty: the stage's name."""
    seed: int = Field(default=42, ge=0, le=2**31 - 1)
    """Seed of every random number generator."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute; auto takes a GPU when there is one."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Compute type of the matrix products; auto: bfloat16 where the hardware has it, else float32."""
    processes: int = Field(default=1, ge=1, le=64)
    """Ranks to start when no GPU is used (one rank per GPU otherwise)."""

    @field_validator("*", mode="before")
    @classmethod
    def _fits_64_bits(cls, value: Any) -> Any:
        """Fields without an upper bound: what is larger, no tensor and no database column holds."""
        if isinstance(value, int) and abs(value) >= 2**63:
            raise ValueError("a whole number must fit into 64 bits")
        return value

    def problems(self, world_size: int) -> list[Problem]:
        """What pydantic's bounds cannot see: relations between fields for `world_size` ranks."""
        del world_size
        return []


@dataclass(frozen=True)
class Input:
    """An artefact a stage reads: which config field takes its path, and which stages can make it."""

    field: str
    stages: tuple[str, ...]
    required: bool = True


@dataclass(frozen=True)
class Stage:
    """One row of the stage table. CLI flags, API checks, the dashboard's form and argv derive from it.

    `script` is the module run as `python -m`; `distributed` ones are started by torchrun.
    The first of `inputs` takes the checkpoint of the run's parent.
    """

    name: str
    title: str
    script: str
    config: type[StageConfig]
    inputs: tuple[Input, ...] = ()
    makes_checkpoints: bool = True
    distributed: bool = True
    uses_gpu: bool = True
    positional: str = "config"
    aliases: dict[str, str] = field(default_factory=dict)
    """Short or historical flags → field names, e.g. {"-p": "prompt"}."""
