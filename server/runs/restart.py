"""Where a run begins: selectors of checkpoints, and the config of a run that is tried again."""

from __future__ import annotations

import re
from typing import Any

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from nanochat_client.types import ProblemItem
from nanochat_client.types.runs import SELECTOR
from server.checkpoints import repository as checkpoints
from server.ids import is_id
from server.models import Checkpoint, Run
from server.problems import Invalid
from server.runs.resolve import invalid

_SELECTOR = re.compile(SELECTOR)
NONE = "none"


def check_selector(selector: str, pointer: str) -> None:
    """`last`, `best:<metric>` or `step:<n>`. Raises Invalid."""
    if not _SELECTOR.fullmatch(selector):
        message = f"{selector!r} selects no checkpoint: use last, best:<metric> or step:<n>"
        raise invalid([ProblemItem(pointer=pointer, message=message, nearest="last")], "invalid")


async def config(session: AsyncSession, old: Run, checkpoint: str) -> dict[str, Any]:
    """The config of `old`, going on from that checkpoint of it. Raises Invalid.

    `last` of a run that has none is its beginning, or what it went on from itself.
    """
    found = dict(old.config)
    if "resume_from" not in found:
        if checkpoint not in ("last", NONE):
            raise _invalid(f"stage {old.stage!r} always begins anew", "last")
        return found
    if checkpoint == NONE:
        found["resume_from"] = ""
        return found
    chosen = await _chosen(session, old, checkpoint)
    if chosen is not None:
        found["resume_from"] = chosen.path
    elif checkpoint != "last":
        steps = (
            await session.scalars(
                select(Checkpoint.step).where(Checkpoint.run_id == old.id).order_by(Checkpoint.step.desc())
            )
        ).all()
        has = f"its steps: {', '.join(map(str, steps[:20]))}" if steps else "it has none"
        raise _invalid(
            f"run {old.id} has no checkpoint {checkpoint!r}; {has}", f"step:{steps[0]}" if steps else NONE
        )
    return found


async def _chosen(session: AsyncSession, old: Run, checkpoint: str) -> Checkpoint | None:
    """By its id, or by a selector. Raises Invalid for what is neither."""
    if checkpoint != "last" and is_id(checkpoint):
        found = await session.get(Checkpoint, checkpoint)
        return found if found is not None and found.run_id == old.id else None
    check_selector(checkpoint, "/checkpoint")
    return await checkpoints.select(session, old.id, checkpoint)


def _invalid(message: str, nearest: str) -> Invalid:
    return invalid([ProblemItem(pointer="/checkpoint", message=message, nearest=nearest)], "invalid")
