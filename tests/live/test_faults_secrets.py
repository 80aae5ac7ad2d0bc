"""A camera's password is nowhere to be read: not in words, logs, reports, records or errors."""

from __future__ import annotations

import base64
import logging
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.live.kit.odd_servers import GarbageServer, SilentServer, StatusServer, refused_url
from tests.live.kit.ports import free_port
from tests.live.kit.vitals import family
from tests.live.kit.watching import Watcher
from tests.serve.client import Client
from tests.waiting import until

USER = "ad@min"
PASSWORD = "p@ss:w/ord#%ü?"
QUOTED = quote(PASSWORD, safe="")
LOGIN = f"{quote(USER, safe='')}:{QUOTED}"
IN_A_HEADER = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
PIECES = {
    USER,
    PASSWORD,
    QUOTED,
    IN_A_HEADER,
    PASSWORD.split(":")[1],
    "ord#%",
    "p%40ss",
    quote(USER, safe=""),
}


def assert_untold(text: str) -> None:
    assert not [piece for piece in PIECES if piece in text], text


def command_lines(pid: int) -> list[str]:
    """What everybody can read about a process and its children."""
    shown = []
    for one in family(pid):
        try:
            shown.append(Path(f"/proc/{one}/cmdline").read_text(errors="replace"))
        except OSError:
            continue  # it ended meanwhile
    return shown


@pytest.mark.parametrize("method", ["basic", "digest"])
def test_a_run_tells_nothing_even_when_the_camera_dies(start_cameras, start_line, method, tmp_path):
    server = start_cameras(user=USER, password=PASSWORD, method=method)
    camera = server.add("front", size=(160, 120))
    assert QUOTED in camera.url
    wrong = server.url("front", login=(USER, PASSWORD + "x"))
    line = start_line([camera.url, wrong], out=[str(tmp_path / "{source}.mp4")], debug=True)
    line.wait_records(10, "front")
    server.kill()
    server.start()
    line.wait_records(10, "front")
    line.stop()
    files = [path for path in tmp_path.iterdir() if path.is_file()]
    for path in files:
        assert_untold(path.name + path.read_text(errors="replace"))
    assert {"report.json", "words.txt"} <= {path.name for path in files}
    assert "05:libav" in line.words, "FFmpeg was to tell all it knows"
    failures = [source["failures"] for source in line.report["sources"].values()]
    assert any("unauthorised" in found for found in failures)


def test_what_failed_is_told_without_what_was_secret(caplog, capfd):
    with (
        caplog.at_level(logging.DEBUG),
        StatusServer("401 Unauthorized") as denying,
        GarbageServer() as garbage,
    ):
        urls = [refused_url().replace("://", f"://{LOGIN}@"), denying.url("rtsp", LOGIN)]
        urls += [
            garbage.url("http", LOGIN),
            f"rtsp://{LOGIN}@no-such-camera.invalid/a?pwd={QUOTED}",
        ]
        for url in urls:
            with Watcher(f"{url}#max_attempts=1&open_seconds=2") as watcher:
                until(lambda watcher=watcher: watcher.error is not None)
                assert_untold(f"{watcher.error!r} {watcher.error} {watcher.source.url}")
                assert_untold(f"{watcher.stats} {watcher.source.name} {vars(watcher.source)}")
                assert_untold(f"{watcher.error.__cause__!r} {watcher.error.__context__!r}")
    told = capfd.readouterr()
    assert_untold(caplog.text + told.out + told.err)


def test_the_page_and_its_api_tell_nothing(start_cameras, start_line):
    server = start_cameras(user=USER, password=PASSWORD)
    camera = server.add("front", size=(160, 120))
    wrong = server.url("front", login=(USER, PASSWORD + "x"))
    page = f"http://127.0.0.1:{free_port()}"
    line = start_line([camera.url, wrong], out=[page], debug=True)
    line.wait_records(3, "front")
    client = Client(page)
    added = [
        client.ask("POST", "/api/sources", {"url": camera.url, "name": "added"}),
        client.ask("POST", "/api/sources", {"url": f"{camera.url}?channel=$NONE"}),
        client.ask("POST", "/api/sources", {"url": camera.url.replace("rtsp", "file")}),
    ]
    assert [answer.status for answer in added] == [201, 422, 422]
    assert_untold(str(added))
    line.wait_records(3, "added")
    until(lambda: b"unauthorised" in client.get("/metrics").body, what="a refusal")
    paths = ["/", "/ready", "/metrics", "/openapi.json", "/api/state", "/api/sources"]
    paths += [f"/api/sources/{name}" for name in ("added", "127.0.0.1-front-2", "nobody")]
    told = {path: str(client.get(path)) for path in paths}
    with client.open("/api/events") as events:  # two of them
        told["/api/events"] = "".join(events.readline().decode() for _ in range(8))
    line.stop()
    told |= {"words": line.words, "report": (line.folder / "report.json").read_text()}
    assert_untold("".join(told.values()))
    for where in ("/metrics", "/api/state", "/api/sources", "/api/events", "report"):
        assert "added" in told[where] and "unauthorised" in told[where], where
    assert "10:asyncio" in told["words"], "the log was to tell all it knows"


def test_no_list_of_processes_shows_a_password_of_the_command_line(start_cameras, start_line):
    server = start_cameras(user=USER, password=PASSWORD)
    camera = server.add("front", size=(160, 120))
    as_it_is = camera.url.replace(LOGIN, f"{USER}:{PASSWORD}")
    with SilentServer() as receiver:  # keeps the program busy that sends to it
        line = start_line([camera.url, as_it_is], out=[receiver.url("rtsp", LOGIN)])
        line.wait_records(3)
        until(lambda: "pusher.py" in "".join(command_lines(line.process.pid)), what="a sender")
        title, *others = command_lines(line.process.pid)
        assert_untold(title + "".join(others))
        assert f"rtsp://***@127.0.0.1:{server.port}/front" in title
        line.stop()


def test_a_password_may_come_from_the_environment(start_cameras, start_line):
    server = start_cameras(user=USER, password=PASSWORD)
    server.add("front", size=(160, 120))
    url = f"rtsp://$CAMERA_USER:$CAMERA_PASSWORD@127.0.0.1:{server.port}/front"
    secrets = {"CAMERA_USER": USER, "CAMERA_PASSWORD": PASSWORD}
    line = start_line([url], environment=secrets)
    line.wait_records(3)
    assert url in command_lines(line.process.pid)[0], "there was nothing to hide"
    line.stop()
    assert_untold(line.words + str(line.report))


def test_a_password_may_come_from_a_file(start_cameras, tmp_path):
    server = start_cameras(user=USER.replace("@", "-"), password=PASSWORD)
    server.add("front", size=(160, 120))
    secret = tmp_path / "secret"
    secret.write_text(f"{USER.replace('@', '-')}:{PASSWORD}\n")
    url = f"rtsp://127.0.0.1:{server.port}/front#credentials={quote(str(secret), safe='/')}"
    with Watcher(url) as watcher:
        watcher.wait_frames(3)
