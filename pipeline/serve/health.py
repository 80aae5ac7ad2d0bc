"""``/live``, ``/ready`` and ``/metrics``, for systemd, Kubernetes and Prometheus."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel

from pipeline.engines.watch import SILENT_SECONDS
from pipeline.serve.board import Board
from pipeline.serve.control import Control
from pipeline.serve.exposition import metrics_text


class Readiness(BaseModel):
    """Whether results come out, and if not, why."""

    ready: bool
    reasons: list[str]


def health_routes(board: Board, control: Control) -> APIRouter:
    """What machines ask."""
    router = APIRouter()

    @router.get("/live", summary="Whether the process answers")
    def live() -> dict[str, bool]:
        return {"live": True}

    @router.get("/ready", summary="Whether the engine answers and a source runs")
    def ready(request: Request, response: Response) -> Readiness:
        reasons = _reasons(control)
        response.status_code = 503 if reasons else 200
        shown = reasons if request.state.is_known else []  # they name sources
        return Readiness(ready=not reasons, reasons=shown)

    @router.get("/metrics", summary="Counters for Prometheus")
    def metrics() -> Response:
        return Response(metrics_text(board, control), media_type="text/plain; version=0.0.4")

    return router


def _reasons(control: Control) -> list[str]:
    """Why nothing can come out."""
    engine = control.engine()
    reasons = [] if engine else ["the engine is being loaded"]
    silent = engine.get("silent_seconds", 0.0)
    if silent > SILENT_SECONDS:
        reasons.append(f"the engine has not answered for {silent:.0f} s")
    sources = control.sources()
    if any(stats.state == "RUNNING" for stats in sources):
        return reasons
    states = [f"source {stats.name!r} is {stats.state}" for stats in sources]
    return reasons + (states or ["there is no source"])
