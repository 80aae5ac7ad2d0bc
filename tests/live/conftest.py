"""Fixtures that give a test its cameras and take them away again."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.live.kit.cameras import CameraServer, why_no_cameras
from tests.live.kit.line import Line
from tests.live.kit.mjpeg import MjpegServer
from tests.live.kit.wire import Wire
from tests.pipeline.model_files import write_model


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


@pytest.fixture(scope="session")
def unsigned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate of a server's own making, and its key."""
    if not shutil.which("openssl"):
        pytest.skip("no openssl here, to make a certificate with")
    folder = tmp_path_factory.mktemp("tls")
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
            *("-subj", "/CN=localhost", "-keyout", str(key), "-out", str(certificate)),
        ],
        check=True,
        capture_output=True,
    )
    return certificate, key


@pytest.fixture(scope="session")
def unsigned_context(unsigned: tuple[Path, Path]) -> ssl.SSLContext:
    """What a server needs to speak TLS with that certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*unsigned)
    return context


@pytest.fixture
def wire() -> Iterator[Callable[[int], Wire]]:
    """``wire(port)``: a wire to the server on that port, which can be held; ended with the test."""
    with ExitStack() as stack:

        def lay(behind: int) -> Wire:
            line = Wire(behind)
            stack.callback(line.close)
            return line

        yield lay


@pytest.fixture(scope="session")
def small_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model file that takes no time."""
    return write_model(tmp_path_factory.mktemp("model") / "small.onnx")


@pytest.fixture
def start_line(tmp_path: Path, small_model: Path) -> Iterator[Callable[..., Line]]:
    """``start_line(urls, out=[...], settings=[...])``: the program, killed with the test."""
    with ExitStack() as stack:

        def start(urls: list[str], **options: Any) -> Line:
            return stack.enter_context(Line(urls, tmp_path, **{"model": small_model} | options))

        yield start


@pytest.fixture
def start_slow_line(start_line: Callable[..., Line]) -> Callable[..., Line]:
    """``start_slow_line(urls, call_ms=100)``: a line whose engine takes so long for a call."""
    return lambda urls, call_ms, **options: start_line(urls, call_ms=call_ms, **options)
