"""Stage `rl`: reinforcement learning from rewards, on answers of the model itself."""

from __future__ import annotations

from pydantic import Field

from nanochat.stages.spec import Input, Problem, Stage
from nanochat.stages.training import OptimizerConfig, nearest_multiple


class RlConfig(OptimizerConfig):
    """On-policy gradient with advantages within a prompt's group of answers (GRPO without ratio and KL)."""

    sft_checkpoint: str = ""
    """Checkpoint to start from (sft or mid): a path, a latest.pt link or an id; empty: the newest."""
    tasks: str = "sums"
    """Tasks, comma-separated: identity, smalltalk, spelling, sums, or rg:<generator> of reasoning-gym."""
    rewards: str = "exact:1.0"
    """Rewards and their weights, comma-separated: exact, format (ends by itself), short."""
    reward_weight: float = Field(default=1.0, gt=0, le=1000)
    """Factor of the weighted sum of the rewards."""
    num_iterations: int = Field(default=-1, ge=-1)
    """Optimizer steps; -1: from task_examples."""
    task_examples: int = Field(default=7472, ge=1, le=100_000_000)
    """Problems to practise on when num_iterations gives no length."""
    examples_per_step: int = Field(default=16, ge=1)
    """Problems per optimizer step over all ranks."""
    num_samples: int = Field(default=16, ge=2, le=1024)
    """Answers to each problem: the group in which they are compared."""
    max_new_tokens: int = Field(default=256, ge=1, le=65536)
    """Tokens of an answer at most."""
    temperature: float = Field(default=1.0, gt=0, le=2)
    """Sampling temperature; the gradient is that of temperature 1."""
    top_k: int = Field(default=50, ge=0)
    """Sample among the k likeliest tokens; 0: all."""
    lanes: int = Field(default=64, ge=1, le=4096)
    """Answers that are generated at once per rank."""
    device_batch_size: int = Field(default=8, ge=1, le=4096)
    """Answers per rank and micro-batch when learning."""
    spike_nats: float = Field(default=0.0, ge=0)
    """Rise of the loss from which a step is skipped; 0: only NaN and infinity, because this loss may jump."""
    init_lr_frac: float = Field(default=0.05, gt=0, le=10)
    """First learning rate as a fraction of the pretraining rates; falls linearly to 0."""
    eval_every: int = Field(default=60, ge=-1)
    """Steps between measurements of pass@k on held-out problems; ≤ 0: off."""
    eval_examples: int = Field(default=400, ge=1)
    """Held-out problems per measurement."""
    eval_samples: int = Field(default=8, ge=1, le=1024)
    """Answers to each of them: pass@k is measured for k = 1, 2, 4, … up to this."""

    def problems(self, world_size: int) -> list[Problem]:
        if self.examples_per_step % world_size == 0:
            return []
        nearest = nearest_multiple(self.examples_per_step, world_size)
        return [
            Problem(
                "/examples_per_step",
                f"examples_per_step {self.examples_per_step} is no multiple of {world_size} rank(s); "
                f"the nearest valid value is {nearest}",
                nearest,
            )
        ]


STAGE = Stage(
    name="rl",
    title="Reinforcement learning",
    script="scripts.chat_rl",
    config=RlConfig,
    inputs=(Input("sft_checkpoint", ("sft", "mid")),),
)
