"""Which models there are, and under which names: aliases first, then every language-model checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from nanochat.paths import resolve_under
from server.checkpoints.repository import servable
from server.checkpoints.views import model_name
from server.models import Checkpoint, Pipeline

LATEST = "latest"
#: better to talk to first
CHAT_STAGES = ("rl", "sft", "mid", "base")


@dataclass(frozen=True)
class Model:
    """A name under /v1/models and the checkpoint behind it."""

    name: str
    checkpoint_id: str
    path: str
    created: int
    context: int

    def directory(self, base_dir: Path) -> Path:
        """Where its files are. Raises ValueError for a path that leads out of the base directory."""
        return resolve_under(base_dir, self.path)


async def models(session: AsyncSession) -> list[Model]:
    """`latest`, pipelines by name, then every checkpoint, newest first; of equal names the newest counts."""
    rows = await servable(session)
    pipelines = {p.id: p.name for p in await session.scalars(select(Pipeline))}
    found: dict[str, Model] = {}
    by_pipeline: dict[str, list[Checkpoint]] = {}
    for checkpoint, run in rows:
        if run.pipeline_id in pipelines:
            by_pipeline.setdefault(pipelines[run.pipeline_id], []).append(checkpoint)
    if rows:
        found[LATEST] = _model(LATEST, best_to_chat([checkpoint for checkpoint, _ in rows]))
    for name, checkpoints in by_pipeline.items():
        alias = name.replace(" ", "-")
        found.setdefault(alias, _model(alias, best_to_chat(checkpoints)))
    for checkpoint, run in rows:
        name = model_name(run, checkpoint)
        found.setdefault(name, _model(name, checkpoint))
    return list(found.values())


def best_to_chat(newest_first: list[Checkpoint]) -> Checkpoint:
    """The newest of the furthest stage."""
    return min(newest_first, key=lambda c: CHAT_STAGES.index(c.stage) if c.stage in CHAT_STAGES else 9)


async def find(session: AsyncSession, name: str) -> Model | None:
    """The model called `name`."""
    return next((model for model in await models(session) if model.name == name), None)


def _model(name: str, checkpoint: Checkpoint) -> Model:
    sizes = checkpoint.model_config_ or {}
    return Model(
        name=name,
        checkpoint_id=checkpoint.id,
        path=checkpoint.path,
        created=int(checkpoint.created_at.timestamp()),
        context=int(sizes.get("sequence_len", 0)),
    )
