"""One sequence per forward pass: what batched scoring is measured against, in tests and benches."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from nanochat.evals.scoring import Continuation
from nanochat.gpt import GPT


@torch.inference_mode()
def plain_continuations(model: GPT, group: Sequence[tuple[Sequence[int], int]]) -> list[Continuation]:
    """As `Scorer.continuations` for one group, by the model itself."""
    found = []
    for ids, start in group:
        whole = torch.tensor([list(ids)], device=model.lm_head.weight.device)
        logits_NV = model.logits(model.hidden(whole[:, :-1])[:, start - 1 :])[0].float()
        following_N = whole[0, start:]
        loss = torch.nn.functional.cross_entropy(logits_NV, following_N)
        found.append(Continuation(float(loss), bool((logits_NV.argmax(1) == following_N).all())))
    return found
