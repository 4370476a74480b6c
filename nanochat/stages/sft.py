"""Stage `sft`: supervised fine-tuning on conversations, loss on the assistant's tokens only."""

from __future__ import annotations

from pydantic import Field

from nanochat.stages.spec import Input, Problem, Stage
from nanochat.stages.training import OptimizerConfig, examples_problems


class SftConfig(OptimizerConfig):
    """Supervised fine-tuning. The model and its tokenizer come from the checkpoint."""

    mid_checkpoint: str = ""
    """Checkpoint to start from (mid or base): a path, a latest.pt link or an id; empty: the newest."""
    tasks: str = "identity,smalltalk,spelling,sums"
    """Mixture, comma-separated: identity, smalltalk, spelling, sums, or paths of JSONL conversations."""
    task_examples: int = Field(default=8000, ge=1, le=100_000_000)
    """Conversations to draw from the generators together, per epoch."""
    multi_turn: float = Field(default=0.3, ge=0, lt=1)
    """Probability that a generated dialogue goes on with another one in the same conversation."""
    num_epochs: int = Field(default=1, ge=1, le=1000)
    """Passes over the mixture."""
    num_iterations: int = Field(default=-1, ge=-1)
    """Optimizer steps; -1: from num_epochs."""
    max_seq_len: int = Field(default=0, ge=0, le=65536)
    """Longest conversation in tokens, longer ones are cut; 0: the model's context."""
    device_batch_size: int = Field(default=4, ge=1, le=4096)
    """Conversations per rank and micro-batch."""
    target_examples_per_step: int = Field(default=32, ge=1)
    """Conversations per optimizer step over all ranks; reached by gradient accumulation."""
    init_lr_frac: float = Field(default=0.02, gt=0, le=10)
    """First learning rate as a fraction of the pretraining rates; falls linearly to 0."""
    eval_every: int = Field(default=100, ge=-1)
    """Steps between measurements of the validation loss; ≤ 0: off."""
    eval_steps: int = Field(default=100, ge=1)
    """Micro-batches per measurement."""

    def problems(self, world_size: int) -> list[Problem]:
        return examples_problems(self.target_examples_per_step, self.device_batch_size, world_size)


STAGE = Stage(
    name="sft",
    title="Supervised fine-tuning",
    script="scripts.chat_sft",
    config=SftConfig,
    inputs=(Input("mid_checkpoint", ("mid", "base")),),
)
