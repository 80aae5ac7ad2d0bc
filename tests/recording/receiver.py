"""A server that takes pushed video, and what it got; see `rtsp_receiver`."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import av
import pytest

from tests.clips import read_number
from tests.live.kit.gstreamer import SYSTEM_PYTHON, why_no_gstreamer
from tests.live.kit.ports import free_port

PROGRAM = Path(__file__).with_name("rtsp_receiver.py")
PACKAGES = (
    "gir1.2-gst-rtsp-server-1.0 python3-gi gstreamer1.0-plugins-bad gstreamer1.0-plugins-good"
)
ELEMENTS = "rtph264depay h264parse filesink"


def why_no_receiver() -> str | None:
    """What has to be installed before a `Receiver` can start; None when all is there."""
    return why_no_gstreamer(ELEMENTS, PACKAGES)


class Receiver:
    """A process that takes RTSP pushes to ``/cam``.

    Args:
        folder: Where it puts what it gets.
        login: User and password that it asks for.
    """

    def __init__(self, folder: Path, *login: str) -> None:
        if why_no_receiver():
            pytest.skip(str(why_no_receiver()))
        self.port = free_port()
        self.url = f"rtsp://127.0.0.1:{self.port}/cam"
        self._folder, self._login = folder, login
        self._starts = 0
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Listen, on the same port at every start."""
        self._starts += 1
        self.folder.mkdir(parents=True)
        command = [SYSTEM_PYTHON, str(PROGRAM), str(self.port), str(self.folder), *self._login]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"

    @property
    def folder(self) -> Path:
        """Holds what came since the last start."""
        return self._folder / str(self._starts)

    def kill(self) -> None:
        """End it as a power cut does."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(signal.SIGKILL)
            process.communicate()

    def got(self) -> list[list[int]]:
        """Numbers of the pictures of each connection since the last start."""
        return [shown(path) for path in sorted(self.folder.glob("*.h264"))]

    def count(self) -> int:
        """How many pictures came since the last start."""
        return sum(map(len, self.got()))

    def __enter__(self) -> Receiver:
        self.start()
        return self

    def __exit__(self, *ended: object) -> None:
        self.kill()


def shown(path: Path) -> list[int]:
    """Numbers of the pictures in a file that is still being written."""
    numbers: list[int] = []
    try:
        with av.open(str(path)) as container:
            for frame in container.decode(video=0):
                numbers.append(read_number(frame))
    except av.FFmpegError:
        pass  # still being written; what was shown before counts
    return numbers
