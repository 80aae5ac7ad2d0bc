"""Encoding on a GPU: what is asked of NVENC, and what happens where it cannot be had."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any, get_args

import av
import pytest
from av.codec.context import CodecOption, OptionType

from pipeline.bookkeeping.summary import _sink_line
from pipeline.errors import ConfigError
from pipeline.settings import Preset, RecordingSettings, VideoSettings
from pipeline.sinks import SinkTarget, encoder_choice
from pipeline.sinks import encoder as encoder_module
from pipeline.sinks import nvenc as nvenc_module
from pipeline.sinks.encoder_choice import choose_encoder
from pipeline.sinks.encoding import Encoding
from pipeline.sinks.footage import FootageEncoder
from pipeline.sinks.nvenc import NVENC, choose_nvenc_preset, options, trouble_of_nvenc
from pipeline.sinks.pattern import FilePattern
from pipeline.sinks.segments import SegmentsSink
from pipeline.sinks.video import VideoSink
from tests.pipeline.written_video import NAMES, numbers, result
from tests.recording.footage import LIVE, dates, look, shot

TARGET = SinkTarget("a", NAMES, Fraction(25))

without_nvenc = pytest.mark.skipif(trouble_of_nvenc() is None, reason="NVENC opens here")
built_in = pytest.mark.skipif(NVENC not in av.codecs_available, reason="FFmpeg has no NVENC")


def declared(encoder: str) -> dict[str, CodecOption]:
    """What FFmpeg knows for an encoder; its own options before those of all."""
    known = av.CodecContext.create(encoder, "w").supported_options
    return {option.name: option for option in (*known.generic, *known.private)}


def faults(encoder: str, asked: dict[str, str]) -> list[str]:
    """Options that FFmpeg does not know, and values that they cannot have."""
    known, found = declared(encoder), []
    for name, value in asked.items():
        option = known.get(name)
        choices = {choice.name for choice in option.choices} if option else set()
        if option is None:
            found.append(name)
        elif option.type is not OptionType.STRING and value not in choices:
            try:
                fits = option.min <= float(value) <= option.max
            except ValueError:
                fits = False
            found += [] if fits else [f"{name}={value}"]
    return found


def nvenc_encoding(**settings: Any) -> Encoding:
    """What is chosen where a trial of NVENC opens."""
    return Encoding.choose(
        VideoSettings(**settings), (1080, 1920), Fraction(25), live=False, cores=2
    )


def written(path: Path, settings: VideoSettings) -> dict[str, Any]:
    with VideoSink(path, TARGET, settings) as sink:
        for n in range(30):
            sink.write(result(n))
    return sink.report()


@pytest.fixture
def opens(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which the trial opened."""
    monkeypatch.setattr(encoder_choice, "trouble_of_nvenc", lambda: None)


@built_in
@pytest.mark.parametrize("at_once", [False, True])
@pytest.mark.parametrize("crf", [0, 1, 23, 51])
def test_ffmpeg_knows_every_option_and_value_that_nvenc_is_given(crf: int, at_once: bool) -> None:
    for preset in get_args(Preset):
        chosen = choose_nvenc_preset(preset, (1080, 1920), 60.0)
        assert faults(NVENC, options(chosen, crf, at_once=at_once)) == []


@built_in
def test_a_misspelt_option_or_value_would_be_noticed() -> None:
    wrong = {"forced_idr": "1", "rc": "vbrr", "cq": "60", "preset": "p8", "delay": "soon"}
    assert faults(NVENC, wrong) == ["forced_idr", "rc=vbrr", "cq=60", "preset=p8", "delay=soon"]


def test_ffmpeg_knows_every_option_that_x264_is_given() -> None:
    context = av.CodecContext.create("libx264", "w")
    encoding = Encoding.choose(
        VideoSettings(encoder="libx264"), (64, 64), None, live=True, cores=2, at_once=True
    )
    encoding.configure(context, (64, 64), Fraction(1, 25))
    assert faults("libx264", dict(context.options)) == []


@built_in
def test_the_encoder_is_configured_without_b_frames_and_with_its_quality(opens: None) -> None:
    context = av.CodecContext.create(NVENC, "w")
    nvenc_encoding(crf=30, keyframe_seconds=2.0).configure(context, (1080, 1920), Fraction(1, 90))
    assert (context.width, context.height, context.pix_fmt) == (1920, 1080, "yuv420p")
    assert context.gop_size == 50
    assert context.options == {
        "preset": "p2",
        "bf": "0",
        "forced-idr": "1",
        "rc": "vbr",
        "cq": "30",
    }


def test_what_is_sent_at_once_waits_for_nothing() -> None:
    assert options("p4", 23, at_once=True).items() >= {
        *{"tune": "ll", "delay": "0", "zerolatency": "1"}.items()
    }
    assert options("p4", 0, at_once=True)["tune"] == "lossless"


def test_the_preset_follows_what_was_asked_or_the_load() -> None:
    hd, uhd = (1080, 1920), (2160, 3840)
    assert [choose_nvenc_preset(p, hd, 25) for p in ("ultrafast", "medium", "veryslow")] == [
        *("p1", "p4", "p7")
    ]
    assert [choose_nvenc_preset("auto", hd, fps) for fps in (25, 100, 240)] == ["p4", "p2", "p1"]
    assert choose_nvenc_preset("auto", uhd, 25) == "p2"


# Where there is none -----------------------------------------------------------------------------


@without_nvenc
def test_left_to_itself_x264_encodes_and_the_report_says_why(tmp_path: Path) -> None:
    report = written(tmp_path / "a.mp4", VideoSettings())
    assert report["encoder"] == "libx264" and "encoder_refused" not in report
    assert report["encoder_why"].startswith(("NVENC does not open (", "this FFmpeg was built"))


@without_nvenc
def test_asking_for_nvenc_where_there_is_none_is_an_error_that_says_why() -> None:
    with pytest.raises(ConfigError, match=r"h264_nvenc was asked for, but NVENC .* write auto"):
        choose_encoder(NVENC, {NVENC, "libx264"})


@without_nvenc
@built_in
@pytest.mark.parametrize(
    ("said", "told", "remedy"),
    [
        (
            (
                "Driver does not support the required nvenc API version. "
                "Required: 13.0 Found: 12.1",
                "The minimum required Nvidia driver for nvenc is 570.0 or newer",
            ),
            "Required: 13.0 Found: 12.1; The minimum required Nvidia driver for nvenc is 570.0",
            "install a newer driver (see nvidia-smi)",
        ),
        (
            ("Cannot load libnvidia-encode.so.1", "The minimum required Nvidia driver ..."),
            "but the driver's libnvidia-encode.so.1 is missing, as in containers without `video` (",
            "NVIDIA_DRIVER_CAPABILITIES=compute,video,utility",
        ),
        (("No capable devices found",), "(No capable devices found)", "whether the card has an"),
    ],
)
def test_what_ffmpeg_says_of_nvenc_decides_what_is_to_be_done(
    monkeypatch: pytest.MonkeyPatch, said: tuple[str, ...], told: str, remedy: str
) -> None:
    """It fails on this machine in its own way; what it would say elsewhere stands in for that."""

    @contextmanager
    def heard(level: int) -> Iterator[list[tuple[int, str, str]]]:
        yield [(level, "h264_nvenc", text) for text in said]

    monkeypatch.setattr(nvenc_module, "ffmpeg_log", heard)
    trouble_of_nvenc.cache_clear()
    with pytest.raises(ConfigError) as caught:
        choose_encoder(NVENC, {NVENC, "libx264"})
    trouble_of_nvenc.cache_clear()
    assert told in str(caught.value) and remedy in str(caught.value)


def test_nvenc_is_taken_where_it_opens(opens: None) -> None:
    assert choose_encoder("auto", {NVENC, "libx264"}) == NVENC
    assert choose_encoder("auto", {"libx264"}) == "libx264"
    assert choose_encoder(NVENC, {NVENC}) == NVENC


@without_nvenc
def test_x264_takes_over_when_nvenc_does_not_open_after_all(
    opens: None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """On this machine it really does not: FFmpeg's own error is the one that is told."""
    report = written(tmp_path / "a.mp4", VideoSettings())
    assert numbers(tmp_path / "a.mp4") == [*range(30)]
    assert report["encoder"] == "libx264"
    assert report["encoder_refused"].startswith("h264_nvenc does not open for ")
    assert caplog.text.count("encoding with libx264") == 1
    assert "because h264_nvenc does not open for" in _sink_line("a.mp4", report)


def test_the_third_of_three_is_encoded_in_software_while_two_run(
    opens: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A card that takes two sessions; what opens in its stead is a real encoder."""
    sessions, start = [], encoder_module.start

    def two_sessions(encoding: Encoding, *rest: Any) -> Any:
        if encoding.encoder == NVENC:
            if len(sessions) == 2:
                raise av.ExternalError(0, "Generic error in an external library")
            sessions.append(encoding)
            assert encoding.otherwise is not None
            encoding = encoding.otherwise
        return start(encoding, *rest)

    monkeypatch.setattr(encoder_module, "start", two_sessions)
    with ExitStack() as stack:
        sinks = [
            stack.enter_context(VideoSink(tmp_path / f"{n}.mp4", TARGET, VideoSettings()))
            for n in range(3)
        ]
        for n in range(30):
            for sink in sinks:
                sink.write(result(n))
    reports = [sink.report() for sink in sinks]
    assert [report["encoder"] for report in reports] == [NVENC, NVENC, "libx264"]
    assert [report["preset"] for report in reports][:2] == ["p4", "p4"]
    assert "Generic error in an external library" in reports[2]["encoder_refused"]
    for n in range(3):
        assert numbers(tmp_path / f"{n}.mp4") == [*range(30)]


def test_segments_go_on_in_software_when_nvenc_fails_in_between(
    opens: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """An encoder without delay in its stead, so that nothing is inside when it fails."""
    start, encode = encoder_module.start, encoder_module.Encoder.encode

    def started(encoding: Encoding, *rest: Any) -> Any:
        is_nvenc = encoding.encoder == NVENC
        return start(replace(encoding, encoder="mpeg4") if is_nvenc else encoding, *rest)

    def failing(self: Any, picture: av.VideoFrame, *shape: Any, keyframe: bool = False) -> Any:
        if self.encoding.encoder == NVENC and picture.pts >= 60:
            raise av.ExternalError(0, "Generic error in an external library")
        return encode(self, picture, *shape, keyframe=keyframe)

    monkeypatch.setattr(encoder_module, "start", started)
    monkeypatch.setattr(encoder_module.Encoder, "encode", failing)
    settings = RecordingSettings(segment_seconds=1.0)
    pattern = FilePattern(f"{tmp_path}/%Y%m%d-%H%M%S.mp4")
    with SegmentsSink(pattern, LIVE, VideoSettings(), settings, dates) as sink:
        for n in range(110):
            sink.write(shot(n))
    files = sorted(tmp_path.glob("*.mp4"))
    assert [n for path in files for n in look(path)[0]] == [*range(110)]
    report = sink.report()
    assert (report["frames"], report["encoder"]) == (110, "libx264")
    assert report["encoder_refused"].startswith("h264_nvenc failed (Generic error")
    assert caplog.text.count("encoding with libx264") == 1


@without_nvenc
def test_footage_for_a_server_is_encoded_in_software_likewise(opens: None) -> None:
    encoder = FootageEncoder(TARGET, VideoSettings(), 1.0, at_once=True)
    footage = [each for n in range(10) for each in encoder.encode(result(n))]
    assert [each.moment.index for each in footage] == [*range(10)]
    assert encoder.facts()["encoder"] == "libx264" and encoder.facts()["encoder_refused"]
    encoder.close()
    assert encoder.facts()["encoder"] == "libx264"
