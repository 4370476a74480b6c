"""The dashboard: built files from `server/static/`, served at /ui/."""

from __future__ import annotations

import asyncio
import gzip
from functools import lru_cache
from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import FileResponse, RedirectResponse
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

STATIC = Path(__file__).parent / "static"


@lru_cache(maxsize=64)
def _packed(path: str) -> bytes:
    """An asset with gzip: a third of it. Its name changes with its content, so it may be remembered."""
    return gzip.compress(Path(path).read_bytes())


class SinglePage(StaticFiles):
    """Static files; a path that is no file is the page itself, which has routes of its own."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        try:
            response = await super().get_response(path, scope)
        except HTTPException as error:
            if error.status_code != 404 or path.startswith("assets"):
                raise
            response = await super().get_response("index.html", scope)
        immutable = path.startswith("assets/")
        if (
            immutable
            and isinstance(response, FileResponse)
            and "gzip" in Headers(scope=scope).get("accept-encoding", "")
        ):
            body = await asyncio.to_thread(_packed, str(response.path))
            kept = {"etag": response.headers["etag"], "content-encoding": "gzip", "vary": "accept-encoding"}
            response = Response(body, headers=kept, media_type=response.media_type)
        response.headers["cache-control"] = "public, max-age=31536000, immutable" if immutable else "no-cache"
        return response


def install(app: FastAPI) -> None:
    @app.get("/", include_in_schema=False)
    async def root() -> RedirectResponse:
        return RedirectResponse("/ui/")

    app.mount("/ui", SinglePage(directory=STATIC, html=True, check_dir=False), name="ui")
