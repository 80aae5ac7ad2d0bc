"""MQTT, against a real mosquitto that is killed, frozen, locked and brought back."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

import pytest

from tests.brokers import servers
from tests.brokers.results import HASTY, LABELS, QUICK, adds_up, opened, result, write_many
from tests.brokers.servers import PATIENT_SECONDS, Server
from tests.waiting import until

pytest.importorskip("paho.mqtt.client", reason="the extra 'brokers' is not installed")

from pipeline.sinks.brokers import mqtt, mqtt_server
from tests.brokers.listener import Listener

Start = Callable[[Server], Server]
PASSWORD = "se/cr:et@ü"
ENCODED = "se%2Fcr%3Aet%40%C3%BC"


def url(broker: Server, login: str = "", options: str = "", scheme: str = "mqtt") -> str:
    return f"{scheme}://{login}127.0.0.1:{broker.port}/bx{options}"


@pytest.fixture
def locked_broker(tmp_path: Path, start: Start) -> Server:
    """Lets ``cam`` in with its password, who may write all but the detections of ``secret``."""
    passwords, rights = tmp_path / "passwords", tmp_path / "rights"
    tool = servers.program("mosquitto_passwd")
    for user in ("cam", "reader"):
        create = [] if passwords.exists() else ["-c"]
        subprocess.run([tool, *create, "-b", str(passwords), user, PASSWORD], check=True)
    rights.write_text(
        "user reader\ntopic read #\n\n"
        "user cam\ntopic deny bx/secret/detections\ntopic readwrite bx/#\n"
    )
    lines = (f"password_file {passwords}", f"acl_file {rights}", "allow_anonymous false")
    return start(servers.mosquitto(tmp_path, *lines))


@pytest.mark.parametrize("options", ["", "?qos=0", "?protocol=3"])
def test_every_frame_is_heard_once_and_in_order(mqtt_broker: Server, options: str) -> None:
    with Listener(mqtt_broker.port) as listener, opened(url(mqtt_broker, options=options)) as sink:
        write_many(sink, 300)
        until(lambda: len(listener.frames()) >= 300)
    assert listener.frames() == list(range(300))
    report = sink.report()
    assert (report["frames"], report["sent"], report["written"]) == (300, 300, 300)
    assert (report["dropped"], report["reconnects"], report["state"]) == ({}, 0, "CLOSED")


def test_a_record_says_what_was_found_and_when(mqtt_broker: Server) -> None:
    before = datetime.now(UTC)
    with Listener(mqtt_broker.port) as listener, opened(url(mqtt_broker)) as sink:
        sink.write(result(7, class_ids=(2, 0)))
        until(listener.records)
    (entry,) = listener.records()
    assert entry["schema"] == "boxstream.detections/1"
    age = datetime.fromisoformat(entry["time"]) - before
    assert -0.01 < age.total_seconds() < PATIENT_SECONDS
    assert 0 <= entry["latency_ms"] < PATIENT_SECONDS * 1e3
    assert (entry["source"], entry["frame"], entry["pts_seconds"]) == ("front", 7, 0.28)
    assert (entry["width"], entry["height"]) == (64, 48)
    assert entry["detections"] == [
        {"label": label, "class_id": class_id, "score": 0.5, "box": [1.0, 2.0, 30.0, 40.0]}
        for class_id, label in ((2, "car"), (0, "person"))
    ]


def test_counts_are_told_when_they_change_and_kept_for_later_listeners(
    mqtt_broker: Server,
) -> None:
    with Listener(mqtt_broker.port) as listener, opened(url(mqtt_broker)) as sink:
        for index, cars in enumerate([0, 2, 2, 2, 1, 1, 0]):
            sink.write(result(index, class_ids=(2,) * cars))
            until(lambda index=index: len(listener.frames()) == index + 1)
            until(lambda cars=cars: listener.said("bx/front/car")[-1:] == [str(cars)])
    assert listener.said("bx/front/car") == ["0", "2", "1", "0"]
    assert listener.said("bx/front/person") == ["0"]
    with Listener(mqtt_broker.port) as later:
        until(lambda: len(later.heard) >= len(LABELS) + 2)
    told = {topic: (payload, retained) for topic, payload, retained in later.heard}
    assert told["bx/front/traffic light"] == ("0", True)
    assert "bx/front/detections" not in told


def test_a_source_and_the_program_are_online_for_as_long_as_they_are(
    mqtt_broker: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mqtt, "_SILENT_SECONDS", 30.0)  # a busy machine is no silence
    with Listener(mqtt_broker.port) as listener:
        with opened(url(mqtt_broker), "front") as front, opened(url(mqtt_broker), "rear") as rear:
            front.write(result(0, "front"))
            rear.write(result(0, "rear"))
            until(lambda: listener.said("bx/rear/state")[-1:] == ["online"])
            until(lambda: listener.said("bx/front/state")[-1:] == ["online"])
            rear.__exit__(None, None, None)
            assert listener.said("bx/available") == ["online"]
            until(lambda: listener.said("bx/rear/state")[-1] == "offline")
            assert listener.said("bx/front/state")[-1] == "online"
            rear.__enter__()
        until(lambda: listener.said("bx/available") == ["online", "offline"])
        until(lambda: listener.said("bx/front/state")[-1] == "offline")


def test_a_source_without_frames_goes_offline_and_comes_back(
    mqtt_broker: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mqtt, "_SILENT_SECONDS", 0.2)
    with Listener(mqtt_broker.port) as listener, opened(url(mqtt_broker)) as sink:
        index = count()

        def told() -> list[str]:
            return listener.said("bx/front/state")

        for _ in range(2):
            known = len(told())
            # More than once: that it is silent again may replace what has not left yet.
            until(lambda known=known: sink.write(result(next(index))) or "online" in told()[known:])
            until(lambda: told()[-1] == "offline")


PUBLISHER = """
import sys
from tests.brokers.results import opened, result
with opened(sys.argv[1]) as sink:
    sink.write(result(0))
    sys.stdin.read()
"""


def test_the_last_will_says_that_a_killed_program_is_offline(mqtt_broker: Server) -> None:
    command = [sys.executable, "-c", PUBLISHER, url(mqtt_broker)]
    root = Path(__file__).parents[2]
    with (
        Listener(mqtt_broker.port) as listener,
        subprocess.Popen(command, stdin=subprocess.PIPE, cwd=root) as publisher,
    ):
        until(listener.records)
        assert listener.said("bx/available") == ["online"]
        publisher.kill()
        until(lambda: listener.said("bx/available") == ["online", "offline"])


def test_a_broker_that_is_down_at_the_start_gets_what_was_kept_for_it(
    tmp_path: Path, start: Start
) -> None:
    broker = servers.mosquitto(tmp_path, "persistence false")
    with opened(url(broker, options="?buffer=40")) as sink:
        assert write_many(sink, 100) < 5
        until(lambda: sink.report()["state"] == "BACKOFF")
        report = sink.report()
        assert adds_up(report) and report["sent"] == 0
        assert report["dropped"] == {"broker_down": 60}
        start(broker)
        until(lambda: sink.report()["sent"] == 40)
        assert sink.report()["waiting"] == 0


def test_a_broker_that_is_killed_and_comes_back_costs_only_what_is_counted(
    mqtt_broker: Server, caplog: pytest.LogCaptureFixture
) -> None:
    with opened(url(mqtt_broker, options="?buffer=50")) as sink:
        write_many(sink, 100)
        until(lambda: sink.report()["sent"] == 100 - sum(sink.report()["dropped"].values()))
        for cycle in range(1, 4):
            mqtt_broker.kill()
            until(lambda: sink.report()["state"] == "BACKOFF")
            before = sum(sink.report()["dropped"].values())
            assert write_many(sink, 80, start=cycle * 1000) < 5
            assert sum(sink.report()["dropped"].values()) == before + 30
            mqtt_broker.start()
            until(lambda cycle=cycle: sink.report()["reconnects"] == cycle)
            until(lambda: sink.report()["waiting"] == 0)
            with Listener(mqtt_broker.port) as listener:  # what the new broker knows by now
                until(lambda: listener.said("bx/available") == ["online"])
                until(lambda: listener.said("bx/front/car") == ["1"])
                sink.write(result(cycle * 1000 + 999))
                until(lambda: listener.frames())
                assert listener.frames() == [cycle * 1000 + 999]
    report = sink.report()
    assert adds_up(report) and report["waiting"] == 0
    assert report["sent"] > 150
    warnings = [entry for entry in caplog.records if entry.levelno >= logging.WARNING]
    assert 3 <= len(warnings) <= 9  # a few an outage, not one a frame or an attempt


def test_a_broker_that_says_nothing_holds_up_nobody(mqtt_broker: Server) -> None:
    with opened(url(mqtt_broker, options="?buffer=50"), patience=HASTY) as sink:
        write_many(sink, 10)
        until(lambda: sink.report()["sent"] == 10)
        mqtt_broker.freeze()
        assert write_many(sink, 500, start=10) < 5
        until(lambda: sink.report()["state"] in {"BACKOFF", "CONNECTING"})
        report = sink.report()
        assert adds_up(report) and report["sent"] == 10
        assert sum(report["dropped"].values()) >= 400
        mqtt_broker.thaw()
        until(lambda: sink.report()["waiting"] == 0)
    assert sink.report()["sent"] >= 60


def test_the_broker_is_asked_for_a_sign_of_life_while_records_go_out_unanswered(
    mqtt_broker: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mqtt_server, "_KEEP_ALIVE_SECONDS", 1)
    index = count()
    with opened(url(mqtt_broker, options="?qos=0")) as sink:
        until(lambda: sink.write(result(next(index))) or "PINGREQ" in mqtt_broker.log.read_text())


def test_the_end_waits_for_a_silent_broker_only_for_a_moment(mqtt_broker: Server) -> None:
    sink = opened(url(mqtt_broker), patience=HASTY)
    with sink:
        write_many(sink, 10)
        until(lambda: sink.report()["sent"] == 10)
        mqtt_broker.freeze()
        write_many(sink, 20)
    report = sink.report()
    assert adds_up(report) and report["waiting"] == 0
    assert report["dropped"] == {"unsent_at_end": 20}
    mqtt_broker.thaw()


def test_who_has_the_password_gets_in(
    locked_broker: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MQTT_PASSWORD", PASSWORD)
    for password in (ENCODED, "$MQTT_PASSWORD"):
        with opened(url(locked_broker, login=f"cam:{password}@")) as sink:
            sink.write(result(0))
            until(lambda: sink.report()["sent"] == 1)


def test_a_wrong_password_is_an_error_said_once_and_without_the_password(
    locked_broker: Server, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with opened(url(locked_broker, login="cam:wr%2Fong@")) as sink:
        write_many(sink, 200)
        until(lambda: locked_broker.log.read_text().count("not authorised") > 3)
        report = sink.report()
    assert report["state"] == "REFUSED"
    assert "Not authorized" in report["trouble"]
    assert adds_up(report) and report["sent"] == 0
    errors = [entry for entry in caplog.records if entry.levelno >= logging.ERROR]
    assert len(errors) == 1
    for text in (caplog.text, str(report), sink.name, repr(vars(sink))):
        assert "wr/ong" not in text and "wr%2Fong" not in text


def test_what_the_broker_does_not_let_us_write_is_counted_and_said_once(
    locked_broker: Server, caplog: pytest.LogCaptureFixture
) -> None:
    # This mosquitto ends the connection, too: it must not be asked for the same again and again.
    patience = replace(QUICK, longest_retry=60.0, stable=60.0)
    login = {"user": "reader", "password": PASSWORD}
    address = url(locked_broker, login=f"cam:{ENCODED}@")
    with (
        Listener(locked_broker.port, **login) as listener,
        opened(address, "secret", patience) as refused,
        opened(address, "front", patience) as allowed,
    ):
        for index in range(20):
            refused.write(result(index, "secret"))
            allowed.write(result(index, "front"))
        until(lambda: set(listener.frames("front")) == set(range(20)))
        until(lambda: listener.said("bx/secret/car")[-1:] == ["1"])
        until(lambda: refused.report()["dropped"] == {"refused": 20})
        assert refused.report()["state"] == "REFUSED"
        assert allowed.report()["state"] == "RUNNING"
    assert allowed.report()["sent"] == 20 and allowed.report()["dropped"] == {}
    assert listener.frames("secret") == []
    errors = [entry for entry in caplog.records if entry.levelno >= logging.ERROR]
    assert len(errors) == 1 and "Not authorized" in errors[0].getMessage()


@pytest.fixture
def tls_broker(tmp_path: Path, start: Start, certificates: Path) -> Server:
    """Shows its certificate, and wants to see ours."""
    lines = ("cafile {0}/ca.pem", "certfile {0}/server.pem", "keyfile {0}/server.key")
    wanted = "require_certificate true"
    return start(
        servers.mosquitto(tmp_path, *(line.format(certificates) for line in lines), wanted)
    )


def test_with_certificates_each_is_sure_of_the_other(
    tls_broker: Server, certificates: Path
) -> None:
    files = f"?ca={certificates}/ca.pem&cert={certificates}/client.pem"
    key = f"&key={certificates}/client.key"
    with opened(url(tls_broker, options=files + key, scheme="mqtts")) as sink:
        write_many(sink, 50)
        until(lambda: sink.report()["sent"] == 50)


def test_a_certificate_that_is_missing_while_it_is_renewed_is_no_end(
    tls_broker: Server, certificates: Path, tmp_path: Path
) -> None:
    ours, files = tmp_path / "client.pem", f"?ca={certificates}/ca.pem&cert={tmp_path}/client.pem"
    shutil.copy(certificates / "client.pem", ours)
    options = f"{files}&key={certificates}/client.key"
    with opened(url(tls_broker, options=options, scheme="mqtts")) as sink:
        write_many(sink, 5)
        until(lambda: sink.report()["sent"] == 5)
        ours.write_text("half of it")
        tls_broker.kill()
        tls_broker.start()
        until(lambda: "cannot use the certificates" in (sink.report()["trouble"] or ""))
        write_many(sink, 5, start=5)
        ours.unlink()
        until(lambda: "No such file" in (sink.report()["trouble"] or ""))
        write_many(sink, 5, start=10)
        shutil.copy(certificates / "client.pem", ours)
        until(lambda: sink.report()["sent"] == 15)


def test_a_certificate_of_an_unknown_authority_is_refused(
    tls_broker: Server, certificates: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with opened(url(tls_broker, scheme="mqtts")) as sink:
        sink.write(result(0))
        until(lambda: sink.report()["state"] == "REFUSED")
        assert "not trusted" in sink.report()["trouble"]
    assert sink.report()["dropped"] == {"unsent_at_end": 1}


def test_several_sources_share_one_connection(mqtt_broker: Server) -> None:
    with Listener(mqtt_broker.port) as listener:
        sinks = [opened(url(mqtt_broker), f"cam{number}") for number in range(5)]
        for sink in sinks:
            sink.__enter__()
        for index in range(20):
            for sink, source in zip(sinks, (f"cam{number}" for number in range(5)), strict=True):
                sink.write(result(index, source))
        for number in range(5):
            until(lambda number=number: listener.frames(f"cam{number}") == list(range(20)))
        for sink in sinks:
            sink.__exit__(None, None, None)
    assert mqtt_broker.log.read_text().count(" as boxstream-") == 1
    assert len({sink.name for sink in sinks}) == 5


def test_connections_that_break_leave_no_descriptors(mqtt_broker: Server) -> None:
    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))

    with opened(url(mqtt_broker)) as sink:
        for cycle in range(5):
            sink.write(result(cycle))
            until(lambda: sink.report()["waiting"] == 0)
            if cycle == 1:
                before = descriptors()
            mqtt_broker.kill()
            until(lambda: sink.report()["state"] == "BACKOFF")
            mqtt_broker.start()
            until(lambda: sink.report()["state"] == "RUNNING")
        assert descriptors() <= before + 2
