"""Errors as problem documents (RFC 9457), each with what to do about it."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Iterator
from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from pipeline.errors import PipelineError
from pipeline.redaction import without_secrets
from pipeline.serve.control import LineNotRunning, NameTaken, UnknownSource

log = logging.getLogger(__name__)


def problem(
    status: int, detail: str, remedy: str, headers: dict[str, str] | None = None
) -> JSONResponse:
    """One error as the client gets it."""
    content = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "remedy": remedy,
    }
    media_type = "application/problem+json"
    return JSONResponse(content, status, headers=headers, media_type=media_type)


def install_problems(app: FastAPI) -> None:
    """Have every error of `app` answered by a problem document."""
    app.add_exception_handler(PipelineError, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _other)
    app.add_exception_handler(500, _unexpected)


def _refused(_request: Request, error: Exception) -> JSONResponse:
    """What the line would not do; its sentences say the remedy after the first semicolon."""
    statuses = {UnknownSource: 404, NameTaken: 409, LineNotRunning: 503}
    status = next((code for kind, code in statuses.items() if isinstance(error, kind)), 422)
    sentence = without_secrets(str(error))
    detail, _, remedy = sentence.partition("; ")
    return problem(status, detail, remedy or "see GET /api/sources for what there is")


def _invalid(_request: Request, error: Exception) -> JSONResponse:
    """A request that does not fit its description; what was sent is not repeated."""
    assert isinstance(error, RequestValidationError)
    found = "; ".join(
        f"{'.'.join(str(step) for step in entry['loc'][1:]) or 'body'}: {_own_words(entry['msg'])}"
        for entry in error.errors()
    )
    return problem(422, found, "see /docs for what this request takes")


def _own_words(message: str) -> str:
    """Without what pydantic puts before the sentence of a check of ours."""
    return message.removeprefix("Value error, ")


def _other(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    return problem(error.status_code, error.detail, "see /docs for what there is")


def _unexpected(request: Request, error: Exception) -> JSONResponse:
    way = "".join(_way_of(error))
    log.error("%s in %s %s\n%s", type(error).__name__, request.method, request.url.path, way)
    return problem(500, "the server failed; the line itself goes on", "look into the log")


def _way_of(error: BaseException | None) -> Iterator[str]:
    """A traceback, and those of what led to it, without their messages.

    A message may repeat an address with its password, or a token.
    """
    while error is not None:
        yield f"{type(error).__name__} came from\n"
        yield from traceback.format_tb(error.__traceback__)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
