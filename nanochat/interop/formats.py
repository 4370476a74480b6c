"""What a checkpoint can be written as for other software. Torch-free: the service asks before it starts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: hf: a directory that transformers loads
FORMATS = ("hf",)
DTYPES = ("float32", "bfloat16")
#: the end of a directory's name while it is written: `.<name>.<process>.partial`
PARTIAL = ".partial"


def why_not(model_config: Mapping[str, Any]) -> str:
    """Why a model of this config cannot be written; empty when it can."""
    if model_config.get("residual_scalars") or model_config.get("value_embeddings"):
        return "it has arch: modern, which transformers does not know"
    return ""
