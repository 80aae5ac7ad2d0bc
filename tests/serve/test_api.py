"""Sources come, pause and go at run time, and thresholds change."""

from __future__ import annotations

import gc
import os
import threading
from http.client import HTTPConnection

import pytest

from pipeline.machine import installed_version
from pipeline.serve import LineNotRunning
from pipeline.sinks.protocol import SinkTarget
from tests.alone import alone
from tests.serve.client import PATIENCE_SECONDS, ask
from tests.serve.line import CLASSES, result
from tests.serve.served import serving


def test_the_list_says_everything_about_a_source(serve):
    served = serve("front", "back")
    stats = served.control.stats["front"]
    stats.frames_decoded, stats.frames_inferred = 10, 7
    stats.frames_dropped["stale"] = 2
    served.control.stats["back"].changed("BACKOFF", "refused", "connection refused")
    served.sinks["front"].write(result(found=[(0, 0.9), (0, 0.7), (1, 0.8)]))
    front, back = served.client.get("/api/sources").json
    assert (front["name"], front["state"], front["connections"]) == ("front", "RUNNING", 1)
    assert front["frames_dropped"] == {"stale": 2}
    assert front["frames_in_flight"] == 1
    assert front["size_hw"] == [48, 64]
    assert front["picture_age_seconds"] < PATIENCE_SECONDS
    seen = {one["label"]: (one["count"], one["score"]) for one in front["sightings"]}
    assert seen == {"car": (2, 0.9), "person": (1, 0.8)}
    assert (back["state"], back["cause"], back["fps"]) == ("BACKOFF", "refused", None)
    assert back["detail"] == "connection refused"
    assert served.client.get("/api/sources/back").json == back


def test_an_outage_goes_on_while_attempts_to_connect_come_and_go(serve):
    served = serve("front")
    stats = served.control.stats["front"]
    stats.changed("STALLED", "stalled", "nothing came for 3 s")
    began = stats.events[-1].wall_time
    for _ in range(5):
        stats.changed("CONNECTING")
        stats.changed("BACKOFF", "refused", "nobody listens there")
    stats.changed("CONNECTING")
    front = served.client.get("/api/sources/front").json
    assert (front["since"], front["cause"]) == (began, "refused")
    assert front["detail"] == "nobody listens there"
    stats.changed("RUNNING")
    front = served.client.get("/api/sources/front").json
    assert (front["since"], front["cause"]) == (stats.events[-1].wall_time, None)


def test_a_camera_is_added_and_removed(serve):
    served = serve()
    answer = served.client.ask("POST", "/api/sources", {"url": "rtsp://cam/1", "name": "yard 2"})
    assert answer.status == 201
    assert answer.headers["location"] == "/api/sources/yard%202"
    assert answer.json["state"] == "CONNECTING"
    assert served.control.urls == ["rtsp://cam/1"]
    assert served.client.ask("DELETE", "/api/sources/yard%202").status == 204
    assert served.client.get("/api/sources").json == []


def test_a_removed_source_leaves_no_picture_behind(serve):
    served = serve("front")
    served.sinks["front"].write(result())
    assert served.client.get("/snapshots/front.jpg").status == 200
    served.client.ask("DELETE", "/api/sources/front")
    served.sinks["front"].write(result(index=1))  # the line had one more under way
    assert served.client.get("/snapshots/front.jpg").status == 404
    assert served.page.board.names() == []


def test_a_source_is_paused_and_goes_on(serve):
    served = serve("front")
    assert served.client.ask("PATCH", "/api/sources/front", {"paused": True}).json["state"] == (
        "PAUSED"
    )
    assert served.client.ask("PATCH", "/api/sources/front", {"paused": False}).json["state"] == (
        "CONNECTING"
    )


def test_thresholds_change_and_what_is_left_out_stays(serve):
    served = serve()
    change = served.client.ask("PATCH", "/api/detection", {"threshold": 0.25})
    assert change.json["engine"]["threshold"] == 0.25
    served.client.ask("PATCH", "/api/detection", {"class_thresholds": {"person": 0.8}})
    assert (served.control.threshold, served.control.class_thresholds) == (0.25, {"person": 0.8})
    served.client.ask("PATCH", "/api/detection", {"threshold": None})
    assert (served.control.threshold, served.control.class_thresholds) == (None, {"person": 0.8})


def test_one_source_has_thresholds_of_its_own_until_they_are_given_back(serve):
    served = serve("front", "back")

    def change(**wish):
        seen = served.client.ask("PATCH", "/api/sources/front", wish).json
        assert seen == served.client.get("/api/sources/front").json
        return seen["threshold"], seen["class_thresholds"], seen["state"]

    assert change(threshold=0.25) == (0.25, None, "RUNNING")
    assert change(class_thresholds={"person": 0.8}) == (0.25, {"person": 0.8}, "RUNNING")
    assert change(threshold=None, paused=True) == (None, {"person": 0.8}, "PAUSED")
    assert change(class_thresholds={}) == (None, {}, "PAUSED")
    assert change(class_thresholds=None, threshold=0.5, paused=False) == (0.5, None, "CONNECTING")
    back = served.client.get("/api/sources/back").json
    assert (back["threshold"], back["class_thresholds"], back["state"]) == (None, None, "RUNNING")
    assert served.control.threshold == 0.5, "that of the line"


def test_the_description_of_the_api_tells_of_thresholds_of_one_source(serve):
    schemas = serve().client.get("/openapi.json").json["components"]["schemas"]
    for name in ("ChangeSource", "SourceView"):
        assert {"threshold", "class_thresholds"} <= set(schemas[name]["properties"])


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("DELETE", "/api/sources/nobody", None, 404),
        ("PATCH", "/api/sources/nobody", {"paused": True}, 404),
        ("GET", "/api/sources/nobody", None, 404),
        ("GET", "/snapshots/nobody.jpg", None, 404),
        ("GET", "/streams/nobody.mjpg", None, 404),
        ("GET", "/snapshots/front.jpg", None, 404),
        ("GET", "/nowhere", None, 404),
        ("PUT", "/api/sources", {}, 405),
        ("POST", "/api/sources", {"url": "rtsp://cam/1", "name": "front"}, 409),
        ("POST", "/api/sources", {"url": "rtsp://refuse/1"}, 422),
        ("POST", "/api/sources", {"url": "rtsp://cam/1", "name": "../etc"}, 422),
        ("POST", "/api/sources", {"url": "rtsp://cam/1", "speed": 2}, 422),
        ("POST", "/api/sources", {}, 422),
        ("POST", "/api/sources", b"{", 422),
        ("PATCH", "/api/sources/front", {"paused": "yes"}, 422),
        ("PATCH", "/api/sources/front", {}, 422),
        ("PATCH", "/api/sources/front", {"paused": None}, 422),
        ("PATCH", "/api/sources/front", {"threshold": 1.5}, 422),
        ("PATCH", "/api/sources/front", {"class_thresholds": {"unicorn": 0.5}}, 422),
        ("PATCH", "/api/sources/nobody", {"threshold": 0.5}, 404),
        ("PATCH", "/api/detection", {"threshold": 1.5}, 422),
        ("PATCH", "/api/detection", b'{"threshold": NaN}', 422),
        ("PATCH", "/api/detection", {"class_thresholds": {"unicorn": 0.5}}, 422),
    ],
)
def test_an_error_is_a_problem_document_with_a_remedy(serve, method, path, body, status):
    kind = {"Content-Type": "application/json"} if isinstance(body, bytes) else None
    answer = serve("front").client.ask(method, path, body, kind)
    assert answer.status == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json["status"] == status
    assert answer.json["detail"]
    assert answer.json["remedy"]


def test_what_is_no_camera_is_told_in_our_own_words(serve):
    answer = serve().client.ask("POST", "/api/sources", {"url": "/etc/passwd"})
    assert answer.json["detail"].startswith("url: expected a camera")


def test_a_line_that_does_not_run_is_unavailable_and_says_why(serve, monkeypatch):
    def refuse(*_: object) -> None:
        raise LineNotRunning("the line has ended; try again if another one follows")

    served = serve("front")
    for order in ("add", "remove", "pause", "set_threshold"):
        monkeypatch.setattr(served.control, order, refuse)
    for method, path, body in (
        ("POST", "/api/sources", {"url": "rtsp://cam/1"}),
        ("DELETE", "/api/sources/front", None),
        ("PATCH", "/api/sources/front", {"paused": True}),
        ("PATCH", "/api/detection", {"threshold": 0.5}),
    ):
        answer = served.client.ask(method, path, body)
        assert answer.status == 503
        assert answer.json["detail"] == "the line has ended"
        assert answer.json["remedy"] == "try again if another one follows"
    assert served.client.get("/api/sources").status == 200


@pytest.mark.parametrize(
    "url",
    [
        "rtsp://user:pass@cam:554/1",
        "rtsps://cam/1",
        "http://cam/video.mjpg",
        "https://cam/live.m3u8",
        "srt://cam:9000",
        "camera:0",
        "synthetic://street?seed=1",
        "replay:synthetic://street",
    ],
)
def test_cameras_may_be_added(serve, url):
    served = serve()
    assert served.client.ask("POST", "/api/sources", {"url": url}).status == 201
    assert served.control.urls == [url]


@pytest.mark.parametrize(
    "url",
    [
        "/home/me/private.mp4",
        "private.mp4",
        "file:///home/me/private.mp4",
        "FILE:///home/me/private.mp4",
        "replay:/home/me/private.mp4",
        "replay:file:///home/me/private.mp4",
        "/dev/video0",
        "camera:/dev/video0",
        "camera:123",  # no camera has such a number: it would be a file's name
        "camera:\u0663",
        "\thttp://cam/1",
        "ht\ntp://cam/../../private.mp4",
        "replay:http://cam/1",
        "replay:rtsp:/home/me/private.mp4",
        "pipe:0",
        "fd:0",
        "data:video/mp4;base64,AAAA",
        "tcp://cam:9000",
        "unix:/home/me/private",
        "$PRIVATE",
        "concat:/home/me/a.ts|/home/me/b.ts",
        "rtsp:/home/me/private.mp4",
        "rtsp://",
        "rtsp://cam:port/1",
        "subfile,,start,0,end,0,,:/home/me/private.mp4",
        "synthetic:/home/me",
        "",
    ],
)
def test_files_may_not_be_added(serve, url):
    """Else any program that reaches the page could look at what only boxstream may read."""
    served = serve()
    answer = served.client.ask("POST", "/api/sources", {"url": url})
    assert answer.status == 422
    assert "private" not in answer.body.decode()
    assert served.control.urls == []


@pytest.mark.parametrize(
    "url",
    [
        "http://elsewhere/1#credentials=/home/me/private",
        "rtsp://user:pass@cam/1#name=door&credentials=/home/me/private",
        "rtsp://cam/1?channel=1#credentials=/home/me/private&fps=5",
        "rtsp://cam/1#credentials",
        "replay:synthetic://street#credentials=/home/me/private",
        "synthetic://street?seed=1#a#credentials=/home/me/private",
    ],
)
def test_a_file_with_a_password_may_not_be_sent_to_an_added_camera(serve, url):
    served = serve()
    answer = served.client.ask("POST", "/api/sources", {"url": url})
    assert answer.status == 422
    assert "user:password@" in answer.json["detail"], "what to do instead"
    assert "private" not in answer.body.decode()
    assert served.control.urls == []


def test_an_added_camera_may_call_its_own_query_credentials(serve):
    served = serve()
    url = "http://cam/1?door=1&credentials=abc#stride=2"
    assert served.client.ask("POST", "/api/sources", {"url": url}).status == 201
    assert served.control.urls == [url]


def test_the_openapi_document_describes_every_path(serve):
    client = serve().client
    document = client.get("/openapi.json").json
    assert document["info"]["version"] == installed_version("boxstream")
    paths = document["paths"]
    assert {"/api/sources", "/api/sources/{name}", "/api/detection", "/metrics"} <= paths.keys()
    assert client.get("/docs").status == 200


@pytest.mark.slow
def test_a_thousand_comings_and_goings_leave_nothing_behind():
    before, after = alone(a_thousand_comings_and_goings)
    assert after["threads"] <= before["threads"] + 1
    assert after["descriptors"] <= before["descriptors"] + 1
    assert after["objects"] - before["objects"] < 2000
    assert after["megabytes"] - before["megabytes"] < 15


def a_thousand_comings_and_goings() -> tuple[dict[str, float], dict[str, float]]:
    with serving("stays") as served:
        client = served.client
        connection = HTTPConnection(client.host, client.port, timeout=PATIENCE_SECONDS)

        def come_and_go(rounds: int) -> None:
            for number in range(rounds):
                name = f"camera-{number % 7}"
                wish = {"url": f"rtsp://user:pass@cam/{number}", "name": name}
                assert ask(connection, "POST", "/api/sources", wish).status == 201
                with served.page.sink(SinkTarget(name, CLASSES)) as sink:
                    sink.write(result(name, number))
                assert ask(connection, "DELETE", f"/api/sources/{name}").status == 204

        come_and_go(200)
        before = footprint()
        come_and_go(1000)
        after = footprint()
        connection.close()
        assert served.page.board.names() == ["stays"]
        return before, after


def footprint() -> dict[str, float]:
    gc.collect()
    with open("/proc/self/statm", encoding="ascii") as file:
        pages = int(file.read().split()[1])
    return {
        "threads": threading.active_count(),
        "descriptors": len(os.listdir("/proc/self/fd")),
        "objects": len(gc.get_objects()),
        "megabytes": pages * os.sysconf("SC_PAGE_SIZE") / 1e6,
    }
