"""Conversations as padded micro-batches of similar length. Pure functions of their arguments.

# Shapes: B conversations, T tokens.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from nanochat.tokenizer import Tokenizer

Row = tuple[list[int], list[int]]  # ids, mask (1: a token to learn)
Plan = list[list[list[Row]]]  # steps → micro-batches over all ranks → rows
#: lengths are rounded up to this: every new shape of a matrix product costs a CPU's kernel library time to
#: prepare and memory to keep (LOG 2026-11-24: 2 GB a rank without, see there)
LENGTH_UNIT = 16
WINDOW_STEPS = 32  # rows of this many steps are sorted by length together


def learnable_rows(rendered: Iterable[Row]) -> list[Row]:
    """Rows with at least one token to learn; a conversation cut before its first answer has none."""
    return [(ids, mask) for ids, mask in rendered if any(mask[1:])]


def make_plan(rows: Sequence[Row], *, micro: int, per_step: int, seed: int) -> Plan:
    """Deal `rows` into steps of `per_step`, each made of micro-batches of `micro` rows of similar length.

    The rest that fills no step is left out, unless there is no whole step: then one step takes all rows,
    some of them twice.
    """
    rows = list(rows)
    while len(rows) < per_step:
        rows += rows[: per_step - len(rows)]
    rng = random.Random(seed)
    whole = len(rows) // per_step * per_step
    plan: Plan = []
    for start in range(0, whole, per_step * WINDOW_STEPS):
        window = sorted(
            rows[start : min(whole, start + per_step * WINDOW_STEPS)], key=lambda row: len(row[0])
        )
        batches = [window[at : at + micro] for at in range(0, len(window), micro)]
        rng.shuffle(batches)
        per = per_step // micro
        plan += [batches[at : at + per] for at in range(0, len(batches), per)]
    return plan


def collate(
    rows: Sequence[Row], tokenizer: Tokenizer, device: torch.device, context: int
) -> tuple[Tensor, Tensor]:
    """Inputs and targets (B, T), padded on the right; -1 where nothing is to be learned.

    T is a multiple of LENGTH_UNIT as far as the model's `context` allows. No row is longer than that.
    """
    longest = max(len(ids) for ids, _ in rows) - 1
    length = min(context, -(-longest // LENGTH_UNIT) * LENGTH_UNIT)
    x_BT = torch.full((len(rows), length), tokenizer.special("<|assistant_end|>"))
    y_BT = torch.full((len(rows), length), -1)
    for row, (ids, mask) in enumerate(rows):
        tokens = torch.tensor(ids)
        x_BT[row, : len(ids) - 1] = tokens[:-1]
        learned = torch.tensor(mask[1:], dtype=torch.bool)
        y_BT[row, : len(ids) - 1] = torch.where(learned, tokens[1:], -1)
    return x_BT.to(device), y_BT.to(device)
