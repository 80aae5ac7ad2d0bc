"""Other ways than RTSP for pictures to come: HLS, transport streams, Motion JPEG, RTMP, TLS."""

from __future__ import annotations

import logging
import socket
import statistics
import threading
from fractions import Fraction
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice
from pathlib import Path

import av
import pytest

from pipeline.errors import UnsupportedCodec
from pipeline.network.address import parse_address
from pipeline.settings import LiveSettings
from pipeline.sources import open_sources
from pipeline.sources.live.connection import CameraConnection
from pipeline.sources.live.decoder import Effort
from pipeline.sources.live.hearing import Hearing
from pipeline.sources.live.mailbox import Mailbox
from tests.clips import as_frame, numbered_picture, read_number
from tests.live.kit.cameras import why_no_secure_cameras
from tests.live.kit.odd_servers import OddServer
from tests.live.kit.ports import free_port
from tests.live.kit.rtmp import Publisher, RtmpServer, why_no_rtmp
from tests.live.kit.serving import read_request
from tests.live.kit.watching import Watcher
from tests.live.scripted import watched
from tests.waiting import until

SIZE = (96, 64)


def transport_stream(
    path: Path, frames: int, gop: int = 10, fps: int = 25, pixel_aspect: Fraction | None = None
) -> Path:
    with av.open(str(path), "w", format="mpegts") as output:
        stream = output.add_stream("libx264", rate=fps)
        stream.width, stream.height = SIZE
        stream.pix_fmt = "yuv420p"
        stream.options = {"preset": "ultrafast", "tune": "zerolatency", "g": str(gop)}
        stream.codec_context.thread_count = 1
        if pixel_aspect is not None:
            stream.codec_context.sample_aspect_ratio = pixel_aspect
        for number in range(frames):
            output.mux(stream.encode(as_frame(numbered_picture(number, SIZE), "yuv420p")))
        output.mux(stream.encode(None))
    return path


class StreamServer(OddServer):
    """An endless transport stream over HTTP: the file's bytes, in real time, then silence."""

    def __init__(self, path: Path, seconds: float) -> None:
        self.content, self.seconds = path.read_bytes(), seconds
        self.closed = threading.Event()
        super().__init__()

    def handle(self, client: socket.socket) -> None:
        read_request(client)
        client.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: video/mp2t\r\n\r\n")
        pieces = [self.content[at : at + 188] for at in range(0, len(self.content), 188)]
        for piece in pieces:
            client.sendall(piece)
            self.closed.wait(self.seconds / len(pieces))
        while client.recv(4096):
            pass  # until the client has gone

    def close(self) -> None:
        self.closed.set()
        super().close()


def damaged(path: Path, every: int) -> Path:
    """Leave out each `every`-th packet of 188 bytes behind the first hundred."""
    content = path.read_bytes()
    packets = [content[at : at + 188] for at in range(0, len(content), 188)]
    kept = [p for n, p in enumerate(packets) if n < 30 or n % every]
    path.write_bytes(b"".join(kept))
    return path


class LeadingServer(OddServer):
    """Over HTTP a redirection or a playlist that leads to `target`; over TCP just a playlist."""

    def __init__(self, target: str) -> None:
        self.target = target
        super().__init__()

    def handle(self, client: socket.socket) -> None:
        lines = ["#EXTM3U", "#EXT-X-TARGETDURATION:2", "#EXTINF:2,", self.target, "#EXT-X-ENDLIST"]
        body = "\n".join([*lines, ""])
        client.settimeout(0.5)  # over TCP nobody asks
        try:
            asked = read_request(client)[:1]
        except TimeoutError:
            client.sendall(body.encode())
            return
        head = ["HTTP/1.1 200 OK", "Content-Type: application/vnd.apple.mpegurl"]
        if "/elsewhere" in "".join(asked):
            head = ["HTTP/1.1 302 Found", f"Location: {self.target}"]
        client.sendall("\r\n".join([*head, "Connection: close", "", body]).encode())


@pytest.mark.parametrize("spelling", ["file://{}", "file:{}", "concat:{}", "subfile:{}", "{}"])
@pytest.mark.parametrize("url", ["http://{}/elsewhere", "http://{}/a.m3u8", "tcp://{}/a.m3u8"])
def test_a_camera_cannot_lead_to_a_file_of_ours(tmp_path, url, spelling):
    path = transport_stream(tmp_path / "private.ts", frames=25)
    if spelling.startswith("subfile"):
        spelling = f"subfile,,start,0,end,{path.stat().st_size},,:{{}}"
    with LeadingServer(spelling.format(path)) as server:
        url = url.format(f"127.0.0.1:{server.port}")
        with Watcher(f"{url}#max_attempts=1&open_seconds=5") as watcher:
            until(lambda: watcher.error is not None)
        assert watcher.seen == [] and watcher.stats.connections == 0
        assert server.connections > 0


def test_a_transport_stream_over_http_is_a_camera(tmp_path):
    path = transport_stream(tmp_path / "a.ts", frames=50)
    with StreamServer(path, seconds=2.0) as server:
        (source,) = open_sources([server.url("http")])
        with watched(source) as watch:
            watch.wait_for_frames(10)
    numbers = [read_number(frame.picture) for frame in watch.frames]
    assert numbers == sorted(numbers)


@pytest.mark.parametrize("policy", ["skip", "flagged", "keep"])
def test_what_is_lost_from_a_transport_stream_is_dealt_with_by_policy(tmp_path, policy):
    path = damaged(transport_stream(tmp_path / "a.ts", frames=100), every=23)
    with StreamServer(path, seconds=2.0) as server:
        (source,) = open_sources([server.url("http")], live=LiveSettings(damaged=policy))
        with watched(source) as watch:
            until(lambda: len(watch.frames) + source.stats.frames_dropped.total() > 40)
            until(lambda: source.stats.state == "STALLED")
    stats = source.stats
    if policy == "keep":
        assert stats.anomalies["damaged_picture"] and not stats.frames_dropped["corrupt"]
    else:
        assert stats.frames_dropped["corrupt"] and not stats.anomalies["damaged_picture"]


def test_pictures_built_on_one_that_never_came_are_left_out(tmp_path):
    """The decoder does not notice: it takes an earlier picture instead."""
    whole, gappy = transport_stream(tmp_path / "a.ts", frames=60, gop=20), tmp_path / "b.ts"
    with av.open(str(whole)) as given, av.open(str(gappy), "w") as output:
        stream = output.add_stream_from_template(given.streams.video[0])
        for number, packet in enumerate(given.demux(video=0)):
            if packet.size and number not in (25, 31, 32):
                packet.stream = stream
                output.mux(packet)
    with StreamServer(gappy, seconds=4.0) as server:
        (source,) = open_sources([server.url("http")])
        with watched(source) as watch:
            until(lambda: any(read_number(frame.picture) >= 45 for frame in tuple(watch.frames)))
    shown = {read_number(frame.picture) for frame in watch.frames}
    assert not shown & set(range(25, 40)), shown
    assert source.stats.frames_dropped["corrupt"] == 40 - 25 - 3


def test_a_stream_is_shown_from_its_first_keyframe_on(tmp_path):
    content = transport_stream(tmp_path / "a.ts", frames=60, gop=20).read_bytes()
    (tmp_path / "b.ts").write_bytes(content[188 * 12 :])  # its begin, with a keyframe, is missed
    with StreamServer(tmp_path / "b.ts", seconds=1.5) as server:
        (source,) = open_sources([server.url("http")])
        with watched(source) as watch:
            watch.wait_for_frames(5)
    assert read_number(watch.frames[0].picture) >= 20
    assert source.stats.anomalies["before_keyframe"] or source.stats.frames_dropped["corrupt"]


def test_a_stream_that_waits_for_its_first_keyframe_is_alive(tmp_path):
    """So it is not taken for stalled before it may be a stream that marks no keyframes."""
    content = transport_stream(tmp_path / "a.ts", frames=60, gop=20).read_bytes()
    (tmp_path / "b.ts").write_bytes(content[188 * 12 :])
    box = Mailbox(threading.Condition())
    with StreamServer(tmp_path / "b.ts", seconds=0.0) as server:
        address = parse_address(server.url("http"), {})
        with CameraConnection(address, LiveSettings(), 1, Effort()) as connection:
            box.opened()
            next(iter(connection.pictures(box)))
    assert box.last_sign > box.opened_at


def test_a_camera_tells_the_shape_of_its_pixels_and_may_change_it(tmp_path):
    plain = transport_stream(tmp_path / "a.ts", frames=20)
    wide = transport_stream(tmp_path / "b.ts", frames=20, pixel_aspect=Fraction(16, 11))
    (tmp_path / "c.ts").write_bytes(plain.read_bytes() + wide.read_bytes())
    box = Mailbox(threading.Condition())
    with StreamServer(tmp_path / "c.ts", seconds=0.0) as server:
        address = parse_address(server.url("http"), {})
        with CameraConnection(address, LiveSettings(late_seconds=60), 1, Effort()) as connection:
            shapes = [picture.pixel_hw for picture in islice(connection.pictures(box), 35)]
    assert list(dict.fromkeys(shapes)) == [(1, 1), (11, 16)]


class HlsServer:
    """A playlist that grows by a piece of a second each second, as a live one does."""

    def __init__(self, folder: Path) -> None:
        class Handler(SimpleHTTPRequestHandler):
            def __init__(self, *args, **kwargs):
                super().__init__(*args, directory=str(folder), **kwargs)

            def log_message(self, *_):
                pass  # the terminal is for the tests

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/live.m3u8"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.05,))
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


def test_hls_comes_at_its_own_pace_though_it_is_fetched_in_pieces(tmp_path):
    pieces = [f"{n}.ts" for n in range(4)]
    with av.open(
        str(tmp_path / "live.m3u8"),
        "w",
        format="hls",
        options={"hls_time": "1", "hls_segment_filename": str(tmp_path / "%d.ts")},
    ) as output:
        stream = output.add_stream("libx264", rate=25)
        stream.width, stream.height = SIZE
        stream.pix_fmt = "yuv420p"
        stream.options = {"preset": "ultrafast", "g": "25"}
        stream.codec_context.thread_count = 1
        for number in range(100):
            output.mux(stream.encode(as_frame(numbered_picture(number, SIZE), "yuv420p")))
        output.mux(stream.encode(None))
    assert all((tmp_path / piece).exists() for piece in pieces)
    server = HlsServer(tmp_path)
    try:
        (source,) = open_sources([server.url])
        with watched(source) as watch:
            watch.wait_for_frames(40)
    finally:
        server.close()
    offs = [frame.arrival - read_number(frame.picture) / 25 for frame in watch.frames]
    # A machine that stands still for a while moves those behind it.
    in_step = max(sum(0 <= off - early < 0.1 for off in offs) for early in offs)
    assert in_step >= len(offs) / 3, "in bursts"
    assert source.name.endswith("-live")


def test_a_transport_stream_over_udp_is_a_camera(tmp_path):
    path, port = transport_stream(tmp_path / "a.ts", frames=75), free_port(udp=True)
    content, done = path.read_bytes(), threading.Event()

    def send() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            while not done.is_set():
                for at in range(0, len(content), 1316):
                    sender.sendto(content[at : at + 1316], ("127.0.0.1", port))
                    done.wait(3 * 1316 / len(content))

    thread = threading.Thread(target=send)
    thread.start()
    try:
        (source,) = open_sources([f"udp://127.0.0.1:{port}"])
        with watched(source) as watch:
            watch.wait_for_frames(20)
            assert watch.end() < 3.0
    finally:
        done.set()
        thread.join()


def test_motion_jpeg_has_the_time_of_its_arrivals(mjpeg):
    server = mjpeg(fps=10)
    (source,) = open_sources([server.url])
    with watched(source) as watch:
        watch.wait_for_frames(15)
    first, last = watch.frames[5], watch.frames[-1]  # the first ones may come together
    by_pts, by_arrival = last.pts_seconds - first.pts_seconds, last.arrival - first.arrival
    assert by_pts == pytest.approx(by_arrival, abs=0.001)
    assert by_pts > 0.8 * (len(watch.frames) - 6) / 10, (
        "not the 25 frames/s that FFmpeg takes for granted"
    )


def arrive_as_painted(url: str, count: int = 30) -> None:
    """Read `count` pictures: whole ones, in order, each soon after it was painted."""
    with Watcher(url) as watcher:
        watcher.wait_frames(5, within=60)  # what a server kept for those who come later
        seen = watcher.wait_frames(count, within=60)
    numbers = [frame.number for frame in seen]
    assert None not in numbers and numbers == sorted(set(numbers)), numbers
    assert all(frame.fault < 12 for frame in seen)
    assert statistics.median(frame.age for frame in seen) < 5.0
    assert watcher.source.name == f"127.0.0.1-{url.partition('#')[0].rpartition('/')[2]}"


def test_a_camera_that_publishes_by_rtmp_is_watched_by_rtmp(tmp_path):
    missing = why_no_rtmp()
    if missing:
        pytest.skip(missing)
    with RtmpServer(tmp_path) as server, Publisher(server.url()):
        arrive_as_painted(server.url())


def test_rtsps_is_rtsp_with_a_certificate_and_a_password(start_cameras, unsigned):
    missing = why_no_secure_cameras()
    if missing:
        pytest.skip(missing)
    server = start_cameras(user="viewer", password="p@ss:wörd", certificate=unsigned)
    url = server.add("cam").url
    assert url.startswith("rtsps://")
    with Watcher(f"{url}#verify_tls=true") as watcher:
        watcher.wait_failure("tls")
    arrive_as_painted(url)


def test_motion_jpeg_comes_by_https(mjpeg, unsigned_context):
    server = mjpeg(context=unsigned_context)
    assert server.url.startswith("https://")
    with Watcher(f"{server.url}#verify_tls=true") as watcher:
        watcher.wait_failure("tls")
    arrive_as_painted(server.url)


class FileServer(OddServer):
    """A file over HTTP.

    Args:
        content: Its bytes.
    """

    def __init__(self, content: bytes) -> None:
        self.content = content
        super().__init__()

    def handle(self, client: socket.socket) -> None:
        read_request(client)
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(self.content)}\r\n"
        client.sendall(head.encode() + b"Connection: close\r\n\r\n" + self.content)


def test_a_video_in_a_codec_that_nobody_knows_is_an_unsupported_codec(make_clip):
    content = make_clip("a.mkv").read_bytes()
    with FileServer(content) as server, Watcher(server.url("http")) as watcher:
        watcher.wait_frames(1)
    unknown = content.replace(b"V_MPEG4/ISO/AVC", b"V_MPEG4/ISO/NEW")
    assert unknown != content
    with FileServer(unknown) as server, Watcher(server.url("http") + "#max_attempts=1") as watcher:
        until(lambda: watcher.error, what="it gives up")
    assert watcher.stats.failures == {"unsupported_codec": 1}
    assert watcher.stats.connections == 0 and watcher.seen == []
    assert isinstance(watcher.error, UnsupportedCodec)
    assert "set the camera to H.264 or H.265" in str(watcher.error)


def test_what_ffmpeg_says_is_heard_here_and_nowhere_else(caplog, capfd):
    caplog.set_level(1)
    before = av.logging.get_level()
    with Hearing(losses=True) as hearing:
        assert not hearing.of_loss()
        av.logging.log(av.logging.WARNING, "rtsp", "RTP: missed 3 packets")
        assert hearing.of_loss()
        assert not hearing.of_loss()
        av.logging.log(av.logging.ERROR, "h264", "something else")
        assert not hearing.of_loss()
        other = threading.Thread(target=av.logging.log, args=(16, "h264", "said by another"))
        other.start()
        other.join()
        with Hearing(losses=True):
            pass  # it comes and goes, that is all
        av.logging.log(av.logging.WARNING, "rtsp", "RTP: missed 1 packets")
        assert hearing.of_loss(), "others may come and go"
    assert av.logging.get_level() == before
    assert logging.getLogger("libav").propagate
    out, err = capfd.readouterr()
    assert not [text for text in (out, err, caplog.text) if "missed" in text or "said by" in text]
