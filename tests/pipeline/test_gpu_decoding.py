"""Decoding on a GPU: when it is taken, and how software takes over without losing a picture."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.logging
import numpy as np
import pytest
from av.video.codeccontext import VideoCodecContext

from pipeline.bookkeeping.report import source_report
from pipeline.bookkeeping.summary import _decoder_lines
from pipeline.errors import ConfigError
from pipeline.frame import Frame
from pipeline.gpu import driver
from pipeline.sources import gpu as gpu_module
from pipeline.sources import lead as lead_module
from pipeline.sources import open_sources
from pipeline.sources.delivery import Limits
from pipeline.sources.gpu import GpuDecoding, trouble_of_gpu
from pipeline.sources.gpu_decoder import Trial
from pipeline.sources.recorded import RecordedSource
from pipeline.yuv import own_yuv420p, planes
from tests.clips import read_number
from tests.pipeline.stand_in_chip import Chips

MakeClip = Callable[..., Path]
FRAMES = 150

without_gpu = pytest.mark.skipif(trouble_of_gpu() is None, reason="there is an NVIDIA GPU here")


def play(
    path: Path, gpu: GpuDecoding | None, threads: int = 1
) -> tuple[list[Frame], RecordedSource]:
    source = RecordedSource(
        path, name="a", url="a", limits=Limits(), decoder_threads=threads, gpu=gpu
    )
    return list(source.frames()), source


def numbers(frames: list[Frame]) -> list[int]:
    return [read_number(frame.picture) for frame in frames]


def formats(frames: list[Frame]) -> list[str]:
    """The pixel formats in the order in which they come."""
    names = [frame.picture.format.name for frame in frames]
    return [name for n, name in enumerate(names) if not n or name != names[n - 1]]


def assert_same(frames: list[Frame], others: list[Frame], atol: int = 0) -> None:
    assert [f.pts for f in frames] == [f.pts for f in others]
    for frame, other in zip(frames, others, strict=True):
        assert frame.picture.key_frame == other.picture.key_frame
        ours, theirs = (planes(own_yuv420p(f.picture)) for f in (frame, other))
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(a.astype(int), b.astype(int), rtol=0, atol=atol)


# On this machine ---------------------------------------------------------------------------------


@without_gpu
def test_asking_for_a_gpu_where_there_is_none_is_an_error_that_says_why(
    make_clip: MakeClip,
) -> None:
    clip = make_clip("a.mp4")
    with pytest.raises(ConfigError, match=r"decoder: cuda was asked .*opened \(.+\).* write auto"):
        open_sources([str(clip)], decoder="cuda")


@without_gpu
def test_left_to_itself_it_decodes_in_software_and_says_why(make_clip: MakeClip) -> None:
    (source,) = open_sources([str(make_clip("a.mp4"))])
    assert numbers(list(source.frames())) == [*range(12)]
    codec, where, why = source.stats.decoded_by or ("", "", "")
    assert (codec, where) == ("h264", "cpu") and why.startswith("no NVIDIA GPU can be opened (")
    assert not source.stats.anomalies


@without_gpu
def test_nothing_of_cuda_is_loaded_for_the_question(make_clip: MakeClip) -> None:
    program = (
        "from pipeline.sources import open_sources\n"
        f"(source,) = open_sources([{str(make_clip('a.mp4'))!r}])\n"
        "assert len(list(source.frames())) == 12\n"
        "print(*{m for m in open('/proc/self/maps').read().split() if 'cuda' in m or 'nvcuv' in m})"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == ""


@pytest.fixture
def without_video(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A container that was given a GPU, but not its `video` capability."""
    shared = list[Any]()
    monkeypatch.setattr(gpu_module, "_trouble_of_opening", lambda: None)
    monkeypatch.setattr(gpu_module, "share_primary_context", lambda: shared.append(1))
    monkeypatch.setattr(gpu_module, "DECODES", "libnvcuvid-of-nobody.so.1")
    trouble_of_gpu.cache_clear()
    yield
    trouble_of_gpu.cache_clear()
    assert shared == [1], "the context is set up once, whatever becomes of decoding"


@pytest.mark.usefixtures("without_video")
def test_a_gpu_without_its_library_for_video_decodes_nothing(make_clip: MakeClip) -> None:
    clip = str(make_clip("a.mp4"))
    with pytest.raises(
        ConfigError, match=r"asked .*nvcuvid.* \(.*cannot open.*video capability"
    ) as caught:
        open_sources([clip], decoder="cuda")
    assert caught.value.exit_code == 2
    (source,) = open_sources([clip])
    assert numbers(list(source.frames())) == [*range(12)]
    assert source.stats.decoded_by and "without `video`" in source.stats.decoded_by.why


def test_a_library_that_is_there_is_no_trouble() -> None:
    assert driver.trouble_of_library("libc.so.6") is None


def test_software_can_be_asked_for(make_clip: MakeClip) -> None:
    (source,) = open_sources([str(make_clip("a.mp4"))], decoder="software")
    assert len(list(source.frames())) == 12
    assert source.stats.decoded_by == ("h264", "cpu", "as asked for")


# Recordings, on a stand-in -----------------------------------------------------------------------


def test_a_chip_tells_the_shape_of_pixels_as_software_does(
    make_clip: MakeClip, tmp_path: Path
) -> None:
    aspects = (None, Fraction(16, 11))
    parts = [make_clip(f"{n}.ts", pixel_aspect=aspect) for n, aspect in enumerate(aspects)]
    joined = tmp_path / "joined.ts"
    joined.write_bytes(b"".join(part.read_bytes() for part in parts))
    ours, source = play(joined, Chips())
    assert source.stats.decoded_by is not None and source.stats.decoded_by.where == "gpu"
    shapes = [frame.pixel_hw for frame in ours]
    assert shapes == [frame.pixel_hw for frame in play(joined, None)[0]]
    assert shapes == [(1, 1)] * 12 + [(11, 16)] * 12


@pytest.mark.parametrize(
    "clip",
    [
        {"codec": "libx264", "options": {"bf": "3", "b-pyramid": "normal"}},
        {"codec": "libx265", "pix_fmt": "yuv420p10le"},
        {"codec": "libx264", "rotation": 90},
        {"codec": "libx264", "timestamps": [0, 1, 5, 6, 7, 30, *range(31, 54)]},
    ],
    ids=["b-frames", "ten bits", "turned", "variable rate"],
)
def test_pictures_of_the_chip_are_those_of_software(make_clip: MakeClip, clip: dict) -> None:
    path = make_clip("a.mkv" if "timestamps" in clip else "a.mp4", frames=29, size=(96, 64), **clip)
    ours, source = play(path, Chips())
    theirs, software = play(path, None)
    ten_bits = "pix_fmt" in clip
    assert_same(ours, theirs, atol=int(ten_bits))  # swscale dithers the two layouts differently
    assert formats(ours) == ["p010le" if ten_bits else "nv12"]
    assert source.stats.decoded_by and source.stats.decoded_by.where == "gpu"
    assert source.stats.anomalies == software.stats.anomalies


@pytest.mark.parametrize("keyframe_every", [1, 6, 1000])
@pytest.mark.parametrize(("fails_at", "threads"), [(0, 1), (5, 3), (64, 3), (101, 1), (150, 3)])
def test_no_picture_is_lost_or_doubled_when_the_chip_fails(
    make_clip: MakeClip,
    caplog: pytest.LogCaptureFixture,
    keyframe_every: int,
    fails_at: int,
    threads: int,
) -> None:
    path = make_clip("a.mp4", frames=FRAMES, keyframe_every=keyframe_every)
    frames, source = play(path, Chips(options={"fails_at": fails_at}), threads)
    assert numbers(frames) == [*range(FRAMES)]
    assert [f.pts for f in frames] == [f.pts for f in play(path, None)[0]]
    assert ("nv12" in formats(frames)) is (fails_at > 0)
    assert source.stats.decoded_by == ("h264", "cpu", "its decoder failed (Generic error)")
    assert source.stats.anomalies == {"gpu_decoder_failed": 1}
    assert [r.levelno for r in caplog.records] == [logging.WARNING]
    assert "a.mp4: its decoder failed (Generic error); it goes on in software" in caplog.text


@pytest.mark.parametrize("refuses_at", [0, 80])
def test_a_stream_that_the_chip_does_not_take_is_decoded_in_software(
    make_clip: MakeClip, refuses_at: int
) -> None:
    frames, source = play(make_clip("a.mp4", frames=100), Chips(options={"refuses_at": refuses_at}))
    assert numbers(frames) == [*range(100)]
    assert source.stats.decoded_by and source.stats.decoded_by.where == "cpu"
    assert "does not take High, yuv420p, 64x48" in source.stats.decoded_by.why
    assert not source.stats.anomalies


_SAID = (
    "Cannot load libnvcuvid.so.1",
    "Failed loading nvcuvid.",
    "Failed setup for format cuda: hwaccel initialisation returned error.",
)


@pytest.mark.parametrize("decoder", ["cuda", "auto"])
def test_why_the_chip_was_left_is_told_in_the_words_of_ffmpeg(
    make_clip: MakeClip, caplog: pytest.LogCaptureFixture, decoder: Any
) -> None:
    chips = Chips({"refuses_at": 0, "says": _SAID}, decoder=decoder)
    frames, source = play(make_clip("a.mp4"), chips)
    assert numbers(frames) == [*range(12)] and not source.stats.anomalies
    assert source.stats.decoded_by is not None
    assert source.stats.decoded_by.why == (
        "it does not take High, yuv420p, 64x48 (Cannot load libnvcuvid.so.1)"
    )
    warned = [record.getMessage() for record in caplog.records]
    assert warned == (
        [f"decoder: cuda: {source.stats.decoded_by.why}; it goes on in software"]
        if decoder == "cuda"
        else []
    )
    assert av.logging.get_level() is None, "FFmpeg's log is off again"


def test_what_ffmpeg_says_of_something_else_is_no_reason(make_clip: MakeClip) -> None:
    chips = Chips({"refuses_at": 0, "says": ("non-existing PPS 0 referenced",)})
    _, source = play(make_clip("a.mp4"), chips)
    assert source.stats.decoded_by and source.stats.decoded_by.why.endswith("64x48")


def test_a_chip_that_goes_mute_is_left(make_clip: MakeClip) -> None:
    frames, source = play(make_clip("a.mp4", frames=FRAMES), Chips(options={"mute_at": 70}))
    assert numbers(frames) == [*range(FRAMES)]
    assert source.stats.anomalies == {"gpu_decoder_failed": 1}


def test_where_no_more_sessions_can_be_had_software_decodes(make_clip: MakeClip) -> None:
    path, chips = make_clip("a.mp4"), Chips(sessions=2)
    played = [play(path, chips) for _ in range(3)]
    assert [numbers(frames) for frames, _ in played] == 3 * [[*range(12)]]
    assert [s.stats.decoded_by.where for _, s in played if s.stats.decoded_by] == [
        *("gpu", "gpu", "cpu")
    ]
    assert played[2][1].stats.anomalies == {"gpu_decoder_failed": 1}


def test_a_codec_that_chips_do_not_do_well_never_gets_there(make_clip: MakeClip) -> None:
    chips = Chips()
    _, source = play(make_clip("a.mp4", codec="mpeg4"), chips)
    assert not chips.opened
    assert source.stats.decoded_by == ("mpeg4", "cpu", "mpeg4 is left to software")


def test_without_presentation_times_software_decodes(make_clip: MakeClip) -> None:
    path = make_clip("a.avi", options={"bf": "2"}, frames=30)
    frames, source = play(path, Chips())
    assert_same(frames, play(path, None)[0])
    assert source.stats.decoded_by and "presentation times" in source.stats.decoded_by.why


def test_packets_are_not_kept_without_end(
    make_clip: MakeClip, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lead_module, "_MOST_KEPT_BYTES", 20_000)
    path = make_clip("a.mp4", frames=FRAMES, keyframe_every=1000, options={"crf": "1"})
    frames, source = play(path, Chips())
    assert numbers(frames) == [*range(FRAMES)]
    assert formats(frames) == ["nv12", "yuv420p"]
    assert source.stats.decoded_by and "too far apart" in source.stats.decoded_by.why


# Damage ------------------------------------------------------------------------------------------


def damaged(path: Path, at: float) -> Path:
    """The same file with some bytes of it overwritten."""
    data = bytearray(path.read_bytes())
    begin = int(at * len(data))
    data[begin : begin + 400] = bytes(400)
    path.write_bytes(data)
    return path


def without_packets(path: Path, begin: int, count: int) -> Path:
    """A transport stream without some of its packets, which a demuxer notices."""
    data = path.read_bytes()
    path.write_bytes(data[: 188 * begin] + data[188 * (begin + count) :])
    return path


@pytest.mark.parametrize("at", [0.3, 0.5, 0.7])
def test_damage_that_the_decoder_tells_is_counted_as_in_software(
    make_clip: MakeClip, at: float
) -> None:
    path = make_clip("a.mp4", frames=120, size=(160, 96), options={"crf": "10"})
    ours, source = play(damaged(path, at), Chips())
    theirs, software = play(path, None)
    assert_same(ours, theirs)
    assert source.stats.frames_dropped == software.stats.frames_dropped
    assert source.stats.anomalies == software.stats.anomalies
    assert software.stats.frames_dropped or software.stats.anomalies, "the damage does nothing"


def test_lost_packets_of_a_transport_stream_bring_software_in(make_clip: MakeClip) -> None:
    path = make_clip("a.ts", frames=120, size=(160, 96), options={"crf": "10"})
    ours, source = play(without_packets(path, 150, 3), Chips())
    theirs, software = play(path, None)
    assert_same(ours, theirs)
    assert source.stats.frames_dropped == software.stats.frames_dropped
    assert formats(ours) == ["nv12", "yuv420p"]
    assert source.stats.decoded_by and "damaged" in source.stats.decoded_by.why


# Whether it pays ---------------------------------------------------------------------------------


def trial_of(path: Path, seconds: float) -> bool:
    """Whether a GPU pays that takes so long for a packet."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        fresh = av.CodecContext.create(stream.codec_context.codec, "r")
        fresh.extradata, fresh.thread_count = stream.codec_context.extradata, 1
        trial = Trial(lambda: fresh)
        verdicts = [trial.add(packet, seconds) for packet in container.demux(stream) if packet.size]
    first = next(verdict for verdict in verdicts if verdict is not None)
    assert verdicts.index(first) == 31
    return first.pays


def test_the_gpu_pays_where_one_core_takes_longer(make_clip: MakeClip) -> None:
    path = make_clip("a.mp4", frames=40, size=(320, 240))
    assert trial_of(path, 1e-9) and not trial_of(path, 10.0)


def test_without_a_second_look_at_the_file_the_gpu_stays(make_clip: MakeClip) -> None:
    def gone() -> VideoCodecContext:
        raise av.FileNotFoundError(2, "No such file or directory")

    trial = Trial(gone)
    with av.open(str(make_clip("a.mp4", frames=40))) as container:
        verdicts = [trial.add(packet, 1.0) for packet in container.demux(video=0)]
    assert verdicts[31] == (True, "not measured (No such file or directory)")


def test_a_chip_slower_than_a_core_is_left_without_a_loss(make_clip: MakeClip) -> None:
    path, chips = make_clip("a.mp4", frames=100, size=(320, 240)), Chips(decoder="auto", slow=True)
    frames, source = play(path, chips)
    assert numbers(frames) == [*range(100)]
    assert formats(frames) == ["nv12", "yuv420p"]
    assert not source.stats.anomalies
    assert source.stats.decoded_by and " ms on a core" in source.stats.decoded_by.why
    play(path, chips)
    assert len(chips.opened) == 1, "what is known is not measured again"


def test_a_short_recording_is_left_to_software_unless_the_gpu_was_asked_for(
    make_clip: MakeClip,
) -> None:
    path = make_clip("a.mp4", frames=40)
    _, source = play(path, Chips(decoder="auto", shortest=41))
    assert source.stats.decoded_by and "too short" in source.stats.decoded_by.why
    for chips in (Chips(decoder="auto", shortest=40), Chips(decoder="cuda", shortest=41)):
        assert formats(play(path, chips)[0])[0] == "nv12"


def test_a_chip_that_was_asked_for_stays_however_slow(make_clip: MakeClip) -> None:
    frames, _ = play(make_clip("a.mp4", frames=100), Chips(slow=True))
    assert formats(frames) == ["nv12"]


def test_a_closed_recording_lets_go_of_the_chip(make_clip: MakeClip) -> None:
    import weakref

    chips = Chips()
    _, source = play(make_clip("a.mp4"), chips)
    chip = weakref.ref(chips.opened.pop())
    source.close()
    assert chip() is None


def test_time_of_a_stream_with_its_own_time_base_is_kept(make_clip: MakeClip) -> None:
    path = make_clip(
        "a.ts",
        frames=90,
        time_base=Fraction(1, 90_000),
        timestamps=[*(3600 * n + (n % 3) * 7 for n in range(90))],
    )
    ours, _ = play(path, Chips(options={"fails_at": 70}))
    assert [f.pts for f in ours] == [f.pts for f in play(path, None)[0]]


# What is told ------------------------------------------------------------------------------------


def test_the_report_and_the_summary_say_what_decoded(make_clip: MakeClip) -> None:
    path = make_clip("a.mp4")
    played = {"front": Chips(), "rear": Chips(options={"fails_at": 3}), "side": Chips()}
    sources = {name: source_report(play(path, chips)[1].stats) for name, chips in played.items()}
    assert sources["front"]["decoder"] == {"codec": "h264", "where": "gpu", "why": "as asked for"}
    assert _decoder_lines(sources) == [
        "front, side: decoded h264 on the GPU: as asked for",
        "rear: decoded h264 in software: its decoder failed (Generic error)",
    ]


def test_what_was_drawn_was_not_decoded() -> None:
    (street,) = open_sources(["synthetic://street?size=160x90&fps=25&seconds=1"])
    street.close()
    report = source_report(street.stats)
    assert report["decoder"] is None and _decoder_lines({"street": report}) == []
