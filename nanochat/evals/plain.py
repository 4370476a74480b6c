"""One sequence per forward pass: what batched scoring is measured against, in tests and benches."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from nanochat.evals.scoring import Continuation
from nanochat.gpt import GPT


@torch.inference_mode()
def plain_continuations(
    model: GPT, group: Sequence[tuple[Sequence[int], int]], answer_only: bool = False
) -> list[Continuation]:
    """As `Scorer.continuations` for one group, by the model itself.

    One forward pass for each choice, which ends in logits (T, V) of every position; with `answer_only`, of
    the positions that are scored, which is what an evaluation written with care asks for.
    """
    found = []
    for ids, start in group:
        whole = torch.tensor([list(ids)], device=model.lm_head.weight.device)
        if answer_only:
            logits_NV = model.logits(model.hidden(whole[:, :-1])[:, start - 1 :])[0].float()
        else:
            logits_NV = model(whole[:, :-1])[0, start - 1 :].float()
        following_N = whole[0, start:]
        loss = torch.nn.functional.cross_entropy(logits_NV, following_N)
        found.append(Continuation(float(loss), bool((logits_NV.argmax(1) == following_N).all())))
    return found
