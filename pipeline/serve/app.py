"""The application: every path that can be asked for, and the gate before them."""

from __future__ import annotations

from fastapi import FastAPI
from starlette.responses import FileResponse
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from pipeline.machine import installed_version
from pipeline.serve.access import Gate
from pipeline.serve.api import api_routes, picture_routes
from pipeline.serve.assets import STATIC
from pipeline.serve.board import Board
from pipeline.serve.control import Control
from pipeline.serve.health import health_routes
from pipeline.serve.problems import install_problems

ABOUT = "Watch a running line, and change what it does. Errors are problem documents (RFC 9457)."


def build_app(board: Board, control: Control, *, token: str | None, port: int) -> ASGIApp:
    """The application, behind its gate."""
    # The usual documentation page loads its scripts from another host; /docs is our own.
    version = installed_version("boxstream") or "not installed"
    app = FastAPI(
        title="boxstream", version=version, description=ABOUT, docs_url=None, redoc_url=None
    )
    install_problems(app)
    app.include_router(api_routes(board, control), tags=["sources"])
    app.include_router(picture_routes(board), tags=["pictures"])
    app.include_router(health_routes(board, control), tags=["health"])

    @app.get("/", include_in_schema=False)
    def index() -> FileResponse:
        return FileResponse(STATIC / "index.html")

    @app.get("/docs", include_in_schema=False)
    def docs() -> FileResponse:
        return FileResponse(STATIC / "docs.html")

    app.mount("/static", StaticFiles(directory=STATIC))
    return Gate(app, token=token, port=port)
