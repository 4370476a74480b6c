"""Stage `mid`: go on training on conversations, packed into rows like the text before."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from nanochat.stages.spec import Input, Problem, Stage
from nanochat.stages.training import OptimizerConfig, batch_problems, examples_problems


class MidConfig(OptimizerConfig):
    """Mid-training, one epoch of a mixture. The model and its tokenizer come from the checkpoint."""

    base_checkpoint: str = ""
    """Checkpoint to start from: a path, a latest.pt link or an id; empty: the newest base model."""
    tasks: str = "identity,smalltalk,spelling,sums"
    """Mixture, comma-separated: names of tasks, or paths of JSONL conversations."""
    task_examples: int = Field(default=40_000, ge=1, le=100_000_000)
    """Conversations to draw from the generators together."""
    multi_turn: float = Field(default=0.3, ge=0, lt=1)
    """Probability that a generated dialogue goes on with another one in the same conversation."""
    replay: float = Field(default=0.0, ge=0, le=100)
    """Tokens of pretraining text for each token of conversations, so that the model keeps its language."""
    data: str = "pydocs"
    """Corpus of that text: pydocs, fineweb-edu, climbmix, or a directory or file of text."""
    learn: Literal["all", "assistant"] = "all"
    """Tokens that count in the loss: all of them, as in pretraining, or only what the assistant says."""
    num_iterations: int = Field(default=-1, ge=-1)
    """Optimizer steps; -1: one epoch."""
    max_seq_len: int = Field(default=0, ge=0, le=65536)
    """Tokens of a row; 0: the model's context."""
    device_batch_size: int = Field(default=16, ge=1, le=4096)
    """Rows per rank and micro-batch."""
    target_examples_per_step: int = Field(default=32, ge=1)
    """Rows per optimizer step over all ranks; reached by gradient accumulation."""
    total_batch_size: int = Field(default=0, ge=0)
    """Tokens per optimizer step over all ranks instead; 0: by target_examples_per_step."""
    init_lr_frac: float = Field(default=1.0, gt=0, le=10)
    """Learning rate as a fraction of the pretraining rates; falls to 0 over the last fifth."""
    eval_every: int = Field(default=150, ge=-1)
    """Steps between measurements of bits per byte on held-out conversations; ≤ 0: off."""

    def rows_per_step(self, seq_len: int) -> int:
        """Rows of `seq_len` tokens in one optimizer step, over all ranks."""
        return self.total_batch_size // seq_len if self.total_batch_size else self.target_examples_per_step

    def batch_problems(self, world_size: int, seq_len: int) -> list[Problem]:
        """What is wrong with the batch once the length of a row is known; 0: not known yet."""
        if self.total_batch_size:
            if not seq_len:
                return []
            return batch_problems(self.total_batch_size, self.device_batch_size, seq_len, world_size)
        return examples_problems(self.target_examples_per_step, self.device_batch_size, world_size)

    def problems(self, world_size: int) -> list[Problem]:
        return self.batch_problems(world_size, self.max_seq_len)


STAGE = Stage(
    name="mid",
    title="Mid-training",
    script="scripts.mid_train",
    config=MidConfig,
    inputs=(Input("base_checkpoint", ("base",)),),
)
