"""What GPUs can do, by name, and what this CPU can: for MFU and for plans. Torch-free.

Dense bf16 FLOP/s with fp32 accumulation, memory in bytes, bandwidth in bytes/s, board power in watts;
from the makers' data sheets (GeForce cards: half the advertised fp16-accumulate figure).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Gpu:
    """One kind of GPU."""

    name: str
    memory_bytes: int
    bf16_flops: float
    bandwidth: float
    watts: int
    capability: tuple[int, int]


def _gpu(name: str, gib: int, tflops: float, tb_s: float, watts: int, capability: tuple[int, int]) -> Gpu:
    return Gpu(name, gib << 30, tflops * 1e12, tb_s * 1e12, watts, capability)


GPUS = (
    _gpu("RTX 5090 D", 32, 209.5, 1.79, 575, (12, 0)),
    _gpu("RTX 5090", 32, 209.5, 1.79, 575, (12, 0)),
    _gpu("RTX 5080", 16, 112.6, 0.96, 360, (12, 0)),
    _gpu("RTX 5070 Ti", 16, 87.9, 0.896, 300, (12, 0)),
    _gpu("RTX PRO 6000", 96, 251.9, 1.79, 600, (12, 0)),
    _gpu("RTX 4090 D", 24, 147.0, 1.01, 425, (8, 9)),
    _gpu("RTX 4090", 24, 165.2, 1.01, 450, (8, 9)),
    _gpu("RTX 4080", 16, 97.5, 0.717, 320, (8, 9)),
    _gpu("RTX 4070", 12, 58.3, 0.504, 200, (8, 9)),
    _gpu("RTX 6000 Ada", 48, 364.2, 0.96, 300, (8, 9)),
    _gpu("L40S", 48, 362.0, 0.864, 350, (8, 9)),
    _gpu("RTX 3090", 24, 71.0, 0.936, 350, (8, 6)),
    _gpu("RTX 3080", 10, 59.5, 0.76, 320, (8, 6)),
    _gpu("RTX 3060", 12, 25.5, 0.36, 170, (8, 6)),
    _gpu("RTX A6000", 48, 154.8, 0.768, 300, (8, 6)),
    _gpu("A100", 80, 312.0, 2.04, 400, (8, 0)),
    _gpu("H100", 80, 989.0, 3.35, 700, (9, 0)),
    _gpu("H200", 141, 989.0, 4.8, 700, (9, 0)),
    _gpu("B200", 180, 2250.0, 8.0, 1000, (10, 0)),
)


def find_gpu(name: str) -> Gpu | None:
    """The entry for a name as drivers and people write it ("NVIDIA GeForce RTX 5090", "rtx5090")."""
    wanted = _plain(name)
    matches = [gpu for gpu in GPUS if _plain(gpu.name) in wanted or (wanted and wanted in _plain(gpu.name))]

    def closeness(gpu: Gpu) -> tuple[bool, int]:
        whole = _plain(gpu.name) in wanted
        return whole, len(gpu.name) if whole else -len(gpu.name)

    return max(matches, key=closeness, default=None)


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower().replace("nvidia", "").replace("geforce", ""))


def visible(uuids: Sequence[str], chosen: str | None) -> list[int]:
    """Indices of the GPUs that CUDA_VISIBLE_DEVICES (`chosen`) lets through, in its order; None: all.

    It holds indices or beginnings of UUIDs; the first unknown one ends the list, as in CUDA.
    """
    if chosen is None:
        return list(range(len(uuids)))
    found: list[int] = []
    for word in filter(None, (part.strip() for part in chosen.split(","))):
        named = [index for index, uuid in enumerate(uuids) if uuid.startswith(word)]
        known = list(range(len(uuids)))[int(word) : int(word) + 1] if word.isdigit() else named
        if not known:
            break
        found.append(known[0])
    return found


def cpu_has_bfloat16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether matrix products in bfloat16 are faster than in float32 on this CPU.

    With AMX they are, and with AVX512-BF16 on AMD. Intel's AVX512-BF16 without AMX, as virtual machines
    often show it, takes longer than float32 (measured: 76 against 135 GFLOP/s on one core).
    """
    try:
        lines = cpuinfo.read_text(encoding="utf-8").splitlines()
    except OSError:
        return False
    fields = {name.strip(): value.split() for name, _, value in (line.partition(":") for line in lines)}
    flags = fields.get("flags", [])
    return "amx_bf16" in flags or ("avx512_bf16" in flags and fields.get("vendor_id") == ["AuthenticAMD"])
