"""A camera's password is nowhere to be read: not in words, logs, reports, records or errors."""

from __future__ import annotations

import logging
from urllib.parse import quote

import pytest

from tests.live.kit.odd_servers import GarbageServer, StatusServer, refused_url
from tests.live.kit.watching import Watcher
from tests.waiting import until

USER = "ad@min"
PASSWORD = "p@ss:w/ord#%ü?"
QUOTED = quote(PASSWORD, safe="")
PIECES = {PASSWORD, QUOTED, PASSWORD.split(":")[1], "ord#%", "p%40ss", quote(USER, safe="")}


def assert_untold(text: str) -> None:
    assert not [piece for piece in PIECES if piece in text], text


@pytest.mark.parametrize("method", ["basic", "digest"])
def test_a_run_tells_nothing_even_when_the_camera_dies(start_cameras, start_line, method, tmp_path):
    server = start_cameras(user=USER, password=PASSWORD, method=method)
    camera = server.add("front", size=(160, 120))
    assert QUOTED in camera.url
    wrong = server.url("front", login=(USER, PASSWORD + "x"))
    line = start_line([camera.url, wrong], environment={"PYTHONLOGLEVEL": "DEBUG"})
    line.wait_records(10, "front")
    server.kill()
    server.start()
    line.wait_records(10, "front")
    line.stop()
    files = [path for path in tmp_path.iterdir() if path.is_file()]
    for path in files:
        assert_untold(path.name + path.read_text(errors="replace"))
    assert {"report.json", "words.txt"} <= {path.name for path in files}
    failures = [source["failures"] for source in line.report["sources"].values()]
    assert any("unauthorised" in found for found in failures)


def test_what_failed_is_told_without_what_was_secret(caplog, capfd):
    login = f"{quote(USER, safe='')}:{QUOTED}"
    with (
        caplog.at_level(logging.DEBUG),
        StatusServer("401 Unauthorized") as denying,
        GarbageServer() as garbage,
    ):
        urls = [refused_url().replace("://", f"://{login}@"), denying.url("rtsp", login)]
        urls += [
            garbage.url("http", login),
            f"rtsp://{login}@no-such-camera.invalid/a?pwd={QUOTED}",
        ]
        for url in urls:
            with Watcher(f"{url}#max_attempts=1&open_seconds=2") as watcher:
                until(lambda watcher=watcher: watcher.error is not None)
                assert_untold(f"{watcher.error!r} {watcher.error} {watcher.source.url}")
                assert_untold(f"{watcher.stats} {watcher.source.name} {vars(watcher.source)}")
                assert_untold(f"{watcher.error.__cause__!r} {watcher.error.__context__!r}")
    told = capfd.readouterr()
    assert_untold(caplog.text + told.out + told.err)


def test_a_password_may_come_from_the_environment(start_cameras, start_line):
    server = start_cameras(user=USER, password=PASSWORD)
    server.add("front", size=(160, 120))
    url = f"rtsp://$CAMERA_USER:$CAMERA_PASSWORD@127.0.0.1:{server.port}/front"
    secrets = {"CAMERA_USER": USER, "CAMERA_PASSWORD": PASSWORD}
    line = start_line([url], environment=secrets)
    line.wait_records(3)
    with open(f"/proc/{line.process.pid}/cmdline") as title:
        assert_untold(title.read())
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
