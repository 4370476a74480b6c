"""A checkpoint's files on this host: those that are here, or fetched from the shared storage."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

from nanochat.paths import STAGE_DIRS, resolve_under
from nanochat.storage import Storage, StorageError
from server.settings import Settings

log = logging.getLogger(__name__)


async def directory(settings: Settings, path: str) -> Path | None:
    """Where the files at `path` (below the base directory) are; None when neither this host has them
    nor the storage. Fetching takes as long as it takes."""
    try:
        here = resolve_under(settings.base_dir, path)
    except ValueError:
        return None
    if not here.is_dir() and settings.storage_url:
        try:
            await asyncio.to_thread(_fetch, settings, path)
        except (StorageError, OSError) as error:
            log.warning("%s: %s", path, error)
    return here if here.is_dir() else None


def may_be_had(settings: Settings, path: str) -> bool:
    """Whether it is worth asking for `directory`: the files are here, or a storage may have them."""
    try:
        return resolve_under(settings.base_dir, path).is_dir() or bool(settings.storage_url)
    except ValueError:
        return False


def _fetch(settings: Settings, path: str) -> None:
    Storage(settings.storage_url, settings.base_dir).pull(path)


def forget(url: str, base: Path, run_id: str, stage: str) -> None:
    """Remove a deleted run's artefacts from the storage; one that does not answer keeps them."""
    if url and stage in STAGE_DIRS:
        try:
            Storage(url, base).remove(f"{STAGE_DIRS[stage]}/{run_id}")
        except (StorageError, OSError) as error:
            log.warning("the artefacts of run %s stay in the storage: %s", run_id, error)
