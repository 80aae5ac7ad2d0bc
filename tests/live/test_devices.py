"""Webcams: how they are named, asked for, and missed."""

from __future__ import annotations

import pytest

from pipeline.errors import ConfigError, SourceNotFound
from pipeline.settings import LiveSettings
from pipeline.sources import open_sources
from pipeline.sources.live.options import input_options
from tests.live.scripted import watched
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


def test_other_schemes_are_named_as_unsupported():
    with pytest.raises(ConfigError, match="gopher:// sources are not supported"):
        open_sources(["gopher://u:secret@cam/x"])
