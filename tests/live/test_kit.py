"""The fake cameras do what they are told, so that what the other tests see is the line's doing."""

from __future__ import annotations

import itertools
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import av
import numpy as np
import pytest

from tests.live.kit.odd_servers import GarbageServer, SilentServer, StatusServer, refused_url
from tests.live.kit.painting import Painter
from tests.live.kit.ports import BLOCK, FIRST, free_port
from tests.live.kit.rates import usual_rate
from tests.live.kit.reading import Painted, Unreadable, read_painted
from tests.waiting import until

REPOSITORY = Path(__file__).parents[2]
LOW_DELAY = {"rtsp_transport": "tcp", "fflags": "nobuffer", "analyzeduration": "500000"}


def pictures(url: str, **options: str) -> Iterator[tuple[av.VideoFrame, Painted]]:
    """What a plain viewer sees, until the camera ends."""
    with av.open(url, options=LOW_DELAY | options, timeout=(20, 10)) as container:
        for frame in container.decode(video=0):
            yield frame, read_painted(frame.to_ndarray(format="gray"))


@pytest.mark.parametrize("size", [(120, 48), (320, 180), (1280, 720)])
def test_a_number_and_a_time_are_read_back_from_a_picture(size):
    width, height = size
    planes = np.frombuffer(Painter(width, height).picture(123_456, 2**32 + 789), np.uint8)
    luma = planes[: width * height].reshape(height, width)
    assert read_painted(luma) == Painted(123_456, 789)


def test_a_damaged_strip_is_not_believed():
    luma = np.frombuffer(Painter(160, 120).picture(5, 6), np.uint8)[: 160 * 120].reshape(120, 160)
    harmed = luma.copy()
    harmed[6:12, 12:18] = 255 - harmed[6:12, 12:18]
    with pytest.raises(Unreadable, match="check"):
        read_painted(harmed)
    with pytest.raises(Unreadable, match="no strip"):
        read_painted(np.full((120, 160), 128, np.uint8))


def test_the_age_of_a_picture_survives_the_end_of_the_clock():
    assert Painted(0, 2**32 - 500).age_at((2**32 + 500) / 1000) == 1.0
    assert Painted(0, 500).age_at(0.2) == -0.3


@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_a_camera_shows_every_picture_once_and_in_order(cameras, transport):
    camera = cameras.add(size=(320, 180), fps=25)
    seen = list(itertools.islice(pictures(camera.url, rtsp_transport=transport), 30))
    steps = {later[1].number - earlier[1].number for earlier, later in itertools.pairwise(seen)}
    assert min(steps) == 1
    assert transport == "udp" or max(steps) == 1  # a busy machine may lose a datagram
    assert all(0 <= painted.age_seconds < 60 for _, painted in seen)
    assert {(frame.width, frame.height) for frame, _ in seen} == {(320, 180)}


def test_many_viewers_and_many_cameras_share_one_process(cameras):
    left = cameras.add("left", size=(160, 120))
    right = cameras.add("right", codec="mjpeg", size=(320, 240), fps=10)
    for camera, width in ((left, 160), (right, 320), (left, 160)):
        frame, _ = next(pictures(camera.url))
        assert frame.width == width


def test_a_stalled_camera_goes_on_with_the_present_or_with_a_burst_of_the_past(cameras):
    camera = cameras.add(size=(160, 120))
    stream = pictures(camera.url)
    numbers = [next(stream)[1].number]
    for burst in (False, True):
        camera.stall()
        before = camera.painted()
        until(
            lambda wanted=before + 20: camera.painted() >= wanted
        )  # held back, and counted all the same
        camera.resume(burst=burst)
        numbers += [painted.number for _, painted in itertools.islice(stream, 40)]
    gaps = [later - earlier for earlier, later in itertools.pairwise(numbers)]
    assert sorted(gaps)[-1] >= 15
    assert sorted(gaps)[-2] == 1, "the burst left something out"


def test_a_killed_server_refuses_and_comes_back_on_the_same_port(cameras):
    camera = cameras.add(size=(160, 120))
    next(pictures(camera.url))
    cameras.kill()
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", cameras.port), timeout=5)
    camera.options |= {"width": 320, "height": 180}
    cameras.start()
    assert next(pictures(camera.url))[0].width == 320


def test_a_frozen_server_accepts_and_stays_silent(cameras):
    camera = cameras.add(size=(160, 120))
    with cameras.frozen():
        connection = socket.create_connection(("127.0.0.1", cameras.port), timeout=5)
        connection.settimeout(0.5)
        connection.sendall(b"OPTIONS * RTSP/1.0\r\nCSeq: 1\r\n\r\n")
        with pytest.raises(TimeoutError):
            connection.recv(1)
        connection.close()
    assert next(pictures(camera.url))


@pytest.mark.parametrize("method", ["basic", "digest"])
def test_a_password_is_asked_for(start_cameras, method):
    server = start_cameras(user="ad@min", password="p:ä/%#@ss", method=method)
    camera = server.add(size=(160, 120))
    assert next(pictures(camera.url))
    with pytest.raises(av.error.HTTPUnauthorizedError):
        next(pictures(server.url("cam", login=("ad@min", "wrong"))))


def test_timestamps_jump_when_told(cameras):
    camera = cameras.add(size=(160, 120))
    stream = pictures(camera.url)
    first = next(stream)[0].time
    camera.jump(6 * 3600)
    assert any(frame.time - first > 5 * 3600 for frame, _ in itertools.islice(stream, 100))


def test_lost_packets_leave_gaps_in_the_numbers(cameras):
    camera = cameras.add("front", size=(320, 180), keyframe_every=5)
    stream = pictures(camera.url)
    next(stream)
    camera.harm(loss=0.3)
    numbers = []
    with av.open(camera.url, options=LOW_DELAY, timeout=(20, 10)) as container:
        for packet in container.demux(video=0):
            numbers.append(packet.pts)
            if len(numbers) == 40:
                break
    stream.close()
    steps = [later - earlier for earlier, later in itertools.pairwise(numbers) if earlier and later]
    assert max(steps) > 1.5 * min(step for step in steps if step > 0)


def test_a_camera_over_http_stalls_and_comes_back(mjpeg):
    server = mjpeg(size=(160, 120), fps=50)
    stream = pictures(server.url)
    first = next(stream)[1]
    server.stall()
    held = server.painted
    until(lambda: server.painted >= held + 10)
    server.resume()
    assert next(painted.number for _, painted in stream if painted.number > first.number + 9)
    server.kill()
    with pytest.raises(OSError):
        urllib.request.urlopen(server.url, timeout=5)
    server.start()
    assert next(pictures(server.url))
    assert server.connections == 2


def test_a_wire_that_was_cut_brings_the_past_when_it_is_whole_again(cameras, wire):
    camera = cameras.add(size=(160, 120))
    line = wire(cameras.port)
    stream = pictures(line.through(camera.url))
    next(stream)
    line.hold()
    held = camera.painted()
    until(lambda: camera.painted() >= held + 40)
    line.release()
    seen = [painted for _, painted in itertools.islice(stream, 30)]
    assert max(painted.age_seconds for painted in seen) > 0.5
    numbers = [painted.number for painted in seen]
    assert numbers == list(range(numbers[0], numbers[0] + 30)), "something was lost on the way"


def test_odd_servers_are_odd_in_their_way():
    with StatusServer("404 Not Found") as server, pytest.raises(av.error.HTTPNotFoundError):
        av.open(server.url("rtsp"), timeout=5)
    with StatusServer("401 Unauthorized") as server, pytest.raises(av.error.HTTPUnauthorizedError):
        av.open(server.url("http"), timeout=5)
    with GarbageServer() as server, pytest.raises(av.error.FFmpegError):
        av.open(server.url("rtsp"), timeout=2)
    with SilentServer() as server, pytest.raises(av.error.FFmpegError):
        started = time.monotonic()
        av.open(server.url("rtsp"), timeout=1)
    assert time.monotonic() - started >= 1
    with pytest.raises((ConnectionRefusedError, av.error.FFmpegError)):
        av.open(refused_url(), timeout=5)


def test_a_rate_is_not_spoiled_by_a_halt_but_by_every_tenth_frame_lost():
    times = [number / 10 for number in range(400)]
    halted = [{"pts_seconds": at} for at in times if not 10 < at < 13]
    thinned = [{"pts_seconds": at} for number, at in enumerate(times) if number % 10]
    assert usual_rate(halted) == pytest.approx(10, rel=0.03)
    assert usual_rate(thinned) == pytest.approx(9, rel=0.03)
    assert usual_rate(halted, since=20) == pytest.approx(10, rel=0.03)


def test_processes_that_run_at_once_take_their_ports_from_different_blocks():
    code = "from tests.live.kit.ports import free_port; print(free_port(), flush=True); input()"
    pipe, ports = subprocess.PIPE, [free_port(), free_port()]
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, cwd=REPOSITORY, stdin=pipe, stdout=pipe, text=True) as other:
        assert other.stdout is not None
        ports.append(int(other.stdout.readline()))
        other.communicate("\n")
    one, same, another = ((port - FIRST) // BLOCK for port in ports)
    assert one == same != another


def test_a_port_for_datagrams_is_one_that_nobody_has_bound_for_them():
    with ExitStack() as stack:
        taken = {free_port() for _ in range(20)}
        for port in taken:
            stack.enter_context(socket.socket(type=socket.SOCK_DGRAM)).bind(("127.0.0.1", port))
        assert taken.isdisjoint(free_port(udp=True) for _ in range(BLOCK))  # once around
