"""Who may see the page and use the API, decided before anything else is done.

- With a token: who shows it, as ``Authorization: Bearer``, as ``?token=``, or as the cookie that
  a browser gets for its first visit with ``?token=``.
- Without one, on the loopback interface: who names this machine as such. A web page from
  elsewhere that has its own name point here is refused, because it asks for its own name.
- Web pages from elsewhere may lead here, but neither fetch, nor embed, nor change anything.

For everybody are only ``/live``, ``/ready`` without its reasons, and the page's style and scripts.

Nothing here reads `Request.url`: Starlette puts it together from what the client claims, and
where it cannot, from something else than the claim.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from collections.abc import MutableMapping
from typing import Any
from urllib.parse import urlencode, urlsplit

import anyio
from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import FileResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pipeline.serve.assets import STATIC
from pipeline.serve.problems import problem

OPEN_PATHS = ("/live", "/ready", "/static/")
LARGEST_BODY = 64 * 1024  # bytes
BODY_SECONDS = 10.0  # for a request to arrive in full
_COOKIE_SECONDS = 30 * 24 * 3600

SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; base-uri 'none'; form-action 'self'; "
        "frame-ancestors 'none'; require-trusted-types-for 'script'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class Gate:
    """Stand before the application; let through who may pass."""

    def __init__(self, app: ASGIApp, *, token: str | None, port: int) -> None:
        self._app, self._token = app, token
        self._cookie = f"boxstream_{port}"  # cookies know no ports: two pages, two names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        request = Request(scope)
        answer = self._refusal(request) or self._welcome(request)
        if answer is not None:
            await answer(scope, receive, _with_headers(send))
        else:
            limited = receive if request.method in {"GET", "HEAD"} else _limited(receive)
            await self._app(scope, limited, _with_headers(send))

    def _refusal(self, request: Request) -> Response | None:
        """Why a request does not pass; None if it does."""
        if self._token is None and not _names_this_machine(request):
            return problem(
                403,
                "without a token the page is for this machine only",
                "ask for 127.0.0.1 or localhost, or start boxstream with a token",
            )
        if _comes_from_elsewhere(request):
            return problem(
                403, "this request comes from another web page", "use this server's own page"
            )
        request.state.is_known = self._is_known(request)
        if not request.state.is_known and not request.scope["path"].startswith(OPEN_PATHS):
            return self._stranger(request)
        return _unfit_body(request)

    def _is_known(self, request: Request) -> bool:
        if self._token is None:
            return True
        shown = [
            *(_same(token, self._token) for token in _tokens_of(request)),
            _same(request.cookies.get(self._cookie, ""), _cookie_for(self._token)),
        ]
        return any(shown)

    def _stranger(self, request: Request) -> Response:
        if "text/html" in request.headers.get("accept", "") and request.method == "GET":
            return FileResponse(STATIC / "token.html", 401, headers={"Cache-Control": "no-store"})
        detail = "the token is wrong" if any(_tokens_of(request)) else "a token is needed"
        remedy = "send the header 'Authorization: Bearer TOKEN', or visit /?token=TOKEN once"
        return problem(401, detail, remedy, {"WWW-Authenticate": "Bearer"})

    def _welcome(self, request: Request) -> Response | None:
        """A first visit with the token in the URL: keep it in a cookie, and out of sight."""
        asks_for_page = request.method == "GET" and request.scope["path"] in {"/", "/docs"}
        if self._token is None or not asks_for_page or "token" not in request.query_params:
            return None
        rest = [(k, v) for k, v in request.query_params.multi_items() if k != "token"]
        there = request.scope["path"] + (f"?{urlencode(rest)}" if rest else "")
        answer = RedirectResponse(there, 303)
        answer.set_cookie(
            self._cookie,
            _cookie_for(self._token),
            max_age=_COOKIE_SECONDS,
            httponly=True,
            samesite="lax",  # strict would lose it on the way from a link in a message
        )
        return answer


def _tokens_of(request: Request) -> tuple[str, str]:
    """What is shown as a token: in the header, and in the URL, where that counts."""
    scheme, _, bearer = request.headers.get("authorization", "").partition(" ")
    in_url = request.query_params.get("token", "") if request.method == "GET" else ""
    return bearer.strip() if scheme.lower() == "bearer" else "", in_url


def _cookie_for(token: str) -> str:
    """What a browser keeps: good for this page, and no way back to the token."""
    return hmac.new(token.encode(), b"boxstream page", hashlib.sha256).hexdigest()


def _same(given: str, wanted: str) -> bool:
    """Compare in a time that tells nothing."""
    return hmac.compare_digest(given.encode(), wanted.encode())


def _names_this_machine(request: Request) -> bool:
    """Whether it is asked for by such a name; who gives none at all is no browser."""
    try:
        name = urlsplit(f"//{request.headers.get('host', 'localhost')}").hostname or ""
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _comes_from_elsewhere(request: Request) -> bool:
    """Whether another web page is behind it; a link to the page or a snapshot may be."""
    reads = request.method in {"GET", "HEAD"}
    site = request.headers.get("sec-fetch-site")
    if site is not None:  # browsers send it where it can be trusted
        is_link = reads and request.headers.get("sec-fetch-mode") == "navigate"
        return site not in {"same-origin", "none"} and not is_link
    origin = request.headers.get("origin")
    if origin is None or reads:
        return False
    return urlsplit(origin).netloc.lower() != request.headers.get("host", "").lower()


def _unfit_body(request: Request) -> Response | None:
    """Refuse a body that is too large or of a kind that any web page's form could send."""
    if request.method in {"GET", "HEAD", "DELETE"}:
        return None
    length = request.headers.get("content-length", "0")
    if not length.isdecimal() or int(length) > LARGEST_BODY:
        return problem(413, "the request is too large", f"send at most {LARGEST_BODY} bytes")
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        return problem(415, "expected JSON", "send the header 'Content-Type: application/json'")
    return None


def _limited(receive: Receive) -> Receive:
    """Receive a body of bounded size in bounded time; else the client is taken for gone."""
    left, deadline = LARGEST_BODY, anyio.current_time() + BODY_SECONDS

    async def limited() -> MutableMapping[str, Any]:
        nonlocal left
        with anyio.move_on_at(deadline) if left >= 0 else anyio.CancelScope() as scope:
            message = await receive()
        if scope.cancelled_caught:
            return {"type": "http.disconnect"}
        left -= len(message.get("body", b""))
        return {"type": "http.disconnect"} if left < 0 else message

    return limited


def _with_headers(send: Send) -> Send:
    """Add what keeps browsers from doing more than the page needs."""

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in SECURITY_HEADERS.items():
                headers.setdefault(name, value)
            headers.setdefault("Cache-Control", "no-cache")
        await send(message)

    return sending
