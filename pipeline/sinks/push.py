"""Live video to a server: RTSP (ANNOUNCE and RECORD), RTMP or SRT."""

from __future__ import annotations

import json
import logging
import os
import re
import select
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote

import av
import av.error

from pipeline.errors import ConfigError, SinkError
from pipeline.frame import Result
from pipeline.network.address import Address, parse_address
from pipeline.network.backoff import Backoff
from pipeline.network.causes import PERMANENT, Cause, Trouble, of_opening, of_reading
from pipeline.redaction import without_stream_key
from pipeline.settings import VideoSettings
from pipeline.sinks import pusher
from pipeline.sinks.footage import Footage, FootageEncoder
from pipeline.sinks.pattern import fit_for_a_name
from pipeline.sinks.protocol import SinkTarget

log = logging.getLogger(__name__)

SCHEMES = {"rtsp", "rtsps", "rtmp", "rtmps", "srt"}

_FORMATS = {"rtsp": "rtsp", "rtsps": "rtsp", "rtmp": "flv", "rtmps": "flv", "srt": "mpegts"}
_OPTIONS = {
    "rtsp": {"rtsp_transport": "tcp"},
    "rtsps": {"rtsp_transport": "tcp"},
    "rtmp": {"flvflags": "no_duration_filesize"},
    "rtmps": {"flvflags": "no_duration_filesize"},
    "srt": {},
}
_VARIABLE = re.compile(r"\$(?:(\w+)|\{(\w+)\})")
_OPEN_SECONDS = 5.0
_SEND_SECONDS = 3.0
_FLV_SECONDS = 24 * 86_400.0  # of a connection: FLV counts milliseconds in 31 bits, 24.8 days
_MOMENT = 0.1  # seconds that `write` may wait for a pipe


class PushSink:
    """Send video to a server as it comes, and try again for ever when the server goes.

    `write` takes no longer than encoding and a moment: a program of its own talks to the server
    (see `pipeline.sinks.pusher`). A result that cannot be sent is dropped before it is encoded,
    so what is sent can always be decoded; after a gap it goes on with a keyframe.

    Args:
        url: The server; ``{source}`` stands for the source's name. User, password, values of the
            query, and in the path of ``rtmp://`` anything, may be ``$NAME``: then the environment
            holds it. The last part of that path is a key, and not shown.
        target: Where the results come from.
        video: How to encode.

    Raises:
        ConfigError: The address cannot be read, or there is no such encoder here.
    """

    wants_picture = True
    may_drop = True
    capacity = 2

    def __init__(self, url: str, target: SinkTarget, video: VideoSettings) -> None:
        self.url, self.name = url, _shown(url, target.name)
        self._address = parse_address(_filled_in(url, target.name), os.environ)
        if self._address.host is None:
            raise ConfigError(f"out: {self.name}: there is no host to send to")
        self.frames = 0
        self.connections = 0
        self.dropped: Counter[str] = Counter()
        self.failures: Counter[str] = Counter()
        self._bytes = 0
        self._encoder = FootageEncoder(target, video, video.keyframe_seconds, at_once=True)
        self._backoff = Backoff()
        self._link: _Link | None = None
        self._retry_at = 0.0
        self._trouble: Trouble | None = None
        self._state_at_end: str | None = None

    def __enter__(self) -> PushSink:
        return self

    def __exit__(self, *ended: object) -> None:
        self._state_at_end = self._state()
        self._encoder.close()
        self._hang_up()

    @property
    def takes_gpu_pictures(self) -> bool:
        """Whether NVENC encodes."""
        return self._encoder.takes_gpu_pictures

    def write(self, result: Result) -> None:
        """Send one result, or drop it and count why."""
        now = time.monotonic()
        self._listen(now)
        if self._link is None and now < self._retry_at:
            self.dropped["unreachable"] += 1
        elif self._link is not None and not self._link.connected:
            self.dropped["connecting"] += 1
        elif self._link is not None and not self._link.flush(_MOMENT):
            self.dropped["queue_full"] += 1
        else:
            self._send(result)

    def report(self) -> dict[str, Any]:
        """Address, frames sent and dropped, bytes, connections, failures by cause, encoder."""
        return {
            "path": self.name,
            "frames": self.frames,
            "dropped": dict(self.dropped),
            "bytes": self._bytes,
            "connections": self.connections,
            "failures": dict(self.failures),
            "state": self._state_at_end or self._state(),
            "trouble": self._trouble.detail if self._trouble else None,
            **self._encoder.facts(),
        }

    def _state(self) -> str:
        if self._link is not None:
            return "RUNNING" if self._link.connected else "CONNECTING"
        return "BACKOFF" if self._trouble else "READY"

    def _send(self, result: Result) -> None:
        if self._link is not None and not self._link.can_tell(result.frame.pts_seconds):
            self._hang_up()
        begin = self._link is None or self._link.frames <= 1  # 1: what it connected with is old
        for footage in self._encoder.encode(result, begin=begin):
            if self._link is not None and footage.encoder is not self._link.encoder:
                self._hang_up()  # another size needs another announcement
            if self._link is None:
                self._link = _Link(self._address, footage)
            else:  # the first picture counts when the server has agreed to take it
                self.frames += 1
            self._link.send(footage)
            self._bytes += footage.packet.size

    def _listen(self, now: float) -> None:
        """Learn what became of the connection."""
        if self._link is None:
            return
        was_connected = self._link.connected
        trouble = self._link.listen(now)
        if self._link.connected and not was_connected:
            self.connections += 1
            self.frames += 1
            if self._trouble is not None:
                log.info("%s: connected", self.name)
            self._trouble = None
        if trouble is not None:
            self._lost(trouble, now)

    def _lost(self, trouble: Trouble, now: float) -> None:
        assert self._link is not None
        good_seconds = self._link.good_seconds(now)
        self._hang_up(0.0)
        self.failures[trouble.cause.value] += 1
        if trouble.cause in PERMANENT:
            raise SinkError(f"{self.name}: {trouble.detail}")
        self._retry_at = now + self._backoff.wait_after(trouble.cause, now, good_seconds)
        if self._trouble is None or self._trouble.cause is not trouble.cause:
            log.warning("%s: %s; trying again", self.name, trouble.detail)
        self._trouble = trouble

    def _hang_up(self, within: float = pusher.CLOSE_SECONDS) -> None:
        link, self._link = self._link, None
        if link is None:
            return
        if not link.connected:
            self.dropped["unreachable"] += 1
        link.close(within)


class _Link:
    """The program that talks to the server, and the pipes to it and from it; nothing here waits.

    Attributes:
        encoder: Where what is sent comes from.
        connected: Whether the server has agreed to take it.
        frames: Packets that were given to it.
    """

    def __init__(self, address: Address, first: Footage) -> None:
        self.encoder = first.encoder
        self.connected = False
        self.frames = 0
        self._scheme = address.scheme
        self._began, self._first_seconds = time.monotonic(), first.moment.seconds
        self._connected_at = 0.0
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(Path(pusher.__file__))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # FFmpeg tells there what it is asked for, with passwords
            bufsize=0,
            start_new_session=True,  # Ctrl-C is not for it
        )
        assert self._process.stdin is not None and self._process.stdout is not None
        self._pipe, self._answers = self._process.stdin.fileno(), self._process.stdout.fileno()
        os.set_blocking(self._pipe, False)
        os.set_blocking(self._answers, False)
        self._unsent = bytearray(json.dumps(_order(address, first)).encode() + b"\n")
        self._heard = b""

    def can_tell(self, seconds: float) -> bool:
        """Tell whether a picture can be shown at that time; players would see a jump back."""
        is_flv = _FORMATS[self._scheme] == "flv"
        return not is_flv or seconds - self._first_seconds < _FLV_SECONDS

    def send(self, footage: Footage) -> None:
        """Hand over one packet; what does not fit into the pipe waits for `flush`."""
        packet, data = footage.packet, bytes(footage.packet)
        head = pusher.HEAD.pack(
            packet.pts or 0, packet.duration or 0, len(data), packet.is_keyframe
        )
        self._unsent += head + data
        self.frames += 1
        self.flush(_MOMENT)

    def flush(self, within: float) -> bool:
        """Push into the pipe what has been waiting; tell whether all of it went."""
        deadline = time.monotonic() + within
        while self._unsent:
            try:
                del self._unsent[: os.write(self._pipe, self._unsent)]
            except BlockingIOError:
                left = deadline - time.monotonic()
                if left <= 0 or not select.select([], [self._pipe], [], left)[1]:
                    return False
            except BrokenPipeError:  # it has ended; `listen` knows why
                return False
        return True

    def listen(self, now: float) -> Trouble | None:
        """Hear whether it has connected; return why it ended, if it did."""
        self.flush(0.0)  # a keyframe may be larger than a pipe
        ended = self._process.poll() is not None
        with suppress(BlockingIOError):  # it has said nothing new
            self._heard += os.read(self._answers, 4096)
        *lines, self._heard = self._heard.split(b"\n")
        for line in map(json.loads, lines):
            if "error" in line:
                return self._failure(line["error"], now)
            self.connected, self._connected_at = True, now
        if ended:
            return self._ending()
        return None

    def good_seconds(self, now: float) -> float:
        """How long the server has been taking pictures."""
        return now - self._connected_at if self.connected else 0.0

    def close(self, within: float) -> None:
        """Let it say goodbye to the server, for at most so long; then it is killed."""
        assert self._process.stdin is not None and self._process.stdout is not None
        if within:
            self.flush(_MOMENT)
        self._process.stdin.close()
        try:
            self._process.wait(within)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def _failure(self, number: int, now: float) -> Trouble:
        error = error_of(number)
        if self.connected:
            return of_reading(error, _SEND_SECONDS)
        return of_opening(error, self._scheme, now - self._began, _OPEN_SECONDS)

    def _ending(self) -> Trouble:
        code = self._process.returncode
        if code != -signal.SIGALRM:
            return Trouble(Cause.OTHER, f"the program that sends has ended (exit code {code})")
        if self.connected:
            return Trouble(Cause.STALLED, f"took no data for {_SEND_SECONDS:g} s")
        return Trouble(Cause.TIMEOUT, f"no usable answer within {_OPEN_SECONDS:g} s")


def _shown(url: str, source: str) -> str:
    """What the user sees of an address: different for every source, if `url` is."""
    shown = without_stream_key(parse_address(url, os.environ).shown)
    if "{source}" in url and "{source}" not in shown:
        return f"{shown} ({source})"
    return shown.replace("{source}", _quoted(source))


def _filled_in(url: str, source: str) -> str:
    """An address with the source's name, and the path of ``rtmp://`` with its variables."""
    if parts := re.fullmatch(r"(rtmps?://(?:.*@)?[^/?]*)([^?]*)(.*)", url, re.DOTALL):
        host, path, query = parts.groups()
        url = host + _VARIABLE.sub(_looked_up, path) + query
    return url.replace("{source}", _quoted(source))


def _quoted(source: str) -> str:
    return quote(fit_for_a_name(source) or "source", safe="")


def _looked_up(variable: re.Match[str]) -> str:
    name = variable[1] or variable[2]
    if name not in os.environ:
        raise ConfigError(f"out: the environment variable {name} is not set")
    return quote(os.environ[name], safe="/?=&%+,;!*'()~")


def error_of(number: int) -> av.FFmpegError:
    """The error that PyAV raises for one of FFmpeg's numbers."""
    kinds = cast("dict[int, type[av.FFmpegError]]", av.error.classes)
    return kinds.get(number, av.FFmpegError)(number, "")


def _order(address: Address, first: Footage) -> dict[str, Any]:
    """What the program is told; see there."""
    encoder = first.encoder
    height, width = encoder.size_hw
    return {
        "url": address.opened.reveal(),
        "format": _FORMATS[address.scheme],
        "options": _OPTIONS[address.scheme],
        "codec": encoder.encoding.encoder,
        "size": [width, height],
        "time_base": [encoder.time_base.numerator, encoder.time_base.denominator],
        "open_seconds": _OPEN_SECONDS,
        "send_seconds": _SEND_SECONDS,
    }
