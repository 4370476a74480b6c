"""Exports over HTTP: ask for one, see how it is, fetch it."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import Response, StreamingResponse
from sqlalchemy.ext.asyncio import AsyncSession

from nanochat.interop.formats import why_not
from nanochat_client import types
from nanochat_client.types import Page
from server.checkpoints import archive, files, repository
from server.deps import Read, Services, ServicesDep
from server.exports.places import NAMES, place_of
from server.problems import Conflict, NotFound

router = APIRouter(prefix="/checkpoints/{checkpoint_id}", tags=["checkpoints"])


@router.post("/export", status_code=202)
async def export_checkpoint(
    checkpoint_id: str,
    response: Response,
    session: Read,
    services: ServicesDep,
    body: types.ExportCreate | None = None,
) -> types.Export:
    """Write the model for other software, in the background. Asked for again, it is the same export."""
    body = body or types.ExportCreate()
    checkpoint, _ = await repository.get(session, checkpoint_id)
    if checkpoint.model_config_ is None:
        raise Conflict(f"checkpoint {checkpoint_id} is no language model")
    if said := why_not(checkpoint.model_config_):
        raise Conflict(f"checkpoint {checkpoint_id} cannot be exported: {said}", code="not_exportable")
    if not files.may_be_had(services.settings, checkpoint.path):
        raise NotFound(f"the files of checkpoint {checkpoint_id} are not on this host")
    name = f"{body.format}-{body.dtype}"
    place = place_of(services.settings.base_dir, checkpoint.id, name)
    await services.exporter.ask(place, checkpoint.path)
    response.headers["location"] = f"/checkpoints/{checkpoint.id}/exports/{name}"
    return await _export(session, services, checkpoint.id, name)


@router.get("/exports")
async def list_exports(checkpoint_id: str, session: Read, services: ServicesDep) -> Page[types.Export]:
    """The checkpoint's exports, newest first."""
    checkpoint, _ = await repository.get(session, checkpoint_id)
    return Page(items=await services.exporter.look(checkpoint.id))


@router.get("/exports/{name}")
async def get_export(checkpoint_id: str, name: str, session: Read, services: ServicesDep) -> types.Export:
    """One export; its name is format and type: `hf-float32`."""
    return await _export(session, services, checkpoint_id, name)


@router.get("/exports/{name}/download", response_class=StreamingResponse, responses=archive.ANSWERS)
async def download_export(
    checkpoint_id: str,
    name: str,
    session: Read,
    services: ServicesDep,
    wanted: archive.Wanted = None,
    condition: archive.Condition = None,
) -> Response:
    """A ready export as an uncompressed tar archive; `Range: bytes=N-` goes on with a part of it."""
    export = await _export(session, services, checkpoint_id, name)
    if export.state != "ready":
        raise Conflict(f"this export is {export.state}: {export.message or 'wait until it is ready'}")
    place = place_of(services.settings.base_dir, export.checkpoint, export.name)
    return archive.answer(place.directory, place.key, export.version or "", wanted, condition)


async def _export(session: AsyncSession, services: Services, checkpoint_id: str, name: str) -> types.Export:
    checkpoint, _ = await repository.get(session, checkpoint_id)
    for export in await services.exporter.look(checkpoint.id):
        if export.name == name:
            return export
    hint = "POST …/export makes one" if name in NAMES else f"there can be {', '.join(NAMES)}"
    raise NotFound(f"checkpoint {checkpoint_id} has no export {name[:64]!r}: {hint}")
