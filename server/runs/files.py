"""Removing what a deleted run left on disk."""

from __future__ import annotations

import shutil
from pathlib import Path

from nanochat import paths

LINKS = ("latest.pt", "latest")


def remove(base: Path, run_id: str, stage: str) -> None:
    """Delete the run's attempt directories and artefacts, and links that pointed to them.

    Nothing outside `base` is touched: the id is checked to be a plain name and links are not followed.
    """
    tag = paths.check_tag(run_id)
    places = [base / "runs" / tag]
    if stage in paths.STAGE_DIRS:
        stage_dir = paths.stage_dir(base, stage)
        places.append(stage_dir / tag)
    for place in places:
        if place.is_symlink():
            place.unlink()
        else:
            shutil.rmtree(place, ignore_errors=True)
    for link in [base / directory / name for directory in paths.STAGE_DIRS.values() for name in LINKS]:
        if link.is_symlink() and not link.exists():
            link.unlink(missing_ok=True)
