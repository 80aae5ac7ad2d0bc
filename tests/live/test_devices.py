"""Webcams: how they are named, asked for, and missed."""

from __future__ import annotations

import errno

import av
import pytest

import run_stream
from pipeline.errors import ConfigError, SourceNotFound
from pipeline.network import causes
from pipeline.network.address import device_address
from pipeline.network.causes import Cause, Trouble
from pipeline.settings import LiveSettings
from pipeline.sources import open_sources
from pipeline.sources.live.connection import CameraConnection
from pipeline.sources.live.decoder import Effort
from pipeline.sources.live.options import input_options
from tests.live.scripted import watched
from tests.live.test_causes import has_srt
from tests.waiting import until

MISSING = "camera:98"  # nobody has that many


def test_a_number_stands_for_a_device():
    (one, two) = open_sources(["camera:0", "/dev/video3#name=desk"])
    assert (one.name, one.url, one.live) == ("video0", "/dev/video0", True)
    assert (two.name, two.url) == ("desk", "/dev/video3")


def test_size_and_rate_are_asked_of_the_device():
    live = LiveSettings(size="1280x720", fps=15)
    assert input_options("v4l2", live) == {"video_size": "1280x720", "framerate": "15"}
    (source,) = open_sources(["camera:0#size=640x480&fps=30"])
    assert (source._live.size, source._live.fps) == ("640x480", 30)


def test_a_device_that_is_not_there_is_not_found_and_tried_again():
    (source,) = open_sources([MISSING])
    with watched(source) as watch:
        until(lambda: source.stats.failures["not_found"] == 1)
        watch.wait_for("BACKOFF")
    assert source.stats.failures == {"not_found": 1}
    assert watch.states == ["CONNECTING", "BACKOFF", "ENDED"] and watch.frames == []


def test_a_device_that_is_not_there_fails_when_it_may():
    (source,) = open_sources([MISSING], live=LiveSettings(max_attempts=1))
    with pytest.raises(SourceNotFound, match="/dev/video98: there is no such device"):
        list(source.frames())


def test_who_misses_a_device_is_told_which_ones_there_are(monkeypatch):
    (source,) = open_sources([MISSING], live=LiveSettings(max_attempts=1))
    monkeypatch.setattr(causes, "glob", lambda pattern: ["/dev/video2", "/dev/video0"])
    with pytest.raises(SourceNotFound, match=r"plug it in; there are: /dev/video0, /dev/video2$"):
        list(source.frames())
    monkeypatch.setattr(causes, "glob", lambda pattern: [])
    (source,) = open_sources([MISSING], live=LiveSettings(max_attempts=1))
    with pytest.raises(SourceNotFound, match=r"there are: none \(in a container: pass it in\)"):
        list(source.frames())


def test_a_device_that_is_no_camera_is_told_from_one_that_is_not_there():
    connection = CameraConnection(device_address("/dev/null"), LiveSettings(), 1, Effort())
    with pytest.raises(Trouble) as caught, connection:
        pass
    assert caught.value.cause is Cause.OTHER
    assert "leave out size and fps, or try its neighbour" in caught.value.detail


@pytest.mark.parametrize(
    ("error", "cause", "remedy"),
    [
        (av.PermissionError(13, ""), Cause.UNAUTHORISED, "add the user to the group"),
        (av.OSError(errno.EBUSY, ""), Cause.REFUSED, "another program uses the device"),
        (av.OSError(errno.ENODEV, ""), Cause.NOT_FOUND, "plug it in"),
        (av.InvalidDataError(errno.EINVAL, ""), Cause.OTHER, "leave out size and fps"),
        (ValueError("no container format"), Cause.UNSUPPORTED_PROTOCOL, "cannot read webcams"),
    ],
)
def test_what_is_wrong_with_a_device_comes_with_a_remedy(error, cause, remedy):
    trouble = causes.of_opening(error, "v4l2", seconds=0.1, deadline=10.0)
    assert trouble.cause is cause and remedy in trouble.detail


def test_the_program_says_what_to_do_and_ends_with_the_code_of_a_source(capsys, small_model):
    for url, remedy in (
        (f"{MISSING}#max_attempts=1", "plug it in; there are: "),
        ("srt://127.0.0.1:9000", "install a PyAV"),
    ):
        if url.startswith("srt") and has_srt():
            continue
        arguments = [url, "--model", str(small_model), "--out", "null:", "--quiet", "--set"]
        assert run_stream.main([*arguments, "report=null"]) == 3
        assert remedy in capsys.readouterr().err


def test_other_schemes_are_named_as_unsupported():
    with pytest.raises(ConfigError, match="gopher:// sources are not supported"):
        open_sources(["gopher://u:secret@cam/x"])
