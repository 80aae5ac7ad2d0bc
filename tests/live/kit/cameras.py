"""Cameras that speak RTSP, and how to break them.

>>> with CameraServer() as server:                                   # doctest: +SKIP
...     front = server.add("front", size=(320, 180), fps=25)
...     front.stall()                                                # the socket stays open
...     server.kill(); server.start()                                # the same port again
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tests.live.kit.gstreamer import SYSTEM_PYTHON, why_no_gstreamer
from tests.live.kit.ports import free_port

PROGRAM = Path(__file__).with_name("camera_process.py")
PACKAGES = "gir1.2-gst-rtsp-server-1.0 python3-gi gstreamer1.0-plugins-ugly"
TLS_PACKAGE = "glib-networking"
_TLS_PROBE = "from gi.repository import Gio; assert Gio.TlsBackend.get_default().supports_tls()"
ELEMENTS = "appsrc x264enc breakmydata rtph264pay jpegenc rtpjpegpay audiotestsrc alawenc"


def why_no_cameras() -> str | None:
    """What has to be installed before a `CameraServer` can start; None when all is there."""
    return why_no_gstreamer(ELEMENTS, PACKAGES)


def why_no_secure_cameras() -> str | None:
    """What has to be installed before a `CameraServer` can have a certificate."""
    missing = why_no_cameras()
    probe = [SYSTEM_PYTHON, "-c", _TLS_PROBE]
    if missing is None and subprocess.run(probe, capture_output=True, check=False).returncode:
        return f"GLib has no TLS here; on Debian: apt install {TLS_PACKAGE}"
    return missing


class Camera:
    """One mount of a `CameraServer`.

    Attributes:
        url: Of the stream; with the password, if the server has one.
    """

    def __init__(self, server: CameraServer, path: str, options: dict[str, Any]) -> None:
        self.path = path
        self.options = options
        self.server = server

    @property
    def url(self) -> str:
        return self.server.url(self.path)

    def change(self, size: tuple[int, int] | None = None, **options: Any) -> None:
        """Another size, fps, codec... for whoever connects from now on."""
        if size is not None:
            options |= {"width": size[0], "height": size[1]}
        self.options |= options
        self._do("change", **options)

    def stall(self) -> None:
        """Send no more pictures; the connection stays open and answers."""
        self._do("stall")

    def resume(self, *, burst: bool = False) -> None:
        """Go on; with `burst` everything that was painted meanwhile comes first, at once."""
        self._do("resume", burst=burst)

    def rate(self, fps: float) -> None:
        """Send at another rate than announced, at once."""
        self._do("rate", fps=fps)

    def harm(self, *, damage: float = 0.0, loss: float = 0.0) -> None:
        """Overwrite that share of the bytes, lose that share of the packets."""
        self._do("harm", damage=damage, loss=loss)

    def jump(self, seconds: float) -> None:
        """Shift the timestamps from now on."""
        self._do("jump", seconds=seconds)

    def remove(self) -> None:
        """From now on it is not found."""
        self._do("remove")

    def add(self) -> None:
        """Put it (back) in place."""
        self.server.tell("add", path=self.path, **self.options)

    def painted(self) -> int:
        """How many pictures it has painted since the server started."""
        return int(self._do("painted"))

    def _do(self, command: str, **values: Any) -> Any:
        return self.server.tell(command, path=self.path, **values)


class CameraServer:
    """A process with any number of cameras; `close` it, best by ``with``.

    Args:
        port: Default: one that is free, and stays the same over `kill` and `start`.
        user, password: Asked of every viewer, if given.
        method: How: ``basic`` or ``digest``.
        certificate: With it the server speaks TLS: the files of the certificate and its key.
    """

    def __init__(
        self,
        port: int | None = None,
        *,
        user: str | None = None,
        password: str | None = None,
        method: str = "basic",
        certificate: tuple[Path, Path] | None = None,
    ) -> None:
        self.port = port or free_port()
        self.cameras: dict[str, Camera] = {}
        self._login = None if user is None or password is None else (user, password, method)
        self._certificate = certificate
        self._process: subprocess.Popen[str] | None = None
        self.start()

    def url(self, path: str, *, login: tuple[str, str] | None = None) -> str:
        """Where a camera is; `login` replaces the right user and password."""
        pair = login or (self._login[:2] if self._login else None)
        prefix = "".join(f"{quote(pair[0], safe='')}:{quote(pair[1], safe='')}@" if pair else "")
        scheme = "rtsps" if self._certificate else "rtsp"
        return f"{scheme}://{prefix}127.0.0.1:{self.port}/{path}"

    def add(
        self,
        path: str = "cam",
        *,
        size: tuple[int, int] = (320, 180),
        fps: int = 25,
        codec: str = "h264",
        keyframe_every: int = 25,
        kbit: int = 800,
        first_timestamp: int = -1,
        wall_clock: bool = False,
        seed: int = 0,
    ) -> Camera:
        """Another camera.

        Args:
            size: Width and height; both even.
            codec: ``h264``, ``mjpeg``, ``sound`` (no picture at all) or ``unknown``.
            first_timestamp: Of RTP, 32 bits; -1 takes one by chance.
            wall_clock: Paint the time of day, as ``synthetic://street?clock=1`` does.
            seed: Of the packets that `Camera.harm` loses.
        """
        options = {"width": size[0], "height": size[1], "fps": fps, "codec": codec, "kbit": kbit}
        options |= {"keyframe_every": keyframe_every, "first_timestamp": first_timestamp}
        options["wall_clock"] = wall_clock
        camera = self.cameras[path] = Camera(self, path, options | {"seed": seed})
        camera.add()
        return camera

    def start(self) -> None:
        """Listen, with the cameras that were there before."""
        command = [SYSTEM_PYTHON, str(PROGRAM), str(self.port), *(self._login or ())]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        if self._answer() != {"ready": True}:
            raise RuntimeError("the camera server said something unexpected")
        if self._certificate:
            certificate, key = self._certificate
            self.tell("secure", certificate=str(certificate), key=str(key))
        for camera in self.cameras.values():
            camera.add()
        self.tell("listen")

    def kill(self) -> None:
        """SIGKILL: connections break, new ones are refused."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    close = kill

    def hang_up(self) -> None:
        """Close every connection, and take new ones."""
        self.tell("hang_up")

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Inside the block the process stands still: connections are accepted, nothing comes."""
        self.freeze()
        try:
            yield
        finally:
            self.thaw()

    def freeze(self) -> None:
        """SIGSTOP; commands would wait for `thaw`."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Go on after `freeze`."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGCONT)

    def tell(self, command: str, **values: Any) -> Any:
        """Have a command of `camera_process` carried out; return its answer."""
        assert self._process is not None and self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": command, **values}) + "\n")
        self._process.stdin.flush()
        answer = self._answer()
        if "error" in answer:
            raise RuntimeError(f"camera server: {answer['error']}")
        return answer["answer"]

    def _answer(self) -> dict[str, Any]:
        assert self._process is not None and self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            code = self._process.wait()
            raise RuntimeError(f"the camera server ended with {code}; see its stderr")
        return dict(json.loads(line))

    def __enter__(self) -> CameraServer:
        return self

    def __exit__(self, *ended: object) -> None:
        self.close()
