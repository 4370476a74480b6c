"""The forward pass on a CPU, in C: built with the machine's own compiler, two seconds, once.

`NativeRunner` packs a model's weights and calls `forward.c`. Without a compiler, or for widths that do not
divide by its vectors, `Unavailable` is raised and the torch runner serves instead.

# Shapes: N outputs, K inputs of a matrix, V vocabulary.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from nanochat.engine.runner import BLOCK, Batch
from nanochat.gpt import GATE_CHANNELS, GPT, NORM_EPS, Attention, Block
from nanochat.loss import SOFTCAP
from nanochat.paths import base_dir

Precision = Literal["float32", "bfloat16", "int8"]
SOURCE = Path(__file__).with_name("forward.c")
PANEL, LANES = 64, 16
KINDS: dict[Precision, int] = {"float32": 0, "bfloat16": 1, "int8": 2}


class Unavailable(RuntimeError):
    """Why this model cannot run natively here, in one sentence."""


def build(directory: Path | None = None, march: str = "native") -> Path:
    """The compiled library, made when there is none for this source, compiler and processor yet.

    `directory`: where it is kept; else NANOCHAT_KERNEL_DIR, else `kernels/` of the base directory. Raises
    Unavailable without a compiler, or with one that fails.
    """
    compiler = os.environ.get("CC") or next((c for c in ("cc", "gcc", "clang") if shutil.which(c)), "")
    if not compiler:
        raise Unavailable("there is no C compiler (cc, gcc or clang) on this machine")
    flags = ["-std=gnu11", "-O3", f"-march={march}", "-shared", "-fPIC", "-Wno-psabi"]
    identity = (SOURCE.read_bytes(), compiler, flags, _processor())
    name = hashlib.sha256(repr(identity).encode()).hexdigest()[:16]
    directory = directory or Path(os.environ.get("NANOCHAT_KERNEL_DIR") or base_dir() / "kernels")
    library = directory / f"forward-{name}.so"
    if library.exists():
        return library
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=directory) as scratch:
            fresh = Path(scratch) / library.name
            for threads in (["-fopenmp"], []):  # Apple's clang has no OpenMP: one thread then
                command = [compiler, *flags, *threads, str(SOURCE), "-o", str(fresh), "-lm"]
                made = subprocess.run(command, capture_output=True, text=True, timeout=120)
                if made.returncode == 0:
                    fresh.replace(library)
                    return library
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unavailable(f"{compiler} could not build {SOURCE.name}: {error}") from None
    raise Unavailable(f"{compiler} could not build {SOURCE.name}: {made.stderr.strip()[:300]}")


def pack(weight_NK: Tensor, precision: Precision) -> tuple[Tensor, Tensor | None]:
    """A matrix in panels of 64 outputs as forward.c reads it, and one scale per output for int8."""
    N, K = weight_NK.shape
    padded = F.pad(weight_NK.detach().float(), (0, 0, 0, -N % PANEL))
    if precision == "float32":
        return padded.view(-1, 4, LANES, K).permute(0, 3, 1, 2).contiguous(), None
    pairs = padded.view(-1, 4, LANES, K // 2, 2)
    if precision == "bfloat16":
        return pairs.permute(0, 3, 1, 2, 4).to(torch.bfloat16).contiguous(), None
    scale_N = padded.abs().amax(1).clamp_min(1e-12) / 127
    whole = (pairs / scale_N.view(-1, 4, LANES, 1, 1)).round()
    return whole.permute(0, 3, 1, 4, 2).to(torch.int8).contiguous(), scale_N


class NativeRunner:
    """Runs batches of a model on the CPU, with a cache of `blocks` blocks. Not thread-safe.

    int8: weights in 8 bits with a scale per output, activations as with bfloat16.
    """

    def __init__(
        self,
        model: GPT,
        *,
        precision: Precision,
        blocks: int,
        max_rows: int,
        threads: int = 1,
        library: Path | None = None,
    ) -> None:
        cfg = model.cfg
        head_width = cfg.n_embd // cfg.n_head
        if cfg.n_embd % LANES or head_width % (2 * LANES):
            raise Unavailable(f"heads {head_width} wide do not divide into vectors of {LANES}")
        self.context, self.vocab_size = cfg.sequence_len, cfg.vocab_size
        self.blocks, self.max_rows = blocks, max_rows
        self.precision: str = precision
        self._kind: Precision = precision
        self._library = _open(library or build())
        self._kept: list[Tensor] = []  # what the C side points to
        cache = torch.zeros(
            (cfg.n_layer, blocks, cfg.n_kv_head, 2, BLOCK * head_width),
            dtype=torch.float32 if precision == "float32" else torch.bfloat16,
        )
        embedding = model.get_parameter("transformer.wte.weight")
        parts = [self._keep(t) for t in (embedding, model.cos_TR, model.sin_TR)] + [self._keep(cache, False)]
        parts += self._matrix(model.lm_head.weight)
        for block in model.blocks:
            parts += self._layer(block)  # type: ignore[arg-type]
        sizes = [
            KINDS[precision], cfg.n_layer, cfg.n_embd, cfg.n_head, cfg.n_kv_head, head_width, cfg.vocab_size,
            cfg.sequence_len, blocks, max_rows, threads, GATE_CHANNELS,
        ]  # fmt: skip
        self._handle = self._library.nanochat_open(
            (ctypes.c_int32 * len(sizes))(*sizes), NORM_EPS, SOFTCAP, (ctypes.c_void_p * len(parts))(*parts)
        )
        if not self._handle:
            raise MemoryError("no memory for the engine's buffers")

    def forward(self, batch: Batch) -> Tensor:
        """Soft-capped float32 logits (wanted rows, V)."""
        assert len(batch.tokens) <= self.max_rows
        logits = torch.empty(len(batch.wanted), self.vocab_size)
        self._library.nanochat_forward(
            self._handle, len(batch.tokens), batch.tokens.ctypes.data, batch.positions.ctypes.data,
            batch.sequence.ctypes.data, batch.tables.ctypes.data, batch.tables.shape[1],
            batch.wanted.ctypes.data, len(batch.wanted), logits.data_ptr(),
        )  # fmt: skip
        return logits

    def close(self) -> None:
        """Give the memory back; the runner cannot be used any more."""
        handle, self._handle = self._handle, None
        if handle:
            self._library.nanochat_close(handle)
        self._kept.clear()

    def __del__(self) -> None:
        if getattr(self, "_handle", None):
            self.close()

    def _keep(self, tensor: Tensor | None, copy: bool = True) -> int | None:
        if tensor is None:
            return None
        if copy:
            tensor = tensor.detach().float().cpu().contiguous()
        self._kept.append(tensor)
        return tensor.data_ptr()

    def _matrix(self, weight: Tensor) -> list[int | None]:
        packed, scale = pack(weight.cpu(), self._kind)
        return [self._keep(packed, False), self._keep(scale)]

    def _layer(self, block: Block) -> list[int | None]:
        attn: Attention = block.attn
        qkv = torch.cat([attn.c_q.weight, attn.c_k.weight, attn.c_v.weight])
        parts: list[int | None] = []
        for weight in (qkv, attn.c_proj.weight, block.mlp.c_fc.weight, block.mlp.c_proj.weight):
            parts += self._matrix(weight)
        parts.append(self._keep(getattr(block, "mix", None)))
        parts.append(self._keep(attn.ve.weight if hasattr(attn, "ve") else None))
        parts.append(self._keep(attn.ve_gate.weight if hasattr(attn, "ve_gate") else None))
        return parts


def _open(library: Path) -> Any:
    try:
        loaded = ctypes.CDLL(str(library))
    except OSError as error:
        raise Unavailable(f"{library.name} does not load: {error}") from None
    pointer, number, single = ctypes.c_void_p, ctypes.c_int32, ctypes.c_float
    loaded.nanochat_open.argtypes = [pointer, single, single, pointer]
    loaded.nanochat_open.restype = pointer
    loaded.nanochat_forward.argtypes = [
        pointer, number, pointer, pointer, pointer, pointer, number, pointer, number, pointer,
    ]  # fmt: skip
    loaded.nanochat_forward.restype = None
    loaded.nanochat_close.argtypes = [pointer]
    loaded.nanochat_close.restype = None
    return loaded


def _processor() -> Sequence[str]:
    """What -march=native depends on: a base directory may be shared by several machines."""
    found = [platform.machine()]
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return [*found, platform.processor()]
    return found + sorted({line for line in lines if line.startswith(("flags", "model name", "Features"))})
