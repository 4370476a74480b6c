"""Stage `chat_eval`: accuracy of a checkpoint on chat tasks."""

from __future__ import annotations

from pydantic import Field

from nanochat.stages.spec import Input, Stage, StageConfig


class ChatEvalConfig(StageConfig):
    """Accuracy on chat tasks, generated or by letter, with a 95 % interval beside each."""

    checkpoint: str = ""
    """Checkpoint to evaluate: a path, a latest.pt link or an id; empty: the newest."""
    task_name: str = ""
    """Tasks, comma-separated: arc-easy, arc-challenge, mmlu, gsm8k, humaneval and spellingbee, of which
    ChatCORE is made, hellaswag, identity, smalltalk, spelling, sums, rg:<generator>; empty: all but the last
    whose data is here (`nanochat data list`)."""
    max_problems: int = Field(default=100, ge=-1)
    """Problems per task at most; -1: all."""
    max_new_tokens: int = Field(default=0, ge=0, le=65536)
    """Tokens to generate per problem at most; 0: what its task says."""
    num_samples: int = Field(default=1, ge=1, le=1024)
    """Answers to each problem that is not multiple choice; one of them has to be right."""
    temperature: float = Field(default=0.0, ge=0, le=2)
    """Sampling temperature; 0 takes the likeliest token."""
    top_k: int = Field(default=50, ge=0)
    """Sample among the k likeliest tokens; 0: all."""
    batch_size: int = Field(default=32, ge=1, le=4096)
    """Sequences generated at once per rank; letters: sequences of full length that the cache has room for."""
    compare_parent: bool = False
    """Evaluate the checkpoint this one was trained from too, to show the scores before and after."""


STAGE = Stage(
    name="chat_eval",
    title="Chat evaluation",
    script="scripts.chat_eval",
    config=ChatEvalConfig,
    inputs=(Input("checkpoint", ("rl", "sft", "mid", "base")),),
    makes_checkpoints=False,
    aliases={
        "-a": "task_name",
        "-x": "max_problems",
        "-t": "temperature",
        "-k": "top_k",
        "-b": "batch_size",
        "-m": "max_new_tokens",
        "-n": "num_samples",
        "-d": "dtype",
    },
)
