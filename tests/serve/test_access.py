"""Who may look, and who may change something."""

from __future__ import annotations

import logging
import time
from http.client import HTTPConnection

import pytest
from starlette.datastructures import URL
from starlette.requests import Request

from tests.serve.client import PATIENCE_SECONDS, ask
from tests.waiting import until

TOKEN = "correct-horse-battery"
EVERYWHERE = "http://0.0.0.0:0"
PRIVATE = ["/", "/docs", "/openapi.json", "/metrics", "/api/sources", "/api/state", "/api/events"]
PRIVATE += ["/pictures", "/streams/front.mjpg", "/snapshots/front.jpg"]


@pytest.fixture
def guarded(serve):
    """A page that is open to all interfaces."""
    return serve("front", url=f"{EVERYWHERE}?token={TOKEN}")


@pytest.mark.parametrize("path", PRIVATE)
def test_nothing_private_is_shown_without_the_token(guarded, path):
    for headers in (
        {},
        {"Authorization": "Bearer wrong-horse-battery"},
        {"Authorization": "Bearer"},
        {"Authorization": f"Basic {TOKEN}"},
        {"Cookie": f"boxstream_{guarded.client.port}={TOKEN}"},
        {"Cookie": f"boxstream_{guarded.client.port}="},
    ):
        answer = guarded.client.ask("GET", path, headers=headers)
        assert answer.status == 401
        assert answer.headers["www-authenticate"] == "Bearer"
        assert "Authorization: Bearer" in answer.json["remedy"]


@pytest.mark.parametrize(
    ("way", "path", "headers", "detail"),
    [
        ("GET", "/api/sources", {}, "a token is needed"),
        ("GET", "/api/sources", {"Authorization": f"Basic {TOKEN}"}, "a token is needed"),
        ("GET", "/api/sources", {"Authorization": "Bearer horse"}, "the token is wrong"),
        ("GET", "/api/sources?token=horse", {}, "the token is wrong"),
        ("POST", f"/api/sources?token={TOKEN}", {}, "a token is needed"),  # in the header
    ],
)
def test_a_wrong_token_is_told_from_none(guarded, way, path, headers, detail):
    answer = guarded.client.ask(way, path, headers=headers)
    assert (answer.status, answer.json["detail"]) == (401, detail)


def test_the_path_that_counts_is_the_one_that_is_served(guarded, monkeypatch):
    """Starlette before 1.0.1 takes the URL's path from a Host header such as ``x/live?``."""
    monkeypatch.setattr(Request, "url", URL("http://x/live?"))
    assert guarded.client.get("/api/sources").status == 401
    first = guarded.client.get(f"/docs?token={TOKEN}")
    assert (first.status, first.headers["location"]) == (303, "/docs")


def test_a_request_that_changes_something_needs_the_token_too(guarded):
    body = {"url": "rtsp://camera/1"}
    assert guarded.client.ask("POST", "/api/sources", body).status == 401
    assert guarded.client.ask("DELETE", "/api/sources/front").status == 401
    # In the URL it would be too easily sent by a foreign page's form.
    assert guarded.client.ask("POST", f"/api/sources?token={TOKEN}", body).status == 401
    assert guarded.control.urls == []
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    assert guarded.client.ask("POST", "/api/sources", body, bearer).status == 201


def test_liveness_is_for_everybody_and_readiness_hides_its_reasons(guarded):
    guarded.control.stats["front"].changed("BACKOFF", "refused")
    assert guarded.client.get("/live").status == 200
    stranger = guarded.client.get("/ready")
    assert (stranger.status, stranger.json["reasons"]) == (503, [])
    known = guarded.client.get("/ready", Authorization=f"Bearer {TOKEN}")
    assert known.json["reasons"] == ["source 'front' is BACKOFF"]


def test_the_first_visit_with_the_token_leaves_a_cookie_and_hides_the_token(guarded):
    first = guarded.client.get(f"/?token={TOKEN}", Accept="text/html")
    assert (first.status, first.headers["location"]) == (303, "/")
    cookie = first.headers["set-cookie"]
    assert TOKEN not in cookie
    assert "HttpOnly" in cookie
    assert "samesite=lax" in cookie.lower()
    assert first.headers["referrer-policy"] == "no-referrer"
    again = guarded.client.get("/", Cookie=cookie.partition(";")[0])
    assert again.status == 200
    assert b"boxstream" in again.body


def test_a_stranger_with_a_browser_is_asked_for_the_token(guarded):
    answer = guarded.client.get("/", Accept="text/html,*/*")
    assert answer.status == 401
    assert b'name="token"' in answer.body
    assert guarded.client.get("/static/style.css").status == 200


def test_a_program_may_put_the_token_into_the_url_of_a_picture(guarded):
    assert guarded.client.get(f"/api/sources?token={TOKEN}").status == 200


def test_on_this_machine_a_foreign_name_for_it_is_refused(serve):
    """A web page may have its own name point to 127.0.0.1, and would then be "same origin"."""
    client = serve("front").client
    foreign = ("evil.example", f"evil.example:{client.port}", "127.0.0.1.evil.example")
    for host in (*foreign, "{.evil.example", "[::1", ""):
        assert client.get("/api/sources", Host=host).status == 403
    for host in ("localhost", f"127.0.0.1:{client.port}", "[::1]:80"):
        assert client.get("/api/sources", Host=host).status == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"},
    ],
)
def test_another_web_page_cannot_change_anything(serve, headers):
    served = serve("front")
    for method, path, body in (
        ("POST", "/api/sources", {"url": "rtsp://camera/1"}),
        ("PATCH", "/api/sources/front", {"paused": True}),
        ("DELETE", "/api/sources/front", None),
    ):
        assert served.client.ask(method, path, body, headers).status == 403
    assert served.control.urls == []
    assert served.control.stats["front"].state == "RUNNING"


def test_another_web_page_may_lead_here_but_not_embed_or_fetch(serve):
    client = serve("front").client
    elsewhere = {"Sec-Fetch-Site": "cross-site"}
    assert client.ask("GET", "/", headers=elsewhere | {"Sec-Fetch-Mode": "navigate"}).status == 200
    assert client.ask("GET", "/api/state", headers=elsewhere).status == 403
    assert client.ask("GET", "/", headers={"Sec-Fetch-Site": "same-origin"}).status == 200


def test_what_a_foreign_form_could_send_is_refused(serve):
    served = serve()
    body = b'{"url": "rtsp://camera/1"}'
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
        answer = served.client.ask("POST", "/api/sources", body, {"Content-Type": kind})
        assert answer.status == 415
    assert served.control.urls == []


def test_a_huge_body_is_refused(serve):
    kind = {"Content-Type": "application/json"}
    answer = serve().client.ask("POST", "/api/sources", b" " * 70_000, kind)
    assert answer.status == 413


def test_a_body_without_an_end_is_neither_kept_nor_read_for_ever(serve):
    served = serve(patience=0.5)
    piece = b"4000\r\n" + b" " * 0x4000 + b"\r\n"
    with served.client.connect() as bare:
        bare.sendall(
            b"POST /api/sources HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )
        deadline = time.monotonic() + PATIENCE_SECONDS
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            while time.monotonic() < deadline:
                bare.sendall(piece)


@pytest.mark.parametrize("path", ["/", "/static/page.js", "/api/state", "/nowhere"])
def test_every_answer_forbids_what_the_page_does_not_need(serve, path):
    headers = serve("front").client.get(path).headers
    policy = headers["content-security-policy"]
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy
    assert "http" not in policy
    assert headers["x-content-type-options"] == "nosniff"


def test_nothing_that_is_secret_reaches_a_log(serve, caplog, capfd):
    caplog.set_level(logging.DEBUG)
    served = serve("front", url=f"{EVERYWHERE}?token={TOKEN}")
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    served.client.get(f"/?token={TOKEN}")
    served.client.get("/?token=wrong-horse-battery")
    url = "rtsp://admin:hunter22@refuse.example/1"
    answer = served.client.ask("POST", "/api/sources", {"url": url}, bearer)
    assert answer.status == 422
    served.client.ask("POST", "/api/sources", {"url": "ftp://admin:hunter22@host"}, bearer)
    served.control.engine = None
    assert served.client.get("/api/state", **bearer).status == 500
    output = capfd.readouterr()
    for text in (caplog.text, output.out, output.err, answer.body.decode(), served.page.url):
        assert TOKEN not in text
        assert "hunter22" not in text


def test_the_log_says_where_the_server_failed_but_not_with_what(serve, caplog):
    served = serve("front")

    def pick_lock() -> None:
        raise ValueError(f"rtsp://admin:{TOKEN}@host/1 cannot be opened")

    def open_door() -> None:
        try:
            pick_lock()
        except ValueError as error:
            raise KeyError(TOKEN) from error

    served.control.engine = open_door
    answer = served.client.get("/api/state")
    assert answer.status == 500
    assert "look into the log" in answer.body.decode()
    (entry,) = (record for record in caplog.records if record.levelno >= logging.ERROR)
    text = entry.getMessage()
    for word in ("KeyError", "ValueError", "in open_door", "in pick_lock", "test_access.py"):
        assert word in text
    assert TOKEN not in caplog.text + answer.body.decode()


def test_who_connects_and_asks_nothing_is_let_go(serve):
    served = serve(patience=0.5)
    with served.client.connect() as silent, served.client.connect() as half:
        half.sendall(b"GET /live HTTP/1.1\r\nHost: loc")
        assert silent.recv(1) == b""
        assert half.recv(1) == b""


def test_the_number_of_connections_is_bounded_and_others_get_their_turn_again(serve):
    served = serve(patience=2.0)
    crowd = [served.client.connect() for _ in range(300)]
    try:
        until(lambda: alive(served), what="a place is free again")
    finally:
        for one in crowd:
            one.close()


def alive(served) -> bool:
    try:
        connection = HTTPConnection(served.client.host, served.client.port, timeout=5)
        return ask(connection, "GET", "/live").status == 200
    except OSError:
        return False
    finally:
        connection.close()
