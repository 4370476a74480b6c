"""What the model says in the middle of its training."""

from __future__ import annotations

from nanochat.engine import generate_batch
from nanochat.train.loop import Trainer

PROMPTS = ("Return the", "This module provides", "The capital of France is", "If the argument is")
MAX_NEW_TOKENS = 24


def sample(trainer: Trainer) -> None:
    """Go on with a few prompts, greedily, on rank 0; the others wait."""
    world, tokenizer, model = trainer.world, trainer.tokenizer, trainer.model
    prompts = [[tokenizer.bos, *tokenizer.encode(prompt)] for prompt in PROMPTS]
    room = model.cfg.sequence_len - max(map(len, prompts))
    if world.is_master and room > 0:
        answers = generate_batch(
            model,
            tokenizer,
            prompts,
            max_new_tokens=min(MAX_NEW_TOKENS, room),
            temperature=0.0,
            top_k=0,
            seed=0,
            batch_size=len(prompts),
        )
        for prompt, ids in zip(PROMPTS, answers, strict=True):
            text = tokenizer.decode(ids)
            world.events.emit("sample", step=trainer.progress.step, prompt=prompt, text=text)
            world.say(f"sample: {prompt}{text!r}")
    world.barrier()
