"""Pictures for whoever watches, and no trouble from whoever does not read them."""

from __future__ import annotations

import os
import socket
import threading
import time
from dataclasses import replace

import cv2
import numpy as np
import pytest

from pipeline.frame import Result
from pipeline.serve import streams
from pipeline.serve.board import PAGE_WIDTH, Board, Shot
from pipeline.serve.jpeg import no_signal, to_jpeg
from pipeline.sinks.protocol import SinkTarget
from tests.alone import alone
from tests.serve.client import next_packed, next_part
from tests.serve.line import CLASSES, repeatedly, result
from tests.serve.served import serving
from tests.waiting import until


def decoded(jpeg: bytes) -> np.ndarray:
    """(H, W, 3) uint8 RGB."""
    picture = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None
    return picture[:, :, ::-1]


def noisy(name: str, index: int, size_wh: tuple[int, int] = (640, 480)) -> Result:
    """A picture that makes a large JPEG."""
    plain = result(name, index, size_wh)
    picture = plain.frame.picture
    noise = np.random.default_rng(index).integers(0, 255, picture.planes[0].buffer_size, np.uint8)
    picture.planes[0].update(noise.tobytes())
    return plain


@pytest.mark.parametrize("colour", [(255, 255, 255), (0, 0, 0), (200, 30, 30), (20, 60, 180)])
def test_colours_arrive_as_they_were(colour):
    shown = decoded(to_jpeg(result(colour=colour)))
    assert np.abs(shown.astype(int) - colour).max() <= 6


def test_a_wide_picture_is_scaled_for_the_page_but_not_for_a_snapshot():
    wide = result(size_wh=(1920, 1080))
    assert decoded(to_jpeg(wide, widest=PAGE_WIDTH)).shape == (720, 1280, 3)
    assert decoded(to_jpeg(wide)).shape == (1080, 1920, 3)


@pytest.mark.parametrize(
    ("size_wh", "pixel_hw", "page_hw", "snapshot_hw"),
    [
        ((704, 576), (11, 12), (576, 768), (576, 768)),  # an analogue camera
        ((720, 480), (9, 8), (540, 720), (540, 720)),
        ((1440, 1080), (3, 4), (720, 1280), (1080, 1920)),
    ],
)
def test_pixels_that_are_not_square_are_shown_in_their_shape(
    size_wh, pixel_hw, page_hw, snapshot_hw
):
    plain = result(size_wh=size_wh)
    squeezed = replace(plain, frame=replace(plain.frame, pixel_hw=pixel_hw))
    assert decoded(to_jpeg(squeezed, widest=PAGE_WIDTH)).shape == (*page_hw, 3)
    assert decoded(to_jpeg(squeezed)).shape == (*snapshot_hw, 3)
    assert decoded(no_signal(squeezed, "no picture for 5 s")).shape == (*snapshot_hw, 3)


def test_what_drawing_added_to_an_odd_picture_is_cut_off():
    odd, padded = result(size_wh=(63, 47)), result(size_wh=(64, 48))
    drawn = odd.with_annotated(padded.frame.picture)
    assert decoded(to_jpeg(drawn)).shape == (47, 63, 3)


def test_the_drawn_picture_is_shown_not_the_plain_one(serve):
    served = serve("front")
    drawing = result(colour=(20, 180, 20)).frame.picture
    served.sinks["front"].write(result(colour=(200, 30, 30)).with_annotated(drawing))
    answer = served.client.get("/snapshots/front.jpg")
    assert answer.headers["content-type"] == "image/jpeg"
    assert tuple(decoded(answer.body)[20, 20] // 50) == (0, 3, 0)


def test_a_stream_shows_every_picture_to_who_keeps_up(serve):
    served = serve("front")
    served.sinks["front"].write(result(colour=(0, 0, 0)))
    with served.client.open("/streams/front.mjpg") as response:
        assert response.headers["Content-Type"] == "multipart/x-mixed-replace; boundary=picture"
        next_part(response)
        for level in (40, 80, 120, 160, 200):
            served.sinks["front"].write(result(colour=(level,) * 3))
            assert abs(int(decoded(next_part(response)).mean()) - level) < 6


def test_all_sources_travel_on_one_connection(serve):
    served = serve("a", "b", "c/with slash")
    for name, sink in served.sinks.items():
        sink.write(result(name, 7))
    with served.client.open("/pictures") as response:
        heads = [next_packed(response)[0] for _ in served.sinks]
    assert {head["source"] for head in heads} == {"a", "b", "c/with slash"}
    assert {head["frame"] for head in heads} == {7}
    assert all(0 <= head["age_seconds"] < 60 for head in heads)


def test_a_picture_is_encoded_once_for_all_viewers_and_never_for_nobody(serve, monkeypatch):
    encoded: list[int] = []

    def counting(given: Result, widest: int | None = None) -> bytes:
        encoded.append(given.frame.index)
        return to_jpeg(given, widest)

    monkeypatch.setattr("pipeline.serve.board.to_jpeg", counting)
    served = serve("front")
    for index in range(50):
        served.sinks["front"].write(result(index=index))
    assert encoded == []
    with (
        served.client.open("/streams/front.mjpg") as first,
        served.client.open("/streams/front.mjpg") as second,
        served.client.open("/pictures") as third,
    ):
        for index in range(50, 60):
            for viewer in (first, second):
                next_part(viewer)
            next_packed(third)
            served.sinks["front"].write(result(index=index))
        next_part(first), next_part(second), next_packed(third)
    assert len(encoded) == len(set(encoded))
    assert encoded == [49, *range(50, 60)]
    until(lambda: served.page.board.viewers == 0, what="the viewers have gone")
    served.sinks["front"].write(result(index=99))
    assert 99 not in encoded


def test_a_frozen_client_holds_up_nobody_and_costs_no_memory():
    sent_megabytes, kept_megabytes = alone(feed_a_frozen_client)
    assert sent_megabytes > 60
    assert kept_megabytes < 30


def feed_a_frozen_client() -> tuple[float, float]:
    """What a client who reads received, and what the process grew by, beside one who does not."""
    large = (1280, 720)
    with serving("front", patience=60.0) as served:
        front = served.sinks["front"]
        front.write(noisy("front", 0, large))
        with (
            served.client.connect(receive_bytes=4096) as frozen,
            served.client.open("/streams/front.mjpg") as reading,
        ):
            frozen.sendall(b"GET /streams/front.mjpg HTTP/1.1\r\nHost: localhost\r\n\r\n")
            until(lambda: served.page.board.viewers == 2, what="both are watching")
            sent = len(next_part(reading))
            before = resident_megabytes()
            for index in range(1, 120):
                front.write(noisy("front", index, large))
                sent += len(next_part(reading))
            assert served.page.board.viewers == 2
            return sent / 1e6, resident_megabytes() - before


def test_a_frozen_client_is_given_up_after_a_while(serve):
    served = serve("front", patience=1.0)
    with served.client.connect(receive_bytes=4096) as frozen:
        frozen.sendall(b"GET /streams/front.mjpg HTTP/1.1\r\nHost: localhost\r\n\r\n")
        until(lambda: served.page.board.viewers == 1, what="it is watching")
        with repeatedly(lambda n: served.sinks["front"].write(noisy("front", n)), 0.02):
            until(lambda: served.page.board.viewers == 0, what="it has been given up")


def test_a_client_that_takes_a_large_picture_slowly_gets_all_of_it(serve):
    # A second: on a busy machine a client, too, may be kept waiting for some tenths.
    patience, picture = 1.0, noisy("front", 0, (1600, 900))
    served, taken, pace = serve("front", patience=patience), bytearray(), threading.Event()
    served.sinks["front"].write(picture)
    with served.client.connect(receive_bytes=65536) as slow:
        slow.sendall(b"GET /snapshots/front.jpg HTTP/1.0\r\n\r\n")
        began = time.monotonic()
        while piece := slow.recv(65536):
            taken += piece
            pace.wait(patience / 10)
    assert taken.partition(b"\r\n\r\n")[2] == to_jpeg(picture)
    assert time.monotonic() - began > 2 * patience


def test_a_slow_client_gets_fewer_pictures_but_never_old_ones(serve):
    served = serve("front", patience=60.0)
    with served.client.open("/pictures") as response:
        served.sinks["front"].write(noisy("front", 0))
        next_packed(response)
        for index in range(1, 101):  # while it does not read
            served.sinks["front"].write(noisy("front", index))
        seen = [next_packed(response)[0]["frame"] for _ in range(2)]
        while seen[-1] != 100:
            seen.append(next_packed(response)[0]["frame"])
    assert seen == sorted(seen)
    assert len(seen) < 30


def test_a_silent_source_is_not_shown_as_live(serve, monkeypatch):
    monkeypatch.setattr(streams, "SILENCE_SECONDS", 0.2)
    served = serve("front", "never")
    served.sinks["front"].write(result(size_wh=(640, 360), colour=(240, 240, 240), age=100))
    with served.client.open("/streams/front.mjpg") as response:
        assert decoded(next_part(response)).mean() > 230
        dark = decoded(next_part(response))
        assert np.median(dark) < 100  # with a sentence across it
        assert dark.max() > 230
    with served.client.open("/streams/never.mjpg") as response:
        assert np.median(decoded(next_part(response))) < 10
    with served.client.open("/pictures") as response:
        assert next_packed(response)[0]["source"] == "front"
        assert next_packed(response)[0]["source"] is None  # only a sign of life


def test_the_end_of_a_source_ends_its_streams(serve):
    served = serve("front")
    served.sinks["front"].write(result())
    with served.client.open("/streams/front.mjpg") as response:
        next_part(response)
        served.client.ask("DELETE", "/api/sources/front")
        response.read()  # to its end
    until(lambda: served.page.board.viewers == 0, what="nobody watches")


def test_the_page_ends_in_bounded_time_whoever_is_still_there(serve):
    from pipeline.serve import page
    from tests.serve.client import Client
    from tests.serve.line import FakeControl

    with page("http://127.0.0.1:0", FakeControl("front"), patience=60.0) as shown:
        client = Client(shown.url)
        frozen, listening, silent = client.connect(4096), client.connect(), client.connect()
        with shown.sink(SinkTarget("front", CLASSES)) as sink:
            frozen.sendall(b"GET /pictures HTTP/1.1\r\nHost: localhost\r\n\r\n")
            listening.sendall(b"GET /api/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
            until(lambda: shown.board.viewers == 1, what="it is watching")
            for index in range(30):
                sink.write(noisy("front", index))
    with frozen, listening, silent:
        assert not [t for t in threading.enumerate() if t.name == "page" and t.is_alive()]
        assert silent.recv(1) == b""
        with pytest.raises(OSError), socket.create_connection((client.host, client.port)):
            pass


def test_the_events_say_the_state_of_things(serve):
    served = serve("front")
    with served.client.open("/api/events") as response:
        assert response.headers["Content-Type"].startswith("text/event-stream")
        assert b'"state":"RUNNING"' in next_event(response)
        served.control.stats["front"].changed("BACKOFF", "refused")
        while b'"state":"BACKOFF"' not in next_event(response):
            pass


def next_event(response) -> bytes:
    while not (line := response.readline()).startswith(b"data:"):
        assert line
    return line


def test_two_threads_that_want_a_picture_encode_it_once(monkeypatch):
    calls: list[int] = []
    begun = threading.Event()

    def slow(given: Result, widest: int | None = None) -> bytes:
        calls.append(1)
        begun.wait(0.2)
        return b"jpeg"

    monkeypatch.setattr("pipeline.serve.board.to_jpeg", slow)
    shot = Shot(result(), 1)
    threads = [threading.Thread(target=shot.encode) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert calls == [1]


def test_latency_percentiles_are_those_of_the_last_seconds():
    board = Board()
    feed = board.open("front", CLASSES)
    assert feed.latency_ms() is None
    for age in [0.010] * 95 + [0.500] * 5:
        board.pin(feed, result(age=age))
    latency = feed.latency_ms()
    assert latency is not None
    assert latency["p50"] < latency["p99"]
    assert 500 <= latency["p99"] < 5000


def resident_megabytes() -> float:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
