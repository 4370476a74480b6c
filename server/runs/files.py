"""Removing what a deleted run left on disk."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from nanochat import paths
from server.checkpoints import files as artefacts
from server.exports import places as exports

LINKS = ("latest.pt", "latest")


def places(base: Path, run_id: str, stage: str) -> list[Path]:
    """The directories that are the run's own. Raises ValueError when the id is no plain name."""
    tag = paths.check_tag(run_id)
    found = [base / "runs" / tag]
    if stage in paths.STAGE_DIRS:
        found.append(paths.stage_dir(base, stage) / tag)
    return found


def remove(
    base: Path, run_id: str, stage: str, storage_url: str = "", checkpoints: Sequence[str] = ()
) -> None:
    """Delete the run's attempt directories and artefacts, here and in the storage, and links to them.

    `checkpoints`: ids of those it had; their exports go too.
    Nothing outside `base` is touched: the id is checked to be a plain name and links are not followed.
    """
    for place in places(base, run_id, stage):
        if place.is_symlink():
            place.unlink()
        else:
            shutil.rmtree(place, ignore_errors=True)
    exports.remove(base, checkpoints)
    artefacts.forget(storage_url, base, run_id, stage)
    for link in [base / directory / name for directory in paths.STAGE_DIRS.values() for name in LINKS]:
        if link.is_symlink() and not link.exists():
            link.unlink(missing_ok=True)
