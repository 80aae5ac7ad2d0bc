"""``/api``: list, add, pause and remove sources and set thresholds, while the line runs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from urllib.parse import quote

from fastapi import APIRouter, Response
from starlette.responses import StreamingResponse

from pipeline.serve.board import Board, Feed
from pipeline.serve.control import Control, UnknownSource
from pipeline.serve.jpeg import to_jpeg
from pipeline.serve.requests import AddSource, ChangeDetection, ChangeSource
from pipeline.serve.streams import BOUNDARY, multipart, no_signal_part, packed, pictures, states
from pipeline.serve.views import SourceView, StateView, see_everything, see_sources

_LIVE = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}  # no proxy shall collect it
_COMING_BACK = (
    "A camera that was removed may come back under its name, once its outputs are finished (409 "
    "until then). Its counters and thresholds begin anew, which Prometheus takes for a reset of "
    "its counters; in the report the earlier ones are `NAME~1`, `NAME~2`... Its outputs go on as "
    "in another run; where they are a folder of pictures, it needs another name (422)."
)


def api_routes(board: Board, control: Control) -> APIRouter:
    """Everything that works on sources."""
    router = APIRouter(prefix="/api")

    @router.get("/sources", summary="List the sources")
    def list_sources() -> list[SourceView]:
        return see_sources(board, control)

    @router.post("/sources", status_code=201, summary="Add a camera", description=_COMING_BACK)
    def add_source(wish: AddSource, response: Response) -> SourceView:
        name = control.add(wish.url, wish.name)
        response.headers["Location"] = f"/api/sources/{quote(name)}"
        return _seen(board, control, name)

    @router.get("/sources/{name:path}", summary="One source")
    def show_source(name: str) -> SourceView:
        return _seen(board, control, name)

    @router.patch("/sources/{name:path}", summary="Pause a source, or set its thresholds")
    def change_source(name: str, wish: ChangeSource) -> SourceView:
        if wish.changes_thresholds:
            given, (value, by_class) = wish.model_fields_set, control.source_thresholds(name)
            value = wish.threshold if "threshold" in given else value
            by_class = wish.class_thresholds if "class_thresholds" in given else by_class
            control.set_source_threshold(name, value, by_class)
        if wish.paused is not None:
            control.pause(name, wish.paused)
        return _seen(board, control, name)

    @router.delete("/sources/{name:path}", status_code=204, summary="Remove a source")
    def remove_source(name: str) -> None:
        feed = board.feed(name)
        control.remove(name)
        if feed:
            board.forget(feed)

    @router.patch("/detection", summary="Set the thresholds")
    def change_detection(wish: ChangeDetection) -> StateView:
        engine, given = control.engine(), wish.model_fields_set
        threshold = wish.threshold if "threshold" in given else engine.get("threshold")
        by_class = wish.class_thresholds
        if by_class is None:
            by_class = dict(engine.get("class_thresholds", {}))
        control.set_threshold(threshold, by_class)
        return see_everything(board, control)

    @router.get("/state", summary="Everything the page shows, but the pictures")
    def state() -> StateView:
        return see_everything(board, control)

    @router.get("/events", summary="The same once a second, as server-sent events")
    async def events() -> StreamingResponse:
        def text() -> str:
            return see_everything(board, control).model_dump_json()

        return _live(states(board, text), "text/event-stream")

    return router


def picture_routes(board: Board) -> APIRouter:
    """Everything that sends pictures."""
    router = APIRouter()

    @router.get("/pictures", summary="All pictures on one connection, as the page reads them")
    async def all_pictures() -> StreamingResponse:
        silence = b'{"source": null, "bytes": 0}\n'
        stream = pictures(board, packed, lambda: silence)
        return _live(stream, "application/octet-stream")

    @router.get("/streams/{name:path}.mjpg", summary="One source as MJPEG")
    async def mjpeg(name: str) -> StreamingResponse:
        _feed(board, name)
        stream = pictures(board, multipart, partial(no_signal_part, board, name), only=name)
        return _live(_opened(stream), f"multipart/x-mixed-replace; boundary={BOUNDARY}")

    @router.get("/snapshots/{name:path}.jpg", summary="The newest picture in full resolution")
    def snapshot(name: str) -> Response:
        shot = _feed(board, name).shot
        if shot is None:
            raise UnknownSource(f"source {name!r} has shown no picture yet; try again later")
        return Response(to_jpeg(shot.result), media_type="image/jpeg", headers=_LIVE)

    return router


def _seen(board: Board, control: Control, name: str) -> SourceView:
    for view in see_sources(board, control, only=name):
        return view
    raise _unknown(name)


def _feed(board: Board, name: str) -> Feed:
    feed = board.feed(name)
    if feed is None:
        raise _unknown(name)
    return feed


def _unknown(name: str) -> UnknownSource:
    return UnknownSource(f"there is no source {name!r}; see GET /api/sources for those there are")


def _live(stream: AsyncIterator[bytes], media_type: str) -> StreamingResponse:
    return StreamingResponse(stream, media_type=media_type, headers=_LIVE)


async def _opened(stream: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield f"--{BOUNDARY}\r\n".encode()
    async for chunk in stream:
        yield chunk
