"""/docs: Swagger UI 5.35.0 (Apache-2.0, see LICENSE) from files of ours, so that it works without a network.

`swagger-ui-bundle.js` and `swagger-ui.css` are those of the npm package swagger-ui-dist, without the lines
that name source maps. A new version is two files copied over these and the number above.
"""

from __future__ import annotations

from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import FileResponse
from starlette.staticfiles import StaticFiles

HERE = Path(__file__).parent
FILES = ("swagger-ui-bundle.js", "swagger-ui.css", "start.js")


def install(app: FastAPI) -> None:
    """Serve the page at /docs and its files below it."""

    @app.get("/docs", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(HERE / "index.html")

    app.mount("/docs", _OnlyThese(directory=HERE), name="docs")


class _OnlyThese(StaticFiles):
    """The files of the page, and no other of this package."""

    def lookup_path(self, path: str) -> tuple[str, object]:  # type: ignore[override]
        return super().lookup_path(path) if path in FILES else ("", None)
