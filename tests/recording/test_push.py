"""Live video to a server: it comes, stays away, hangs and comes back; nobody else notices."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.configuration.reading import dump_settings
from pipeline.errors import ConfigError, SinkError
from pipeline.frame import Detections, Frame, Result
from pipeline.outputs import one_for_each
from pipeline.settings import Settings, VideoSettings
from pipeline.sinks import SinkTarget, open_sink, open_sinks, push
from pipeline.sinks.push import PushSink
from tests.clips import as_frame
from tests.live.kit.odd_servers import SilentServer, StatusServer, refused_url
from tests.live.kit.ports import free_port
from tests.live.kit.wire import Wire
from tests.pipeline.test_outputs import Camera
from tests.pipeline.written_video import pixel_aspect
from tests.recording.footage import LIVE, NAMES, Pushing, shot
from tests.recording.receiver import Receiver
from tests.waiting import until

PASSWORD = "p@ss/w:rd#1"
QUOTED = "p%40ss%2Fw%3Ard%231"
A_MOMENT = 2.0  # seconds; in truth a tenth, but this machine may be busy


def pushing(url: str, **settings: object) -> PushSink:
    sink = open_sink(url, LIVE, VideoSettings(**settings))
    assert isinstance(sink, PushSink)
    return sink


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait two seconds for a server, and a quarter before the next try."""
    monkeypatch.setattr(push, "_OPEN_SECONDS", 2.0)
    monkeypatch.setattr(push, "_SEND_SECONDS", 1.0)
    monkeypatch.setattr(push.Backoff, "wait_after", lambda *_: 0.25)


def accounted(sink: PushSink) -> int:
    """Results that were sent or dropped."""
    return sink.frames + sum(sink.dropped.values())


def prompt(run: Pushing) -> bool:
    """Whether no write was held up; one may have met a machine that stood still."""
    return run.second_longest < A_MOMENT and run.longest < A_MOMENT + 10.0


def test_a_server_gets_every_picture_from_the_moment_it_is_connected(tmp_path: Path) -> None:
    with Receiver(tmp_path) as server:
        with pushing(server.url) as sink:
            run = Pushing(sink)
            run.until(lambda: sink.connections)
            run.more(60)
            until(lambda: server.count() == sink.frames, what="the last picture")
        (got,) = server.got()
    assert len(got) == sink.frames >= 60
    assert all((b - a) % 256 == 1 for a, b in pairwise(got[1:]))
    assert got[-1] == (run.written - 1) % 256
    report = sink.report()
    assert report["failures"] == {} and sink.connections == 1 and report["state"] == "RUNNING"
    assert accounted(sink) == run.written and set(sink.dropped) <= {"connecting"}


def test_what_is_sent_plays_in_the_shape_of_its_source(tmp_path: Path) -> None:
    with Receiver(tmp_path) as server, pushing(server.url) as sink:
        run = Pushing(sink, lambda number: shot(number, pixel_hw=(11, 16)))
        run.until(lambda: server.count() > 10)
        assert pixel_aspect(server.folder / "000.h264") == Fraction(16, 11)


def test_the_login_is_used_and_never_shown(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with Receiver(tmp_path, "me", PASSWORD) as server:
        url = server.url.replace("://", f"://me:{QUOTED}@")
        with pushing(url) as sink:
            run = Pushing(sink)
            run.until(lambda: sink.connections)
            assert sink._link is not None
            title = Path(f"/proc/{sink._link._process.pid}/cmdline").read_text()
            run.more(10)
    shown = title + caplog.text + json.dumps(sink.report()) + sink.name + repr(sink)
    assert "pusher" in title
    assert not any(word in shown for word in (PASSWORD, QUOTED, "w%3Ard", "w:rd"))


def test_a_wrong_password_is_told_apart_and_not_tried_often(tmp_path: Path) -> None:
    with (
        Receiver(tmp_path, "me", PASSWORD) as server,
        pushing(server.url.replace("://", "://me:secret@")) as sink,
    ):
        run = Pushing(sink)
        run.until(lambda: sink.failures)
        run.more(50)
        assert dict(sink.failures) == {"unauthorised": 1}
        assert "secret" not in json.dumps(sink.report())
        assert accounted(sink) == run.written and sink.frames == 0


def test_a_server_that_is_killed_and_comes_back_goes_on_with_a_keyframe(
    tmp_path: Path, impatient: None, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with Receiver(tmp_path) as server, pushing(server.url) as sink:
        run = Pushing(sink)
        for round_ in range(1, 3):
            run.until(lambda wanted=round_: sink.connections == wanted)
            run.more(20)
            run.until(server.got)
            server.kill()
            run.until(lambda wanted=round_: sum(sink.failures.values()) >= wanted)
            server.start()
        run.until(lambda: sink.connections == 3)
        run.more(30)
        run.until(lambda: server.count() > 10)
        (got,) = filter(None, server.got())  # one that broke off at once is empty
        assert all((b - a) % 256 == 1 for a, b in pairwise(got[1:]))
        assert accounted(sink) == run.written
        assert sink.dropped["unreachable"] > 0
        assert prompt(run)
    told = [record.getMessage().removeprefix(f"{sink.name}: ") for record in caplog.records]
    assert told.count("connected") == 2 and told[0].endswith("trying again"), "outages and ends"


@pytest.mark.parametrize(
    "status, cause", [("404 Not Found", "not_found"), ("403 Forbidden", "unauthorised")]
)
def test_a_refusal_has_its_cause(impatient: None, status: str, cause: str) -> None:
    with StatusServer(status) as server, pushing(server.url()) as sink:
        Pushing(sink).until(lambda: sink.failures)
        assert set(sink.failures) == {cause}


def test_a_server_that_is_not_there_costs_nothing(impatient: None) -> None:
    with pushing(refused_url()) as sink:
        run = Pushing(sink)
        run.until(lambda: sink.failures["refused"] >= 3)
        assert prompt(run)
        assert sink.frames == 0
        assert run.written - accounted(sink) in (0, 1)  # one may be on its way
        assert sink.report()["state"] in ("BACKOFF", "CONNECTING")
        assert "nobody listens there" in sink.report()["trouble"]


def test_a_silent_server_holds_up_nobody_and_is_given_up_in_time(impatient: None) -> None:
    with SilentServer() as server, pushing(server.url()) as sink:
        run = Pushing(sink)
        run.until(lambda: sink.failures["timeout"] >= 2)
        assert server.connections >= 2 and prompt(run)
        began = time.monotonic()
    assert time.monotonic() - began < 2 * A_MOMENT
    assert accounted(sink) == run.written


def noise(number: int) -> Result:
    """A picture that does not get small."""
    pixels = np.random.default_rng(number).integers(0, 256, (360, 640, 3), np.uint8)
    picture = as_frame(pixels, "yuv420p")
    return Result(Frame(picture, "cam", number, number, Fraction(1, 25), 0.0), Detections.none())


def test_a_server_that_stops_reading_is_left_and_found_again(
    tmp_path: Path, impatient: None
) -> None:
    with (
        Receiver(tmp_path) as server,
        closing(Wire(server.port)) as wire,
        pushing(wire.through(server.url), crf=1) as sink,
    ):
        run = Pushing(sink, noise)
        run.until(lambda: sink.connections == 1)
        wire.hold()
        run.until(lambda: sink.failures)
        assert "queue_full" in sink.dropped
        wire.release()
        run.until(lambda: sink.connections == 2)
        assert set(sink.failures) <= {"stalled", "timeout"}
        assert accounted(sink) == run.written and prompt(run)


def test_another_size_is_announced_anew(tmp_path: Path) -> None:
    with Receiver(tmp_path) as server, pushing(server.url) as sink:
        run = Pushing(sink, lambda n: shot(n, size=(64, 48) if n >= 100 else (128, 96)))
        run.until(lambda: sink.connections == 2)
        run.more(10)
        assert not sink.failures and accounted(sink) == run.written


def test_what_cannot_be_encoded_is_a_sink_error() -> None:
    with pushing(refused_url()) as sink, pytest.raises(SinkError, match="cannot encode"):
        sink.write(shot(0, size=(20_000, 2)))


def test_an_address_without_a_host_is_a_config_error_without_the_password() -> None:
    with pytest.raises(ConfigError) as caught:
        open_sink("rtsp://me:secret@/x", LIVE, VideoSettings())
    assert "secret" not in str(caught.value)


def test_each_source_can_have_its_own_path() -> None:
    target = SinkTarget("front door/1", NAMES, live=True)
    sink = open_sink("rtsp://me:x@host/{source}", target, VideoSettings())
    assert sink.name == "rtsp://host/front%20door_1"


KEY = "abcd-efgh?x=1"


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("rtmp://me:p@host/app/abcd-efgh", "rtmp://host/app/***"),
        ("rtmps://host:443/app/x/abcd-efgh/?key=abcd", "rtmps://host:443/app/x/***/?key=***"),
        ("rtmp://host/abcd-efgh", "rtmp://host/***"),
        ("rtmp://host/app/abcd-efgh-{source}", "rtmp://host/app/*** (cam)"),
        ("rtmp://host/app/{source}", "rtmp://host/app/cam"),
        ("rtmp://host/app/$KEY", "rtmp://host/app/$KEY"),
        ("rtmp://host/app/${KEY}", "rtmp://host/app/${KEY}"),
        ("rtmp://host", "rtmp://host"),
        ("srt://host:8890?streamid=publish:{source}", "srt://host:8890?streamid=*** (cam)"),
    ],
)
def test_the_key_of_a_stream_is_not_shown(
    monkeypatch: pytest.MonkeyPatch, url: str, name: str
) -> None:
    monkeypatch.setenv("KEY", KEY)
    sink = pushing(url)
    assert sink.name == name
    told = json.dumps(sink.report()) + repr(sink) + dump_settings(Settings(out=(url,)))
    assert "abcd" not in told


def test_the_key_of_a_stream_may_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEY", KEY)
    for written in ("$KEY", "${KEY}"):
        sink = pushing(f"rtmp://host/app/{written}")
        assert sink._address.opened.reveal() == f"rtmp://host/app/{KEY}"
    several = pushing(one_for_each("rtmp://host/$KEY/x$KEY"))
    assert several._address.opened.reveal() == f"rtmp://host/{KEY}/x{KEY}-cam"
    monkeypatch.delenv("KEY")
    with pytest.raises(ConfigError, match="variable KEY is not set"):
        pushing("rtmp://host/app/$KEY")


TITLED = """
import sys
from pathlib import Path
from pipeline.title import hide_secrets
hide_secrets(sys.argv[1:])
print(Path("/proc/self/cmdline").read_text())
"""


def test_no_list_of_processes_shows_the_key_of_a_stream() -> None:
    for out in (["--out", "rtmp://host/app/abcd-efgh"], ["--out=rtmp://me:p@host/app/abcd?x=1"]):
        command = [sys.executable, "-c", TITLED, "line", *out]
        told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        assert "line --out" in told and "/app/***" in told and "abcd" not in told


def test_streams_that_differ_only_in_their_keys_are_told_apart() -> None:
    outs = [f"rtmp://host/app/{key}" for key in ("a", "b", "c")]
    camera: Any = Camera("cam")
    sinks = open_sinks(outs, camera, NAMES, VideoSettings())
    assert [sink.name for sink in sinks] == [
        *("rtmp://host/app/***", "rtmp://host/app/*** (2)", "rtmp://host/app/*** (3)")
    ]
    with pytest.raises(ConfigError, match="asked for twice"):
        open_sinks([outs[0], *outs], camera, NAMES, VideoSettings())


LISTENING = """
import sys
sys.path[:0] = {path!r}
from contextlib import suppress
import av
from tests.clips import read_number
options = {{"listen": "1", "probesize": "5000", "analyzeduration": "100000"}}
for _ in range({connections}):
    # However properly it ends, FFmpeg's listener calls that an input/output error.
    with suppress(av.FFmpegError), av.open({url!r}, options=options) as container:
        for frame in container.decode(video=0):
            print(read_number(frame), flush=True)
"""


@contextmanager
def rtmp_viewer(url: str, connections: int = 1) -> Iterator[Callable[[], list[int]]]:
    """A process that shows what is pushed to it; gives what waits for its end and tells numbers."""
    code = LISTENING.format(path=sys.path, url=url, connections=connections)
    nowhere = subprocess.DEVNULL
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=nowhere, text=True
    ) as viewer:
        assert viewer.stdout is not None
        output = viewer.stdout
        try:
            yield lambda: [*map(int, output.read().split())]
        finally:
            viewer.kill()


def test_rtmp_works_likewise(impatient: None) -> None:
    url = f"rtmp://127.0.0.1:{free_port()}/live/cam"
    with rtmp_viewer(url) as shown_numbers:
        with pushing(url) as sink:
            run = Pushing(sink)
            run.until(lambda: sink.connections)
            run.more(40)
        got = shown_numbers()
    assert len(got) == sink.frames and got[-1] == (run.written - 1) % 256
    assert all((b - a) % 256 == 1 for a, b in pairwise(got[1:]))


def test_rtmp_connects_anew_before_its_clock_comes_to_an_end(impatient: None) -> None:
    url = f"rtmp://127.0.0.1:{free_port()}/live/cam"
    weeks = 256 * 210_000  # pictures: 24.9 days, of which 2**31 ms are 24.86
    later = 0
    with rtmp_viewer(url, connections=2) as shown_numbers:
        with pushing(url) as sink:
            run = Pushing(sink, lambda number: shot(number + later))
            run.until(lambda: sink.connections)
            run.more(20)
            later = weeks
            run.until(lambda: sink.connections == 2, within=20.0)
            run.more(20)
        got = shown_numbers()
    assert len(got) == sink.frames and got[-1] == (run.written - 1) % 256
    assert accounted(sink) == run.written


def test_a_protocol_that_is_not_built_in_fails_the_sink_for_good() -> None:
    with pushing(f"srt://127.0.0.1:{free_port()}") as sink:
        run = Pushing(sink)
        try:
            run.until(lambda: sink.failures)
        except SinkError as error:
            assert "built without srt://" in str(error)
        assert sum(sink.failures.values()) == 1


def test_with_several_sources_each_has_a_path_of_its_own() -> None:
    assert one_for_each("rtsp://me:p@host/live") == "rtsp://me:p@host/live-{source}"
    assert one_for_each("rtmp://host/live?key=1") == "rtmp://host/live-{source}?key=1"
    assert one_for_each("rtsp://host/") == "rtsp://host/{source}"


ORPHANED = """
import sys
sys.path[:0] = {path!r}
from itertools import count
from pipeline.settings import VideoSettings
from pipeline.sinks import open_sink
from tests.recording.footage import LIVE, Pushing
with open_sink({url!r}, LIVE, VideoSettings()) as sink:
    run = Pushing(sink)
    run.more(1)
    print(sink._link._process.pid, flush=True)
    run.more(10_000)
"""


def has_ended(process: int) -> bool:
    """Whether there is no such process any more, or only what is left of one that ended."""
    try:
        return not Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:
        return True


def test_nothing_goes_on_when_we_are_killed() -> None:
    with SilentServer() as server:
        code = ORPHANED.format(path=sys.path, url=server.url())
        with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as us:
            assert us.stdout is not None
            sender = int(us.stdout.readline())
            until(lambda: server.connections, what="a connection")
            us.kill()
        until(lambda: has_ended(sender), what="the end of the sender")
