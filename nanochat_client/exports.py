"""What both clients do with exports beside sending operations."""

from __future__ import annotations

from pathlib import Path

from nanochat_client import types
from nanochat_client.download import Part, Progress
from nanochat_client.errors import Conflict, ExportFailed

#: between two looks at an export that is being made
EVERY_S = 0.5


def checked(export: types.Export) -> types.Export:
    """The export itself. Raises ExportFailed."""
    if export.state == "failed":
        raise ExportFailed(f"{export.name} of checkpoint {export.checkpoint}: {export.message}")
    return export


def part_of(export: types.Export, file: str | Path, progress: Progress | None) -> Part:
    """What is here of its download. Raises Conflict for one that was not ready when it was read."""
    if export.version is None:
        raise Conflict(f"{export.name} of checkpoint {export.checkpoint} was {export.state}: get it again")
    return Part(Path(file), export.version, progress)
