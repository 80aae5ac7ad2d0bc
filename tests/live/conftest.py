"""Fixtures that give a test its cameras and take them away again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.live.kit.cameras import CameraServer, why_no_cameras
from tests.live.kit.mjpeg import MjpegServer
from tests.live.kit.wire import Wire


@pytest.fixture
def start_cameras() -> Iterator[Callable[..., CameraServer]]:
    """``start_cameras(user=..., password=...)``: another server process, ended with the test.

    Skips where GStreamer's RTSP server is not installed.
    """
    missing = why_no_cameras()
    if missing:
        pytest.skip(missing)
    with ExitStack() as stack:
        yield lambda **options: stack.enter_context(CameraServer(**options))


@pytest.fixture
def cameras(start_cameras: Callable[..., CameraServer]) -> CameraServer:
    """A server process without cameras: ``cameras.add("front")``."""
    return start_cameras()


@pytest.fixture
def mjpeg() -> Iterator[Callable[..., MjpegServer]]:
    """``mjpeg(size=..., fps=...)``: a camera that speaks HTTP, ended with the test."""
    with ExitStack() as stack:

        def start(**options: Any) -> MjpegServer:
            server = MjpegServer(**options)
            stack.callback(server.close)
            return server

        yield start


@pytest.fixture
def wire() -> Iterator[Callable[[int], Wire]]:
    """``wire(port)``: a wire to the server on that port, which can be held; ended with the test."""
    with ExitStack() as stack:

        def lay(behind: int) -> Wire:
            line = Wire(behind)
            stack.callback(line.close)
            return line

        yield lay
