"""A media server that speaks RTMP, nginx with its module, and a camera that publishes there."""

from __future__ import annotations

import shutil
import subprocess
import threading
import time
from pathlib import Path

import av
import numpy as np

from tests.live.kit.painting import Painter
from tests.live.kit.ports import free_port

PACKAGE = "libnginx-mod-rtmp"
_MODULE = Path("/usr/lib/nginx/modules/ngx_rtmp_module.so")
_CONFIGURATION = """
load_module {module};
daemon off;
master_process off;
pid {folder}/pid;
error_log {folder}/errors.txt;
events {{}}
rtmp {{
    access_log off;
    server {{
        listen 127.0.0.1:{port};
        application live {{ live on; wait_key on; }}
    }}
}}
"""


def why_no_rtmp() -> str | None:
    """What has to be installed before an `RtmpServer` can start; None when all is there."""
    if shutil.which("nginx", path="/usr/sbin:/usr/bin") and _MODULE.exists():
        return None
    return f"no RTMP server here; on Debian: apt install {PACKAGE}"


class RtmpServer:
    """The server; ``with`` ends it.

    Args:
        folder: For its configuration and what it says.
    """

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        configuration = folder / "nginx.conf"
        configuration.write_text(
            _CONFIGURATION.format(module=_MODULE, folder=folder, port=self.port)
        )
        program = shutil.which("nginx", path="/usr/sbin:/usr/bin")
        assert program is not None
        errors = folder / "errors.txt"
        self._process = subprocess.Popen(
            [program, "-p", str(folder), "-c", str(configuration), "-e", str(errors)]
        )

    def url(self, path: str = "cam") -> str:
        """Where a camera publishes, and where it is watched."""
        return f"rtmp://127.0.0.1:{self.port}/live/{path}"

    def __enter__(self) -> RtmpServer:
        return self

    def __exit__(self, *ended: object) -> None:
        self._process.kill()
        self._process.wait()


class Publisher:
    """A camera that sends what it paints to a server, until the block ends.

    Args:
        url: Of the server; it is tried until it takes the stream.
        size: Width and height; both even.
        fps: Pictures a second; a keyframe each second.
    """

    def __init__(self, url: str, size: tuple[int, int] = (320, 180), fps: int = 25) -> None:
        self._url, self._fps = url, fps
        self._painter = Painter(*size)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)

    def __enter__(self) -> Publisher:
        self._thread.start()
        return self

    def __exit__(self, *ended: object) -> None:
        self._over.set()
        self._thread.join()

    def _work(self) -> None:
        while not self._over.wait(0.1):
            try:
                self._publish()
            except av.FFmpegError:
                continue  # the server is not there yet, or has gone

    def _publish(self) -> None:
        painter, number, due = self._painter, 0, time.monotonic()
        with av.open(self._url, "w", format="flv") as output:
            stream = output.add_stream("libx264", rate=self._fps)
            stream.width, stream.height, stream.pix_fmt = painter.width, painter.height, "yuv420p"
            stream.options = {"preset": "ultrafast", "tune": "zerolatency", "g": str(self._fps)}
            stream.codec_context.thread_count = 1
            while not self._over.wait(max(0.0, due - time.monotonic())):
                planes = painter.picture(number, round(time.monotonic() * 1000))
                yuv = np.frombuffer(planes, np.uint8).reshape(-1, painter.width)
                picture = av.VideoFrame.from_ndarray(yuv, "yuv420p")
                picture.pts = number
                output.mux(stream.encode(picture))
                number += 1
                due = max(due + 1 / self._fps, time.monotonic() - 1.0)
