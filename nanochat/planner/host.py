"""What this host has: GPUs by NVML, bfloat16 on its CPU, the vocabulary of its tokenizer. Torch-free.

Not covered: MIG slices, cards of other makers.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from nanochat.hardware import Gpu, find_gpu, visible
from nanochat.paths import find_artefact, stage_dir
from nanochat.schedule import default_vocab_size
from nanochat.stages.base import BaseConfig

SPECIAL_TOKENS = 9  # nanochat.tokenizer


def host_gpus(environ: Mapping[str, str] | None = None) -> list[Gpu]:
    """The GPUs a process on this host would see; none without NVIDIA's driver."""
    try:
        import pynvml

        pynvml.nvmlInit()
    except Exception:  # no driver, no library, no permission: no GPUs
        return []
    try:
        found: dict[str, Gpu] = {}
        for index in range(pynvml.nvmlDeviceGetCount()):
            handle = pynvml.nvmlDeviceGetHandleByIndex(index)
            name, uuid = str(pynvml.nvmlDeviceGetName(handle)), str(pynvml.nvmlDeviceGetUUID(handle))
            found[uuid] = gpu_of(name, int(pynvml.nvmlDeviceGetMemoryInfo(handle).total))
        chosen = (os.environ if environ is None else environ).get("CUDA_VISIBLE_DEVICES")
        return [list(found.values())[index] for index in visible(list(found), chosen)]
    except Exception:
        return []
    finally:
        with suppress(Exception):
            pynvml.nvmlShutdown()


def gpu_of(name: str, memory_bytes: int) -> Gpu:
    """The table's entry with the memory this card really has; of an unknown card a cautious guess."""
    known = find_gpu(name)
    if known:
        return replace(known, memory_bytes=memory_bytes)
    return Gpu(name, memory_bytes, bf16_flops=50e12, bandwidth=0.4e12, watts=250, capability=(8, 0))


def vocabulary(cfg: BaseConfig, base: Path) -> int:
    """Tokens of the tokenizer a run of `cfg` would take: named, else the newest, else one it trains."""
    if cfg.tokenizer:
        with suppress(OSError, ValueError, KeyError):
            return _size(find_artefact(cfg.tokenizer, base))
    made = [file for file in stage_dir(base, "tokenizer").glob("*/manifest.json") if _is_whole(file.parent)]
    if made and not cfg.tokenizer:
        with suppress(OSError, ValueError, KeyError):
            return _size(max(made, key=lambda file: file.stat().st_mtime_ns).parent)
    return default_vocab_size(cfg.depth)


def _is_whole(directory: Path) -> bool:
    return directory.suffix not in (".tmp", ".old") and not directory.is_symlink()


def _size(directory: Path) -> int:
    stored: dict[str, Any] = json.loads((directory / "tokenizer.json").read_text(encoding="utf-8"))
    return len(stored["tokens"]) + SPECIAL_TOKENS
