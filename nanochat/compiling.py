"""torch.compile where it pays and works, eager where not.

`switch_on` decides for the whole process; functions marked `@compiled` and the model's blocks follow it.
Blocks are compiled one by one: all layers share one compilation, and the gradients of a layer are there
while the layers before it still run (docs/decisions/0006-compile-blocks.md).
Kernels stay on disk (TORCHINDUCTOR_CACHE_DIR), so only the first run on a machine waits long.
NANOCHAT_COMPILE=0 keeps everything eager, =1 compiles always.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

import torch
from torch import nn

F = TypeVar("F", bound=Callable[..., Any])
#: training FLOPs from which compiling wins its 5 s (warm) to 25 s (first time) back, by device type
WORTH_FLOPS = {"cpu": 2e13, "cuda": 5e15}
_on = False


def wanted(mode: Literal["auto", "on", "off"], flops: float, device_type: str) -> bool:
    """Whether to compile for `flops` of training that are still to be done."""
    forced = os.environ.get("NANOCHAT_COMPILE", "")
    if forced in ("0", "1"):
        return forced == "1"
    return mode == "on" or (mode == "auto" and flops >= WORTH_FLOPS.get(device_type, 0.0))


def switch_on(cache: Path, device: torch.device) -> str:
    """Compile from now on. Returns why it is not possible here, in one sentence; empty when it is."""
    global _on
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache))
    try:  # a missing compiler, missing headers, a read-only disk: all show in the smallest kernel
        torch.compile(_probe, dynamic=False)(torch.ones(64, device=device))
    except Exception as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        torch._dynamo.reset()
        return f"nothing can be compiled here, so training runs eagerly and slower: {lines[0][:200]}"
    _on = True
    return ""


def switch_off() -> None:
    """Back to eager."""
    global _on
    _on = False


def compiled(function: F) -> F:
    """`function`, compiled at its first call after `switch_on`."""
    quick: Callable[..., Any] | None = None

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        nonlocal quick
        if not _on or torch.compiler.is_compiling():
            return function(*args, **kwargs)
        if quick is None:
            quick = torch.compile(function, dynamic=False)
        return quick(*args, **kwargs)

    return cast(F, call)


def compile_blocks(blocks: nn.ModuleList) -> None:
    """Compile each block in place, when `switch_on` succeeded."""
    if _on:
        for block in blocks:
            block.compile(dynamic=False)


def eagerly() -> AbstractContextManager[Any]:
    """Within it what was compiled runs eagerly: texts of all lengths are too many shapes to compile."""
    return torch.compiler.set_stance("force_eager") if _on else nullcontext()


def _probe(x: torch.Tensor) -> torch.Tensor:
    return torch.exp(x).sum()
