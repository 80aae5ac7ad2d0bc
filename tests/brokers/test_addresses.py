"""Which URL means what, and that none of its secrets is shown."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.errors import ConfigError
from pipeline.settings import VideoSettings
from pipeline.sinks import SinkTarget, open_sink
from pipeline.sinks.brokers.address import Address
from tests.brokers.results import opened

TARGET = SinkTarget("front door/1", ("car",))


def test_a_url_is_taken_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORD", "p@$s/%41")
    address = Address.parse("mqtts://a%40b:${WORD}x@[::1]:99/some/prefix?ca=%2Fx&qos=0")
    assert (address.scheme, address.user, address.password) == ("mqtts", "a@b", "p@$s/%41x")
    assert address.host_and_port(1) == ("::1", 99)
    assert address.path == "some/prefix"
    assert (address.options.text("ca"), address.options.number("qos", 1, 0, 1)) == ("/x", 0)


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("mqtt://u:s3cret@host", "mqtt://host:1883/boxstream/front door_1"),
        ("mqtt://u:s3cret@host:5/a/b/", "mqtt://host:5/a/b/front door_1"),
        ("mqtts://[::1]/a", "mqtts://[::1]:8883/a/front door_1"),
        ("redis://:s3cret@host", "redis://host:6379/0?stream=boxstream#front door/1"),
        ("redis://host/3?stream={source}", "redis://host:6379/3?stream=front_door/1#front door/1"),
        ("kafka://u:s3cret@a:1,b:2/t", "kafka://a:1,b:2/t#front door/1"),
    ],
)
def test_a_sink_is_named_after_its_url_without_secrets(url: str, name: str) -> None:
    sink = open_sink(url, TARGET, VideoSettings())
    assert sink.name == name
    assert sink.may_drop and sink.capacity == 64 and not sink.wants_picture
    assert sink.report()["state"] == "READY"


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("mqtt://u:s3cret/x@host/p", "cannot read this mqtt://"),
        ("mqtt://u:s3cret?x@host/p", "cannot read this mqtt://"),
        ("mqtt://u:s3cret#x@host/p", "cannot read this mqtt://"),
        ("redis://u:12/s3cret@host", "cannot read this redis://"),
        ("redis://[u:s3cret@host", "cannot read this redis://"),
        ("redis://u:s3cret@host:port", "cannot read this redis://"),
        ("mqtt:///prefix", "cannot read this mqtt://"),
        ("mqtt://u:s3cret@a,b/prefix", "cannot read this mqtt://"),
        ("redis://u:s3cret@host/x", "must be a number"),
        ("mqtt://u:$NOT_SET@host", "variable NOT_SET is not set"),
        ("mqtt://u:s3cret@host?size=3", "no option 'size'; it knows buffer, protocol, qos"),
        ("mqtt://u:s3cret@host?ca=x.pem", "no option 'ca'"),
        ("mqtt://u:s3cret@host?qos=2", "qos of mqtt:// must be 0 to 1"),
        ("mqtt://u:s3cret@host/a%23", "cannot be an MQTT topic"),
        ("mqtt://u:s3cret@host/{camera}", r"unknown \{camera\}"),
        ("mqtts://u:s3cret@host?ca=missing.pem", "missing.pem: No such file"),
        ("mqtts://u:s3cret@host?verify=perhaps", "must be yes or no"),
        ("rediss://u:s3cret@host?cert=missing.pem", "missing.pem"),
        ("amqp://u:s3cret@host/x", "no sink for"),
    ],
)
def test_what_cannot_be_right_is_an_error_without_secrets(
    url: str, complaint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NOT_SET", raising=False)
    with pytest.raises(ConfigError, match=complaint) as caught:
        open_sink(url, TARGET, VideoSettings())
    assert "s3cret" not in str(caught.value)


def test_a_file_that_is_no_certificate_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("nonsense")
    with pytest.raises(ConfigError, match=r"cannot use the certificates .*ca\.pem"):
        opened(f"mqtts://host?ca={tmp_path}/ca.pem")


@pytest.mark.parametrize(
    ("url", "package"),
    [("mqtt://host", "paho"), ("redis://host", "redis"), ("kafka://host/t", "confluent_kafka")],
)
def test_without_its_package_a_broker_is_an_error_that_names_the_remedy(
    url: str, package: str
) -> None:
    program = f"""
import sys
sys.modules[{package!r}] = None
from pipeline.errors import SinkError
from pipeline.settings import VideoSettings
from pipeline.sinks import SinkTarget, open_sink
assert not {{"redis", "confluent_kafka"}} & {{k for k, v in sys.modules.items() if v}}
try:
    open_sink({url!r}, SinkTarget("a", ("car",)), VideoSettings())
except SinkError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"needs the package {package}" in done.stdout
    assert "pip install -e '.[brokers]'" in done.stdout
