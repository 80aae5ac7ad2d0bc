"""Redis streams, against a real server that is killed, frozen, locked and brought back."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.brokers import servers
from tests.brokers.results import HASTY, adds_up, opened, result, write_many
from tests.brokers.servers import Server
from tests.waiting import until

redis = pytest.importorskip("redis", reason="the extra 'brokers' is not installed")

Start = Callable[[Server], Server]
PASSWORD = "se/cr:et@ü"
ENCODED = "se%2Fcr%3Aet%40%C3%BC"


def url(broker: Server, login: str = "", options: str = "", scheme: str = "redis") -> str:
    return f"{scheme}://{login}127.0.0.1:{broker.port}/0{options}"


def entries(broker: Server, stream: str = "boxstream", **login: Any) -> list[dict[str, Any]]:
    """What lies in a stream, oldest first."""
    with redis.Redis(port=broker.port, decode_responses=True, **login) as client:
        found = client.xrange(stream)
    for _, fields in found:
        assert fields.keys() == {"source", "record"}
    return [json.loads(fields["record"]) for _, fields in found]


def frames(broker: Server, stream: str = "boxstream", **login: Any) -> list[int]:
    return [entry["frame"] for entry in entries(broker, stream, **login)]


def test_every_frame_lies_in_the_stream_once_and_in_order(redis_broker: Server) -> None:
    with opened(url(redis_broker)) as sink:
        write_many(sink, 300)
    assert frames(redis_broker) == list(range(300))
    report = sink.report()
    assert (report["sent"], report["written"], report["dropped"]) == (300, 300, {})
    assert (report["reconnects"], report["state"]) == (0, "CLOSED")
    first = entries(redis_broker)[0]
    assert (first["schema"], first["source"]) == ("boxstream.detections/1", "front")
    assert first["detections"][0]["label"] == "car"


def test_a_stream_can_be_named_for_its_source(redis_broker: Server) -> None:
    options = "?stream=cams:{source}:found"
    with opened(url(redis_broker, options=options)) as front:
        front.write(result(1))
        with opened(url(redis_broker, options=options), "rear") as rear:
            rear.write(result(2, "rear"))
    assert frames(redis_broker, "cams:front:found") == [1]
    assert frames(redis_broker, "cams:rear:found") == [2]


def test_a_stream_never_grows_longer_than_asked_for(redis_broker: Server) -> None:
    with opened(url(redis_broker, options="?maxlen=25")) as sink:
        write_many(sink, 310)
    assert frames(redis_broker) == list(range(285, 310))
    assert sink.report()["sent"] == 310


def test_a_server_that_is_down_at_the_start_gets_what_was_kept_for_it(
    tmp_path: Path, start: Start
) -> None:
    broker = servers.redis_server(tmp_path)
    with opened(url(broker, options="?buffer=40")) as sink:
        assert write_many(sink, 100) < 5
        until(lambda: sink.report()["state"] == "BACKOFF")
        report = sink.report()
        assert adds_up(report) and report["dropped"] == {"broker_down": 60}
        start(broker)
        until(lambda: sink.report()["sent"] == 40)
    assert frames(broker) == list(range(60, 100))


def test_a_server_that_is_killed_and_comes_back_loses_only_what_is_counted(
    redis_broker: Server, caplog: pytest.LogCaptureFixture
) -> None:
    with opened(url(redis_broker)) as sink:
        for cycle in range(1, 4):
            until(lambda: sink.report()["state"] == "RUNNING")
            write_many(sink, 100, start=cycle * 1000)
            redis_broker.kill()
            assert write_many(sink, 100, start=cycle * 1000 + 100) < 5
            until(lambda: sink.report()["state"] == "BACKOFF")
            redis_broker.start()
            until(lambda: sink.report()["waiting"] == 0)
    report = sink.report()
    assert (report["sent"], report["dropped"], report["reconnects"] >= 3) == (600, {}, True)
    wanted = [cycle * 1000 + index for cycle in range(1, 4) for index in range(200)]
    assert sorted(set(frames(redis_broker))) == wanted
    warnings = [entry for entry in caplog.records if entry.levelno >= logging.WARNING]
    assert 3 <= len(warnings) <= 9


def test_a_server_that_says_nothing_holds_up_nobody(redis_broker: Server) -> None:
    with opened(url(redis_broker, options="?buffer=50"), patience=HASTY) as sink:
        write_many(sink, 10)
        until(lambda: sink.report()["sent"] == 10)
        redis_broker.freeze()
        assert write_many(sink, 500, start=10) < 5
        until(lambda: sink.report()["state"] == "BACKOFF")
        report = sink.report()
        assert adds_up(report) and report["sent"] == 10
        assert sum(report["dropped"].values()) >= 400
        redis_broker.thaw()
        until(lambda: sink.report()["waiting"] == 0)
    report = sink.report()
    assert adds_up(report) and report["sent"] >= 60
    assert len(set(frames(redis_broker))) >= report["sent"]


def test_the_end_waits_for_a_silent_server_only_for_a_moment(redis_broker: Server) -> None:
    with opened(url(redis_broker), patience=HASTY) as sink:
        write_many(sink, 10)
        until(lambda: sink.report()["sent"] == 10)
        redis_broker.freeze()
        write_many(sink, 20)
    assert adds_up(sink.report()) and sink.report()["dropped"] == {"unsent_at_end": 20}
    redis_broker.thaw()


@pytest.mark.parametrize("login", [f":{ENCODED}@", "cam:$REDIS_PASSWORD@"])
def test_who_has_the_password_gets_in(
    tmp_path: Path, start: Start, monkeypatch: pytest.MonkeyPatch, login: str
) -> None:
    monkeypatch.setenv("REDIS_PASSWORD", PASSWORD)
    rights = ["on", f">{PASSWORD}", "~boxstream", "+xadd"]  # not even PING
    broker = start(
        servers.redis_server(tmp_path, "--requirepass", PASSWORD, "--user", "cam", *rights)
    )
    with opened(url(broker, login)) as sink:
        write_many(sink, 10)
    assert frames(broker, password=PASSWORD) == list(range(10))


@pytest.mark.parametrize("login", ["", ":wr%2Fong@", "nobody:wr%2Fong@"])
def test_a_wrong_password_is_an_error_said_once_and_without_the_password(
    tmp_path: Path, start: Start, caplog: pytest.LogCaptureFixture, login: str
) -> None:
    caplog.set_level(logging.DEBUG)
    broker = start(servers.redis_server(tmp_path, "--requirepass", PASSWORD))
    with opened(url(broker, login)) as sink:
        write_many(sink, 200)
        until(lambda: sink.report()["state"] == "REFUSED")
        report = sink.report()
    assert adds_up(report) and report["sent"] == 0
    errors = [entry for entry in caplog.records if entry.levelno >= logging.ERROR]
    assert len(errors) == 1
    for text in (caplog.text, str(report), sink.name, repr(vars(sink))):
        assert "wr/ong" not in text and "wr%2Fong" not in text


def test_a_stream_we_may_not_write_harms_no_other(
    redis_broker: Server, caplog: pytest.LogCaptureFixture
) -> None:
    with redis.Redis(port=redis_broker.port) as client:
        client.set("secret", "this is no stream")
        client.acl_setuser(
            "cam", True, passwords=["+pw"], keys=["front", "secret"], commands=["+xadd"]
        )
    options = "?stream={source}"
    with (
        opened(url(redis_broker, "cam:pw@", options), "secret") as wrong_type,
        opened(url(redis_broker, "cam:pw@", options), "other") as no_right,
        opened(url(redis_broker, "cam:pw@", options), "front") as allowed,
    ):
        for index in range(20):
            for source, sink in (("secret", wrong_type), ("other", no_right), ("front", allowed)):
                sink.write(result(index, source))
        for sink in (wrong_type, no_right):
            until(lambda sink=sink: sink.report()["dropped"] == {"refused": 20})
            assert sink.report()["state"] == "REFUSED"
        until(lambda: allowed.report()["sent"] == 20)
    assert frames(redis_broker, "front") == list(range(20))
    errors = [entry for entry in caplog.records if entry.levelno >= logging.ERROR]
    assert len(errors) == 2


def test_a_server_without_memory_refuses_and_later_accepts(redis_broker: Server) -> None:
    with redis.Redis(port=redis_broker.port) as client, opened(url(redis_broker)) as sink:
        client.config_set("maxmemory", 1)
        write_many(sink, 10)
        until(lambda: sink.report()["dropped"] == {"refused": 10})
        assert "maxmemory" in sink.report()["trouble"]
        client.config_set("maxmemory", 0)
        write_many(sink, 10, start=10)
        until(lambda: sink.report()["sent"] == 10)
        assert sink.report()["trouble"] is None
    assert frames(redis_broker) == list(range(10, 20))


@pytest.fixture
def tls_broker(tmp_path: Path, start: Callable[[Server], Server], certificates: Path) -> Server:
    """Shows its certificate, and wants to see ours."""
    options = ["--tls-cert-file", f"{certificates}/server.pem"]
    options += ["--tls-key-file", f"{certificates}/server.key"]
    options += ["--tls-ca-cert-file", f"{certificates}/ca.pem", "--tls-auth-clients", "yes"]
    return start(servers.redis_server(tmp_path, *options, tls=True))


def test_with_certificates_each_is_sure_of_the_other(
    tls_broker: Server, certificates: Path
) -> None:
    files = f"?ca={certificates}/ca.pem&cert={certificates}/client.pem"
    key = f"&key={certificates}/client.key"
    with opened(url(tls_broker, options=files + key, scheme="rediss")) as sink:
        write_many(sink, 50)
        until(lambda: sink.report()["sent"] == 50)
    with opened(url(tls_broker, scheme="rediss")) as stranger:
        stranger.write(result(0))
        until(lambda: stranger.report()["state"] in {"BACKOFF", "REFUSED"})
        assert "certificate" in stranger.report()["trouble"]


def test_a_certificate_that_is_missing_while_it_is_renewed_is_no_end(
    tls_broker: Server, certificates: Path, tmp_path: Path
) -> None:
    ours, files = tmp_path / "client.pem", f"?ca={certificates}/ca.pem&cert={tmp_path}/client.pem"
    shutil.copy(certificates / "client.pem", ours)
    options = f"{files}&key={certificates}/client.key"
    sink = opened(url(tls_broker, options=options, scheme="rediss"))
    ours.unlink()
    with sink:
        sink.write(result(0))
        until(lambda: sink.report()["state"] == "BACKOFF")
        shutil.copy(certificates / "client.pem", ours)
        until(lambda: sink.report()["sent"] == 1)
