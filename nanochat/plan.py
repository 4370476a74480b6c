"""`python -m nanochat.plan --probe [--key=value …]`: a few real steps of a base config, beside its plan.

One rank, random tokens, two micro-batches a step; the time of a whole step is scaled up from that.
Measured is what torch's allocator held on a GPU, resident memory on a CPU. Not covered: several ranks.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import Any

STEPS, MICRO_BATCHES = 4, 2


def main(argv: Sequence[str] | None = None) -> int:
    from nanochat.configurator import config_from_argv
    from nanochat.stages import STAGES

    words = list(sys.argv[1:] if argv is None else argv)
    if "--probe" not in words:
        print("plan: only --probe is here; `nanochat plan base …` plans without measuring", file=sys.stderr)
        return 2
    words.remove("--probe")
    return probe(config_from_argv(STAGES["base"], words))


def probe(cfg: Any) -> int:
    """Print measured and predicted. 2 when there is no GPU and the config does not ask for a CPU."""
    import torch

    if cfg.device != "cpu" and not torch.cuda.is_available():
        print(
            "plan: there is no NVIDIA GPU here to probe; --set device=cpu measures on the CPU",
            file=sys.stderr,
        )
        return 2
    peak_bytes, step_s = measure(cfg)
    plan = _predicted(cfg)
    print(f"{'':12}{'measured':>12}{'predicted':>12}")
    print(f"{'peak MiB':12}{peak_bytes / 2**20:12,.0f}{plan.memory.total / 2**20:12,.0f}")
    predicted_s = plan.total_batch_size / plan.tokens_per_second
    print(f"{'step ms':12}{step_s * 1000:12,.0f}{predicted_s * 1000:12,.0f}")
    return 0


def _predicted(cfg: Any) -> Any:
    from nanochat.paths import base_dir
    from nanochat.planner import plan_base
    from nanochat.planner.host import host_gpus, vocabulary

    gpus = [] if cfg.device == "cpu" else host_gpus()
    return plan_base(cfg, vocab_size=vocabulary(cfg, base_dir()), ranks=1, gpu=gpus[0] if gpus else None)


def measure(cfg: Any) -> tuple[int, float]:
    """Peak bytes and seconds of a whole step."""
    import torch

    from nanochat import compiling
    from nanochat.common import peak_rss, resolve_device, resolve_dtype
    from nanochat.gpt import GPT
    from nanochat.paths import base_dir
    from nanochat.planner.host import vocabulary
    from nanochat.train.base import model_config, recipe
    from nanochat.train.loop import make_optimizer

    device = resolve_device(cfg.device, 0)
    dtype = resolve_dtype(cfg.dtype, device)
    base = base_dir()
    model = GPT(model_config(cfg, vocabulary(cfg, base)), dtype)
    model.init_weights()
    model.to(device).train()
    model.checkpoint_activations = cfg.activation_checkpoint
    optimizer = make_optimizer(model, cfg, None, recipe(cfg, 1))
    if cfg.compile != "off" and not compiling.switch_on(base / "compile_cache", device):
        compiling.compile_blocks(model.blocks)
    rows = max(1, cfg.step_tokens(1) // (cfg.device_batch_size * cfg.max_seq_len))
    micro_s = update_s = 0.0
    for _ in range(STEPS):
        micro_s, update_s = _step(model, optimizer, cfg, min(rows, MICRO_BATCHES))
    peak = int(torch.cuda.max_memory_allocated(device)) if device.type == "cuda" else peak_rss()
    compiling.switch_off()
    return peak, rows * micro_s + update_s


def _step(model: Any, optimizer: Any, cfg: Any, micro_batches: int) -> tuple[float, float]:
    """Seconds of a micro-batch and of the update."""
    import torch

    from nanochat.loss import head_loss

    device = model.lm_head.weight.device

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    optimizer.zero()
    wait()
    started = time.perf_counter()
    for _ in range(micro_batches):
        size = (cfg.device_batch_size, cfg.max_seq_len)
        ids_BT, targets_BT = (torch.randint(model.cfg.vocab_size, size, device=device) for _ in range(2))
        x_ND = model.hidden(ids_BT).flatten(0, 1)
        weights_N = torch.full((x_ND.size(0),), 1 / x_ND.size(0), device=device)
        head_VD = model.lm_head.weight
        loss = head_loss(x_ND, head_VD, targets_BT.flatten(), weights_N, grad_VD=head_VD.grad)
        del x_ND
        torch.autograd.backward(loss)
    wait()
    stepping = time.perf_counter()
    optimizer.clip(float(optimizer.square_norm()) ** 0.5, cfg.grad_clip)
    optimizer.step(1.0, 0.95)
    wait()
    return (stepping - started) / micro_batches, time.perf_counter() - stepping


if __name__ == "__main__":
    raise SystemExit(main())
