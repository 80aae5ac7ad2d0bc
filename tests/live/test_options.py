"""What FFmpeg is told: names that the version at hand knows."""

from __future__ import annotations

import socket

import pytest

from pipeline.errors import ConfigError
from pipeline.settings import LiveSettings
from pipeline.sources import open_sources
from pipeline.sources.live import connection
from pipeline.sources.live.options import input_options, left_over

SCHEMES = ["rtsp", "rtsps", "http", "https", "rtmp", "tcp"]


@pytest.mark.parametrize("transport", ["tcp", "udp"])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_this_ffmpeg_knows_every_option_it_is_given(scheme, transport):
    assert left_over(scheme, input_options(scheme, LiveSettings(transport=transport))) == []


def test_an_option_that_ffmpeg_would_ignore_is_found():
    assert left_over("rtsp", {"stimeout": "1", "timeout": "1", "tiemout": "1"}) == [
        "stimeout",
        "tiemout",
    ]


def test_the_time_limit_of_rtsp_was_renamed_in_ffmpeg_5():
    live = LiveSettings()
    assert "stimeout" in input_options("rtsp", live, libavformat=58)
    assert "timeout" not in input_options("rtsp", live, libavformat=58)
    assert "timeout" in input_options("rtsp", live, libavformat=59)


def test_rtsp_comes_over_tcp_unless_asked_otherwise_and_over_tls_always():
    udp = LiveSettings(transport="udp")
    assert input_options("rtsp", LiveSettings())["rtsp_transport"] == "tcp"
    assert input_options("rtsp", udp)["rtsp_transport"] == "udp"
    assert input_options("rtsps", udp)["rtsp_transport"] == "tcp"


def test_certificates_are_checked_on_demand():
    assert input_options("rtsps", LiveSettings())["tls_verify"] == "0"
    assert input_options("https", LiveSettings(verify_tls=True))["tls_verify"] == "1"


def test_an_option_that_would_be_ignored_is_counted_when_a_camera_is_opened(monkeypatch, mjpeg):
    given = input_options("http", LiveSettings()) | {"stimeout": "5"}
    monkeypatch.setattr(connection, "input_options", lambda *_: given)
    (source,) = open_sources([mjpeg().url], max_frames=1)
    assert len(list(source.frames())) == 1
    source.close()
    assert source.stats.anomalies["ffmpeg_ignores_stimeout"] == 1


def test_an_option_with_more_digits_than_can_be_shown_is_refused():
    with pytest.raises(ConfigError, match="the options of a rtsp:// source"):
        open_sources([f"rtsp://127.0.0.1/1#stride=-0x{'f' * 5000}"])


def test_looking_for_ignored_options_disturbs_nobody():
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        left_over("rtsp", input_options("rtsp", LiveSettings()))
        with pytest.raises(TimeoutError):
            server.accept()
