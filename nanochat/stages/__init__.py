"""The stage table: the one definition that flags, API checks, forms, argv and docs derive from.

`python -m nanochat.stages` prints it. A new stage is one file here (and a trainer, if it needs one).
"""

from __future__ import annotations

from nanochat.stages import base, base_eval, base_loss, chat_eval, mid, rl, sft, tok_eval, tokenizer
from nanochat.stages.spec import Input, Problem, Stage, StageConfig

STAGES: dict[str, Stage] = {
    stage.name: stage
    for stage in (
        tokenizer.STAGE,
        base.STAGE,
        mid.STAGE,
        sft.STAGE,
        rl.STAGE,
        tok_eval.STAGE,
        base_eval.STAGE,
        base_loss.STAGE,
        chat_eval.STAGE,
    )
}

__all__ = ["STAGES", "Input", "Problem", "Stage", "StageConfig"]
