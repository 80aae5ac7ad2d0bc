"""A media server between a program that pushes and one that plays; see `relay_process`."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.live.kit.gstreamer import SYSTEM_PYTHON, why_no_gstreamer
from tests.live.kit.ports import free_port

PROGRAM = Path(__file__).with_name("relay_process.py")
PACKAGES = (
    "gir1.2-gst-rtsp-server-1.0 python3-gi gstreamer1.0-plugins-bad gstreamer1.0-plugins-good"
)
ELEMENTS = "rtph264depay h264parse rtph264pay udpsink udpsrc"


class Relay:
    """A process that takes RTSP at `push_url` and plays it at `play_url`."""

    def __init__(self) -> None:
        if missing := why_no_gstreamer(ELEMENTS, PACKAGES):
            pytest.skip(missing)
        port = free_port()
        self.push_url, self.play_url = (f"rtsp://127.0.0.1:{port}/{way}" for way in ("in", "out"))
        self._command = [SYSTEM_PYTHON, str(PROGRAM), str(port), str(free_port())]

    def __enter__(self) -> Relay:
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(self._command, stdin=pipe, stdout=pipe, text=True)
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"
        return self

    def __exit__(self, *ended: object) -> None:
        self._process.kill()
        self._process.communicate()
